"""Enumerations as pybind11 makes them: not Python's, comparable with integers only where they are arithmetic."""

from typing import Any, Dict, Iterable, Mapping

from tests.doubles.tensorrt_double.strict import StrictObject, StrictType, Touched

# Values that code may rely on; the others are numbered in the order of the list.
VALUES: Mapping[str, Mapping[str, int]] = {
    "Severity": {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4},
    "DataType": {
        "FLOAT": 0, "HALF": 1, "INT8": 2, "INT32": 3, "BOOL": 4, "UINT8": 5, "FP8": 6, "BF16": 7, "INT64": 8,
        "INT4": 9, "FP4": 10, "E8M0": 11,
    },
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1, "STRONGLY_TYPED": 1},
    "TensorIOMode": {"NONE": 0, "INPUT": 1, "OUTPUT": 2},
    "BuilderFlag": {"FP16": 0, "INT8": 1, "DEBUG": 2, "GPU_FALLBACK": 3},
    "MemoryPoolType": {"WORKSPACE": 0},
}  # fmt: skip
ARITHMETIC = frozenset((
    "Severity", "BuilderFlag", "QuantizationFlag", "NetworkDefinitionCreationFlag", "TacticSource", "EngineCapability",
    "ErrorCodeTRT", "ExecutionContextAllocationStrategy", "SerializationFlag",
))  # fmt: skip
NOT_MEMBERS = frozenset(("name", "value", "itemsize"))
ITEM_SIZES = {"FLOAT": 4, "HALF": 2, "INT8": 1, "INT32": 4, "BOOL": 1, "UINT8": 1, "FP8": 1, "BF16": 2, "INT64": 8}


class EnumMember(StrictObject):
    """The behaviour of one member."""

    _label: str
    _number: int
    _arithmetic: bool

    def __new__(cls, value: Any) -> Any:  # type: ignore[misc]
        for member in vars(cls)["_members"].values():
            if member._number == value:
                return member
        raise ValueError(f"{value!r} is no {cls.__name__}")

    def __int__(self) -> int:
        return self._number

    def __index__(self) -> int:
        return self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def _other(self, other: Any) -> Any:
        if type(other) is type(self):
            return other._number
        return other if self._arithmetic and isinstance(other, int) else None

    def __eq__(self, other: object) -> bool:
        number = self._other(other)
        return number is not None and bool(self._number == number)

    def _compare(self, other: Any, how: str) -> Any:
        number = self._other(other)
        if number is None or not self._arithmetic:
            return NotImplemented
        return getattr(self._number, how)(int(number))

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, "__lt__")

    def __le__(self, other: Any) -> Any:
        return self._compare(other, "__le__")

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, "__gt__")

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, "__ge__")

    def __or__(self, other: Any) -> Any:
        return self._compare(other, "__or__")

    def __and__(self, other: Any) -> Any:
        return self._compare(other, "__and__")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._label}: {self._number}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self._label}"

    @property
    def name(self) -> str:
        return self._label

    @property
    def value(self) -> int:
        return self._number

    @property
    def itemsize(self) -> int:
        return ITEM_SIZES[self._label]


def is_enumeration(listed: Iterable[str]) -> bool:
    """Enumerations list members in capitals, and nothing else but what every enumeration has."""
    names = [one for one in listed if not one.startswith("_") and one not in NOT_MEMBERS]
    return bool(names) and all(one == one.upper() for one in names) and names != ["MAX_DIMS"]


def make_enumeration(name: str, listed: Iterable[str], touched: Touched) -> Any:
    """A version's enumeration."""
    names = [one for one in listed if not one.startswith("_")]
    body: Dict[str, Any] = {
        key: value
        for key, value in vars(EnumMember).items()
        if key.startswith("_") and key not in ("__dict__", "__weakref__")
    }
    body.update({key: vars(EnumMember)[key] for key in NOT_MEMBERS & set(names)})
    body.update(_native=name, _listed=frozenset(names), _touched=touched, _arithmetic=name in ARITHMETIC, _members={})
    made = StrictType(name, (StrictObject,), body)
    labels = [one for one in names if one not in NOT_MEMBERS]
    known, taken = VALUES.get(name, {}), set(VALUES.get(name, {}).values())
    free = (number for number in range(1000) if number not in taken)
    for label in labels:
        member = object.__new__(made)
        object.__setattr__(member, "_label", label)
        object.__setattr__(member, "_number", known[label] if label in known else next(free))
        vars(made)["_members"][label] = member
        type.__setattr__(made, label, member)
    type.__setattr__(made, "__members__", dict(vars(made)["_members"]))
    return made
