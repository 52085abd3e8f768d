"""The only plug-in system: a table of import strings, or any "pkg.mod:Class"."""

import importlib
from typing import Any, Mapping, Type

from wenet_runtime.errors import WeNetError


def load(table: Mapping[str, str], name: str, *, kind: str, error: Type[WeNetError]) -> Any:
    """Import what `name` stands for.

    Args:
        table: known names → import strings "package.module:Attribute".
        name: a name of the table, or an import string of the user's own.
        kind: what is being looked up, for the message ("engine", "meter").
        error: the error to raise.
    """
    target = table.get(name, name)
    module_name, separator, attribute = target.partition(":")
    if not separator:
        raise error(
            f"unknown {kind} '{name}': known are {', '.join(table)}, or give your own as 'package.module:Class'"
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as cause:
        raise error(f"the {kind} '{name}' cannot be loaded ({cause}): install it or choose another") from None
