"""Classes that have exactly the listed public names, and remember which were touched."""

from typing import Any, Dict, Iterable, Optional, Set, Tuple, Type

Touched = Set[Tuple[str, str]]


class StrictType(type):
    """The type of a version's classes: nothing unlisted can be read from or set on a class either."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        base = native(cls)
        if base is not None and vars(base).get("_must_initialise") and "_initialised" not in vars(made):
            raise TypeError(f"{base.__module__}.{base.__name__}.__init__() must be called when overriding __init__")
        return made

    def __getattribute__(cls, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_"):
            note(cls, name)
        return value

    def __setattr__(cls, name: str, value: Any) -> None:
        if "_native" in vars(cls) and not name.startswith("_"):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}' that can be set")
        super().__setattr__(name, value)


def native(cls: Any) -> Any:
    """The class of the double that a class is or derives from."""
    return next((one for one in type.__getattribute__(cls, "__mro__") if "_native" in vars(one)), None)


def note(cls: Any, name: str) -> None:
    """Remember that a public name of a class was read or set."""
    for one in type.__getattribute__(cls, "__mro__"):
        if "_native" in vars(one) and name in vars(one)["_listed"]:
            vars(one)["_touched"].add((vars(one)["_native"], name))
            return


class StrictObject:
    """The base of a version's classes. Names that start with an underscore are the double's own."""

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("_"):
            note(type(self), name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if name.startswith("_") or "_native" not in vars(cls):
            object.__setattr__(self, name, value)
            return
        found = next((vars(one)[name] for one in cls.__mro__ if name in vars(one)), None)
        if found is None:
            raise AttributeError(f"'{cls.__name__}' object has no attribute '{name}'")
        if not hasattr(type(found), "__set__"):
            raise AttributeError(f"'{cls.__name__}' object attribute '{name}' is read-only")
        note(cls, name)
        object.__setattr__(self, name, value)


class Absent:
    """A listed member that the double does not do. It exists, and says so as soon as it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"the double of TensorRT does not do {self._name}")

    __call__ = __bool__ = __int__ = __index__ = __float__ = __len__ = __iter__ = __eq__ = __str__ = _refuse
    __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = __enter__ = __exit__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __get__(self, instance: Any, owner: Any = None) -> "Absent":
        return self

    def __set__(self, instance: Any, value: Any) -> None:
        self._refuse()


def narrow(
    name: str,
    listed: Iterable[str],
    implementation: Optional[type],
    *,
    touched: Touched,
    base: Type[StrictObject] = StrictObject,
    **own: Any,
) -> Any:
    """A version's class: an implementation without the names that the version lacks.

    Args:
        name: of the class.
        listed: the public names that the version has.
        implementation: has the members; None makes a class that cannot be made or used.
        touched: where its uses are noted.
        base: what it derives from.
        own: further private attributes of the class.
    """
    names = frozenset(one for one in listed if not one.startswith("_"))
    body: Dict[str, Any] = {}
    for key, value in () if implementation is None else vars(implementation).items():
        if key not in ("__dict__", "__weakref__", "__module__") and (key.startswith("_") or key in names):
            body[key] = value
    inherited = {key for one in base.__mro__ for key in vars(one)}
    for key in names - set(body) - inherited:
        body[key] = Absent(f"{name}.{key}")
    if implementation is None:
        body["__init__"] = refuse_to_be_made(name)
    body.update(own, _native=name, _listed=names, _touched=touched, __module__="tensorrt.tensorrt")
    return StrictType(name, (base,), body)


def refuse_to_be_made(name: str) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"the double of TensorRT does not do {name}")

    return __init__
