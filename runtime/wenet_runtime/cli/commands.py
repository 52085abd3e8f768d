"""The verbs of `wenet-runtime` and their exit codes."""

import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn, Optional

import typer

from wenet_runtime import __version__
from wenet_runtime.cli.flags import with_settings
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

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BUNDLE = 3
EXIT_BUDGET = 4
EXIT_METER = 5
EXIT_BIND = 6

_EXITS = (
    (BundleError, EXIT_BUNDLE),
    (BudgetImpossible, EXIT_BUDGET),
    (MeterError, EXIT_METER),
    (EnergyUnavailable, EXIT_METER),
    (SettingsError, EXIT_USAGE),
    (UnknownMode, EXIT_USAGE),
    (EngineError, EXIT_FAILURE),
)

app = typer.Typer(add_completion=True, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def say(message: str) -> None:
    """A message for the person, on stderr; stdout carries data only."""
    print(message, file=sys.stderr, flush=True)


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong and exit."""
    say(f"wenet-runtime: {message}")
    raise typer.Exit(code)


def progress(what: str, done: int, total: int) -> None:
    """Show progress on stderr: in place on a terminal, a few lines elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{what} {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done == 0:
        say(f"{what} {done}/{total}")


def _settings(flags: Dict[str, Any], config: Optional[Path]) -> Any:
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


def _guarded(action: Callable[[], None]) -> None:
    """Run a verb; an error raised on purpose becomes one line and its exit code."""
    try:
        action()
    except WeNetError as error:
        code = next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_FAILURE)
        fail(str(error), code)


def _version(asked: bool) -> None:
    if asked:
        print(f"wenet-runtime {__version__}")
        raise typer.Exit


def bare(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="print the version and exit", show_default=False
    ),
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Serve one WeNet checkpoint under a budget: the mode is chosen per request.

    Without a verb it serves. Every option is also an environment variable (WENET_BUDGET_MS for
    --budget-ms) and a key of the TOML file.
    """
    if context.invoked_subcommand is None:
        _serve(flags, config)
    elif flags or config:
        fail(f"give the options after the verb: wenet-runtime {context.invoked_subcommand} --…", EXIT_USAGE)


def serve(flags: Dict[str, Any], config: Optional[Path]) -> None:
    """Serve the bundle over HTTP (what the bare command does)."""
    _serve(flags, config)


def _serve(flags: Dict[str, Any], config: Optional[Path]) -> None:
    def action() -> None:
        settings = _settings(flags, config)
        from wenet_runtime.cli.serve import serve_until_drained

        serve_until_drained(settings)

    _guarded(action)


def build(flags: Dict[str, Any], config: Optional[Path]) -> None:
    """Build this device's engines into the cache, so that starting is quick."""

    def action() -> None:
        settings = _settings(flags, config)
        from wenet_runtime.memory import MB, together
        from wenet_runtime.service.opening import open_cache

        cache = open_cache(settings)
        cache.build(progress)
        footprints = cache.footprints() or {}
        for mode_id, one in footprints.items():
            say(f"{mode_id}: {one.alone / MB:.3g} MB")
        say(f"built: {cache.path}, all resident take {together(footprints.values()) / MB:.3g} MB")

    _guarded(action)


def profile(flags: Dict[str, Any], config: Optional[Path]) -> None:
    """Measure what every mode costs on this device, and keep it for serving."""

    def action() -> None:
        settings = _settings(flags, config)
        from wenet_runtime.service.opening import open_device

        device = open_device(settings, progress, profile_again=True)
        footprints = {mode_id: device.pool.footprint(mode_id) for mode_id in device.pool.modes}
        device.close()
        _print_modes(device.bundle, device.profiles, footprints)

    _guarded(action)


def modes(flags: Dict[str, Any], config: Optional[Path]) -> None:
    """List the bundle's modes as JSON, and what each takes in memory where it is built."""

    def action() -> None:
        from wenet_runtime.bundle import Bundle
        from wenet_runtime.engines.auto import AUTO
        from wenet_runtime.service.opening import open_cache

        settings = _settings(flags, config)
        if settings.engine == AUTO:  # to choose an engine might mean to measure, and a list must not
            _print_modes(Bundle(settings.bundle), {}, {})
        else:
            cache = open_cache(settings)
            _print_modes(cache.bundle, {}, cache.footprints() or {})

    _guarded(action)


def _print_modes(bundle: Any, profiles: Dict[str, Any], footprints: Dict[str, Any]) -> None:
    from dataclasses import asdict

    from wenet_runtime.memory import MB

    rows = []
    for mode in bundle.modes:
        row = {"id": mode.id, "accuracy": mode.accuracy.value, "macs": mode.macs, "params": mode.params}
        row["groups"] = dict(mode.groups)
        if mode.id in footprints:
            row["memory_mb"] = round(footprints[mode.id].alone / MB, 3)
        if mode.id in profiles:
            row["profile"] = asdict(profiles[mode.id])
        rows.append(row)
    print(json.dumps({"bundle_sha256": bundle.sha256, "model": bundle.manifest.model, "modes": rows}, indent=1))


def verify(flags: Dict[str, Any], config: Optional[Path]) -> None:
    """Check every file of the bundle against its manifest."""

    def action() -> None:
        from wenet_runtime.bundle import Bundle

        bundle = Bundle(_settings(flags, config).bundle)
        say(f"ok: {bundle.manifest.model}, {len(bundle.modes)} modes, {len(bundle.manifest.files)} files")
        print(bundle.sha256)

    _guarded(action)


app.callback(invoke_without_command=True)(with_settings(bare))
for _command in (serve, build, profile, modes, verify):
    app.command(_command.__name__)(with_settings(_command))


def main() -> None:
    """Entry point of `wenet-runtime`."""
    app()
