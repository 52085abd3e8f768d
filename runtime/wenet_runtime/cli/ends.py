"""How every verb speaks and ends: messages on stderr, one line for an error, and its exit code."""

import logging
import sys
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn, Optional

import typer

from wenet_runtime.errors import (
    BudgetImpossible,
    BundleError,
    EnergyUnavailable,
    EngineError,
    MeterError,
    SettingsError,
    UnknownMode,
    WeNetError,
)

SAID = "wenet_runtime.said"  # the logger that takes messages where its level is INFO

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BUNDLE = 3
EXIT_BUDGET = 4
EXIT_METER = 5
EXIT_BIND = 6
EXIT_INTERRUPTED = 130

_EXITS = (
    (BundleError, EXIT_BUNDLE),
    (BudgetImpossible, EXIT_BUDGET),
    (MeterError, EXIT_METER),
    (EnergyUnavailable, EXIT_METER),
    (SettingsError, EXIT_USAGE),
    (UnknownMode, EXIT_USAGE),
    (EngineError, EXIT_FAILURE),
)

_LOG = logging.getLogger(SAID)


def say(message: str, level: int = logging.INFO) -> None:
    """A message for the person, on stderr; stdout carries data only. A line of the log where machines read that."""
    if _LOG.level == logging.INFO:  # its own, whatever others log
        _LOG.log(level, message)
    else:
        print(message, file=sys.stderr, flush=True)


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong and exit."""
    say(f"wenet-runtime: {message}", logging.ERROR)
    raise typer.Exit(code)


def checked_settings(flags: Dict[str, Any], config: Optional[Path]) -> Any:
    """Load the settings and make sure there is a bundle to look at."""
    from wenet_runtime.settings import load_settings

    settings = load_settings(flags, config=config)
    if not settings.bundle.is_dir():
        fail(
            f"no bundle at '{settings.bundle}': give --bundle DIR or set WENET_BUNDLE; "
            "`wenet-trainer export` makes one, and so does `make demo` (out/demo/bundle)",
            EXIT_USAGE,
        )
    return settings


def guarded(action: Callable[[], None]) -> None:
    """Run a verb; an error raised on purpose becomes one line and its exit code."""
    try:
        action()
    except WeNetError as error:
        code = next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_FAILURE)
        fail(str(error), code)
