"""The verb `doctor`: looks this device over and says what to do."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import typer

from wenet_runtime import __version__
from wenet_runtime.cli.ends import EXIT_FAILURE, guarded
from wenet_runtime.cli.settings_shown import warn_of_misspelt

if TYPE_CHECKING:
    from wenet_runtime.service.check import Check


def doctor(
    as_json: bool = typer.Option(False, "--json", help="print JSON"),
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Look this device over: board, libraries, meter, permissions, and what to do. Needs no bundle.

    Takes the daemon's options, and exits with 1 if something would not work with them.
    """

    def action() -> None:
        from wenet_runtime.service.check import FAIL, worst
        from wenet_runtime.service.doctor import examine
        from wenet_runtime.settings import load_settings

        settings = load_settings(flags, config=config)
        warn_of_misspelt()
        checks = examine(settings)
        status = worst(checks)
        if as_json:
            members = {"version": __version__, "status": status, "checks": [asdict(one) for one in checks]}
            print(json.dumps(members, indent=1))
        else:
            print("\n".join(lines(checks)))
        if status == FAIL:
            raise typer.Exit(EXIT_FAILURE)

    guarded(action)


def lines(checks: "Sequence[Check]") -> List[str]:
    """The checks for a person, in columns; what to do stands below what was found."""
    width = max((len(one.name) for one in checks), default=0)
    found: List[str] = []
    for one in checks:
        found.append(f"{one.status:7}  {one.name:{width}}  {one.found}")
        if one.remedy:
            found.append(f"{'':7}  {'':{width}}  → {one.remedy}")
    return found
