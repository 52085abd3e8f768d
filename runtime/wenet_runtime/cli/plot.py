"""The verb `plot`: pictures of a load, of a server's decisions, and of what modes cost."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional

import typer

from wenet_runtime.cli.ends import EXIT_FAILURE, fail, guarded, say
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.plots.story import Story

# name of the files: module of `wenet_runtime.plots` that draws them
PICTURES = {
    "latency": "latency",
    "budgets": "hits",
    "modes": "shares",
    "power": "power",
    "frontier": "frontier",
    "batches": "batches",
    "prediction": "prediction",
}
ONLY = typer.Option(
    None, "--only", help=f"one of {', '.join(PICTURES)}; may be repeated", show_default=False, metavar="PICTURE"
)
AFTER_S = 60.0  # how long after a load's last arrival its decisions may still be written


def plot(
    report: Optional[str] = typer.Option(
        None, "--report", help="what `wenet-runtime bench --out` wrote", show_default=False, metavar="FILE"
    ),
    decisions: Optional[str] = typer.Option(
        None, "--decisions", help="what the server's --decision-log wrote", show_default=False, metavar="FILE"
    ),
    profile: Optional[str] = typer.Option(
        None,
        "--profile",
        help="what `wenet-runtime profile --out` wrote, or a cache's profile.json with its --bundle",
        show_default=False,
        metavar="FILE",
    ),
    bundle: Optional[str] = typer.Option(
        None, "--bundle", help="the bundle that the profile is of", show_default=False, metavar="DIR"
    ),
    only: Optional[List[str]] = ONLY,
    out: str = typer.Option("plots", "--out", help="directory of the pictures, made if it is not there", metavar="DIR"),
    as_json: bool = typer.Option(False, "--json", help="print what was written and what was not, and why, as JSON"),
) -> None:
    """Draw what is known: latency, budgets, modes, power, frontier, batches, predictions.

    Each is written as PNG, SVG and CSV. Needs `pip install 'wenet-runtime[plot]'`.
    """

    def action() -> None:
        wanted = _wanted(only or [])
        story = _story(report, decisions, profile, bundle)
        folder = Path(out)
        written: Dict[str, List[str]] = {}
        left: Dict[str, str] = {}
        from wenet_runtime.plots.figure import NothingToDraw, look, save

        for name in wanted:
            try:
                with look():
                    picture = importlib.import_module(f"wenet_runtime.plots.{PICTURES[name]}").draw(story)
                    folder.mkdir(parents=True, exist_ok=True)
                    paths = save(picture, folder=folder, name=name, notes=story.notes)
            except NothingToDraw as error:
                left[name] = str(error)
                say(f"no picture '{name}': {error}")
                continue
            except OSError as error:
                raise SettingsError(f"--out '{out}' cannot be written ({error.strerror}): name another") from None
            written[name] = [str(path) for path in paths]
            if not as_json:
                print("\n".join(written[name]), flush=True)
        if as_json:
            print(json.dumps({"written": written, "left_out": left}, indent=1))
        if not written:
            fail("nothing of what was given can be drawn", EXIT_FAILURE)

    guarded(action)


def _wanted(only: List[str]) -> List[str]:
    unknown = [name for name in only if name not in PICTURES]
    if unknown:
        raise SettingsError(f"--only '{unknown[0][:60]}' is no picture: there are {', '.join(PICTURES)}")
    return [name for name in PICTURES if not only or name in only]


def _story(report: Optional[str], decisions: Optional[str], profile: Optional[str], bundle: Optional[str]) -> "Story":
    """Everything that was given, told on one line of time."""
    from wenet_runtime.plots.sources import read_decisions, read_profile_points, read_report
    from wenet_runtime.plots.story import Story

    if report is None and decisions is None and profile is None:
        raise SettingsError("nothing to draw: give --report, --decisions or --profile")
    if bundle is not None and profile is None:
        raise SettingsError("--bundle belongs to --profile: give both")
    story = Story()
    loaded = None
    if report is not None:
        loaded = read_report(Path(report))
        story = loaded.story
    if decisions is not None:
        if loaded is None:
            story = read_decisions(Path(decisions))
        else:  # the client's view of the requests, and the server's of when its mode changed
            found = read_decisions(Path(decisions), since_s=loaded.started_at_s, seconds=loaded.seconds + AFTER_S)
            story = replace(story, decisions=found.decisions, decided=found.decided)
    if profile is not None:
        known = read_profile_points(Path(profile), None if bundle is None else Path(bundle))
        story = replace(story, modes=known.modes, notes=[*story.notes, *known.notes])
    return story
