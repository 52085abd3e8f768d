"""Where settings are read from, and what is said of a value that cannot be: each text names where it stands."""

import difflib
import json
import sys
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Mapping, Optional

from pydantic import ValidationError

from wenet_runtime.errors import SettingsError

PREFIX = "WENET_"


def read_toml(path: Path, known: Collection[str]) -> Dict[str, Any]:
    """What stands in a TOML file. Raises `SettingsError` of one that is none, or has a key that is not known."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with path.open("rb") as file:
            values: Dict[str, Any] = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no TOML: byte {error.start} is no UTF-8; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f": did you mean '{close[0]}'?" if close else f": known are {', '.join(known)}"
            raise SettingsError(f"{path} has unknown key '{key}'{hint}")
    return values


def variable_of(name: str, environment: Mapping[str, str]) -> Optional[str]:
    """The environment's variable of a setting, if it has one: they are read in any case of letters."""
    wanted = PREFIX + name.upper()
    return next((one for one in environment if one.upper() == wanted), None)


def check_lists(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Raises `SettingsError` where a variable of a setting that is a list is no JSON list of texts."""
    for name in names:
        variable = variable_of(name, environment)
        if variable is None:
            continue
        try:
            found = json.loads(environment[variable])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise SettingsError(
                f"{variable} is {environment[variable]!r}, which is no JSON list of texts: "
                f"""give {variable}='["one", "two"]'"""
            )


def wrong_value(error: ValidationError, origins: Mapping[str, str], descriptions: Mapping[str, str]) -> str:
    """What to say of the first value that cannot be: which, where it stands, and what may stand there."""
    first = error.errors()[0]
    if not first["loc"]:  # values that are each possible and do not go together: the text names them
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    origin = origins[name]
    where = "" if origin.startswith("flag ") else f", from {origin}"
    return f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}) is {first['input']!r}{where}: " + _wanted(
        first, descriptions[name]
    )


def _wanted(first: Mapping[str, Any], description: str) -> str:
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] != "string_pattern_mismatch":
        return str(first["msg"])
    pattern = first["ctx"]["pattern"]
    if not pattern.startswith("^("):
        return f"it is {description}"
    return f"choose one of {pattern[2:-2].replace('|', ', ')}"
