"""Training settings from flags and a TOML file; both follow from the fields of `Recipe` and `Options`."""

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import typer

from wenet_trainer.errors import TrainingError
from wenet_trainer.options import Options
from wenet_trainer.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS: dict[str, Field[Any]] = {field.name: field for kind in (Recipe, Options) for field in fields(kind)}


def read_settings(config: Path | None, flags: Mapping[str, Any]) -> tuple[Recipe, Options]:
    """The settings of one training: a flag wins over the file, the file over the default.

    Args:
        config: TOML file with any of the settings by name; `model_arguments` is a table.
        flags: those that were given, by name; `model_arguments` as "name=number" texts.

    Raises:
        TrainingError: the file cannot be read, or has an unknown or impossible setting.
    """
    given = {} if config is None else _read(config)
    given |= {name: value for name, value in flags.items() if value is not None and value != []}
    if isinstance(given.get("model_arguments"), list):
        given["model_arguments"] = dict(_argument(text) for text in given["model_arguments"])
    for name, value in given.items():
        _check(name, value, "--" + name.replace("_", "-") if config is None or name in flags else str(config))
    if "data" in given:  # the recipe travels, so a path in it must not depend on where one stands
        from wenet_trainer.data import full_name  # late: it imports torch

        given["data"] = full_name(given["data"])
    recipe, options = (
        {field.name: given[field.name] for field in fields(kind) if field.name in given} for kind in (Recipe, Options)
    )
    return Recipe(**recipe), Options(**options)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting, and `--config`.

    The command is called with the flags that were given, as `flags`, and with `config`; its own
    parameters stay as they are and come first.
    """
    own = [p for p in inspect.signature(command).parameters.values() if p.name not in ("flags", "config")]
    keyword = inspect.Parameter.KEYWORD_ONLY
    config = typer.Option(None, help="TOML file with these settings.", show_default=False)
    options = [inspect.Parameter("config", keyword, default=config, annotation=Path | None)]
    options += [
        inspect.Parameter(name, keyword, default=_option(field), annotation=_annotation(field))
        for name, field in SETTINGS.items()
    ]

    def run(**given: Any) -> None:
        flags = {name: given[name] for name in SETTINGS if given[name] is not None}
        command(**{parameter.name: given[parameter.name] for parameter in own}, flags=flags, config=given["config"])

    signature = inspect.Signature([*(p.replace(kind=keyword) for p in own), *options])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else {}


def _annotation(field: Field[Any]) -> Any:
    kind = type(_default(field))
    return list[str] | None if kind is dict else kind | None


def _option(field: Field[Any]) -> Any:
    default, flag = _default(field), "--" + field.name.replace("_", "-")
    if default is True or default is False:
        flag = f"{flag}/--no-{flag[2:]}"
    shown = "" if default in ("", {}) or isinstance(default, bool) else f" [{default}]"
    return typer.Option(None, flag, help=f"{field.metadata['help']}{shown}", show_default=False)


def _argument(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError:
        raise TrainingError(f"--model-arguments takes name=number, not '{text}': write for example width=32") from None


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"cannot read the settings in {config}: {error}") from None


def _check(name: str, value: Any, where: str) -> None:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(SETTINGS))}"
        raise TrainingError(f"{where} has an unknown setting '{name}': {hint}")
    wanted = type(_default(SETTINGS[name]))
    fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    if not fits and not (wanted is float and type(value) is int):
        raise TrainingError(f"{where}: '{name}' must be a {wanted.__name__}, not {value!r}")
