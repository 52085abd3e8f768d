"""The verbs of `wenet-runtime` and their exit codes."""

import json
from pathlib import Path
from typing import Any, Dict, Optional

import typer

from wenet_runtime import __version__
from wenet_runtime.cli.bench import bench
from wenet_runtime.cli.build import build
from wenet_runtime.cli.doctor import doctor
from wenet_runtime.cli.ends import EXIT_USAGE, checked_settings, fail, guarded, say
from wenet_runtime.cli.explain import explain
from wenet_runtime.cli.flags import with_settings
from wenet_runtime.cli.infer import infer
from wenet_runtime.cli.plot import plot
from wenet_runtime.cli.profile import ALWAYS_JSON, listed, profile
from wenet_runtime.cli.settings_shown import settings, warn_of_misspelt

app = typer.Typer(add_completion=True, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)


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
        from wenet_runtime.cli.log_begin import asked_form, begin_logs

        begin_logs(asked_form(flags))
        settings = checked_settings(flags, config)
        begin_logs(settings.log_format)  # a file may ask for another form
        warn_of_misspelt()
        from wenet_runtime.cli.serve import serve_until_drained

        serve_until_drained(settings)

    guarded(action)


def modes(as_json: bool = ALWAYS_JSON, *, flags: Dict[str, Any], config: Optional[Path]) -> None:
    """List the bundle's modes as JSON, and what each takes in memory where it is built."""
    del as_json

    def action() -> None:
        from wenet_runtime.engines.auto import AUTO
        from wenet_runtime.service.opening import open_cache
        from wenet_runtime.service.signing import open_bundle

        settings = checked_settings(flags, config)
        if settings.engine == AUTO:  # to choose an engine might mean to measure, and a list must not
            members = listed(open_bundle(settings), {}, {})
        else:
            cache = open_cache(settings)
            members = listed(cache.bundle, {}, cache.footprints() or {})
            refused = cache.refused()
            for row in members["modes"]:
                row["refused"] = refused.get(row["id"])
        print(json.dumps(members, indent=1))

    guarded(action)


def verify(
    as_json: bool = typer.Option(False, "--json", help="print what was verified as JSON, not the SHA-256 alone"),
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Check every file of the bundle against its manifest, and the manifest's signature with --verify-key."""

    def action() -> None:
        from wenet_runtime.service.signing import open_bundle

        settings = checked_settings(flags, config)
        bundle = open_bundle(settings)
        key = settings.verify_key
        signed = "its signature not looked at, as no --verify-key is given" if key is None else f"signed with {key}"
        say(f"ok: {bundle.manifest.model}, {len(bundle.modes)} modes, {len(bundle.manifest.files)} files, {signed}")
        if as_json:
            files = {one: entry.sha256 for one, entry in bundle.manifest.files.items()}
            members: Dict[str, Any] = {"bundle_sha256": bundle.sha256, "model": bundle.manifest.model, "files": files}
            members["signed"] = None if key is None else True
            print(json.dumps({**members, "modes": [mode.id for mode in bundle.modes]}, indent=1))
        else:
            print(bundle.sha256)

    guarded(action)


app.callback(invoke_without_command=True)(with_settings(bare))
for _command in (serve, build, profile, modes, verify, doctor, settings):
    app.command(_command.__name__)(with_settings(_command))
# These ask a server, or read files, and take no settings.
app.command("infer")(infer)
app.command("bench")(bench)
app.command("plot")(plot)
app.command("explain")(explain)
