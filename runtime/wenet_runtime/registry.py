"""The only plug-in system: a table of import strings, or any "pkg.mod:Class"."""

import difflib
import importlib
from typing import Any, Mapping, Optional, Sequence, Type

from wenet_runtime.errors import SettingsError, WeNetError

OWN = "'package.module:Class'"


def load(
    table: Mapping[str, str],
    name: str,
    *,
    kind: str,
    error: Type[WeNetError],
    interface: Optional[type] = None,
    also: Sequence[str] = (),
    unknown: Optional[Type[WeNetError]] = None,
) -> Any:
    """Import what `name` stands for.

    Args:
        table: known names → import strings "package.module:Attribute".
        name: a name of the table, or an import string of the user's own.
        kind: what is being looked up, for the message ("engine", "meter").
        error: the error to raise of what cannot be imported, or is no class with that interface.
        interface: the protocol whose methods the class must have; nothing is looked at if not given.
        also: names that the caller knows besides those of the table, for the message.
        unknown: the error to raise of a name that is in no table, and no import string; `error` if not given.
    """
    target = table.get(name, name)
    module_name, separator, attribute = target.partition(":")
    if not separator:
        known = (*also, *table)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'? Known" if close else "known"
        raise (unknown or error)(f"unknown {kind} '{name}': {hint} are {', '.join(known)}, or give your own as {OWN}")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as cause:  # a module of somebody else's may raise anything
        raise error(f"the {kind} '{name}' cannot be loaded ({cause}): install it or choose another") from cause
    if interface is not None:
        _check_class(found, f"'{name}' is no {kind}", error, interface)
    return found


def make(
    table: Mapping[str, str],
    name: str,
    *parts: Any,
    kind: str,
    error: Type[WeNetError],
    interface: type,
    also: Sequence[str] = (),
    **how: Any,
) -> Any:
    """Make one of what `name` stands for, as `Class(*parts, **how)`; other arguments and errors as for `load`.

    Raises:
        SettingsError: the name is in no table, and no import string.
    """
    found = load(table, name, kind=kind, error=error, interface=interface, also=also, unknown=SettingsError)
    try:
        one = found(*parts, **how)
    except WeNetError:
        raise
    except Exception as cause:  # so may its class
        text = f"{type(cause).__name__}: {cause}"
        raise error(f"the {kind} '{name}' cannot be made ({text}): mend it or choose another") from cause
    missing = [attribute for attribute in interface.__annotations__ if not hasattr(one, attribute)]
    if missing:
        one.close()
        raise error(f"'{name}' is no {kind} ({_lacks(missing, interface)}")
    return one


def _check_class(found: Any, wrong: str, error: Type[WeNetError], interface: type) -> None:
    if not isinstance(found, type):
        raise error(f"{wrong} (it is a {type(found).__name__}, not a class): give one as {OWN}")
    methods = [one for one, value in vars(interface).items() if callable(value) and not one.startswith("_")]
    missing = [one for one in methods if not callable(getattr(found, one, None))]
    if missing:
        raise error(f"{wrong} ({_lacks(missing, interface)}")


def _lacks(missing: Sequence[str], interface: type) -> str:
    return f"it has no {', '.join(missing)}): it needs what {interface.__module__}.{interface.__name__} has"
