"""Command-line flags derived from the settings' one declaration."""

import inspect
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Union

import typer

from wenet_runtime.settings import Settings


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting, and `--config`.

    The command is called with the flags that were given, as `flags`, and with `config`; its own
    parameters stay as they are and come first.
    """
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name not in ("flags", "config")
    ]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_option(name), annotation=_optional(field))
        for name, field in Settings.model_fields.items()
    ]
    config = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(None, help="TOML file with these settings (WENET_CONFIG)", show_default=False),
        annotation=Optional[Path],
    )

    def run(**given: Any) -> None:
        flags: Dict[str, Any] = {
            name: value for name, value in given.items() if name in Settings.model_fields and value not in (None, [])
        }
        command(**{parameter.name: given[parameter.name] for parameter in own}, flags=flags, config=given["config"])

    signature = inspect.Signature([*own, *options, config])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def _option(name: str) -> Any:
    field = Settings.model_fields[name]
    default = "" if field.default_factory is not None or field.default in (None, False) else f" [{field.default}]"
    flag = "--" + name.replace("_", "-")
    if field.default is True:
        flag, default = f"{flag}/--no-{flag[2:]}", " [on]"
    return typer.Option(None, flag, help=f"{field.description}{default}", show_default=False)


def _optional(field: Any) -> Any:
    """The option's type: the setting's own, or None when it was not given."""
    plain = field.annotation
    arguments = [one for one in getattr(plain, "__args__", ()) if one is not type(None)]
    if getattr(plain, "__origin__", None) is Union:
        plain = arguments[0]
    return Optional[List[str]] if plain == List[str] else Optional[plain]
