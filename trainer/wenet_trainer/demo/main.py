"""Train → explore → export → daemon → requests, with what each step showed."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from wenet_trainer.checkpoint import FILE as CHECKPOINT
from wenet_trainer.checkpoint import read_checkpoint
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, write_pngs
from wenet_trainer.data.digits import Digits
from wenet_trainer.demo.budgets import HEADROOM, Outcome, Shown, end_to_end_ms, post_all
from wenet_trainer.demo.contention import timeline
from wenet_trainer.demo.daemon import Client, Daemon
from wenet_trainer.demo.goals import goals
from wenet_trainer.demo.tables import print_goals, print_modes, print_outcomes, print_timeline
from wenet_trainer.errors import DemoError
from wenet_trainer.explore.frontier import find_frontier
from wenet_trainer.explore.picture import write_pictures
from wenet_trainer.explore.result import FILE as FRONTIER
from wenet_trainer.export import export_bundle
from wenet_trainer.recipe import Recipe
from wenet_trainer.supernet import weight_enabled
from wenet_trainer.train import train

ENGINE_CORE = 0
LOAD_HEADROOM = 3.0  # wide enough for the full mode alone, not for the full mode under load
BUDGET_MODES = 4  # how many modes' times become budgets


def demo(out: Path, recipe: Recipe | None = None) -> None:
    """Run the whole road and leave everything under `out`.

    Args:
        out: receives `bundle/`, `images/*.png`, `frontier.png` and `run/` (checkpoint, frontier).
        recipe: training settings; the defaults are the demo's.
    """
    console = Console(width=110, highlight=False)
    recipe = recipe or Recipe()
    began = time.monotonic()
    bundle = _road(out, recipe, console)
    source = open_source(recipe.data, recipe.seed, recipe.image_size)
    if not isinstance(source, Digits):
        raise DemoError(f"the demo is about the digits, not '{recipe.data}'")
    images = _write_images(out / "images", source.test())
    clean = _shown(source.test(clean=True), out / "images" / "clean")
    options = ["--engine-core", str(ENGINE_CORE), "--cache-dir", str(out / "cache")]
    console.rule("serve")
    with Daemon(bundle, options, out / "daemon.log") as daemon:
        console.print(" ".join(daemon.command))
        client = Client(daemon.port)
        modes = client.modes()["modes"]
        print_modes(console, modes)
        pinned = _pinned(client, images, clean, modes)
        budgets = _budgets(client, images, modes)
        print_outcomes(console, [*pinned, *budgets], len(images))
        budget_ms = LOAD_HEADROOM * end_to_end_ms(client, images, modes[0]["id"])
        slices = timeline(client, [image.png for image in images], budget_ms, core=ENGINE_CORE, full=modes[0]["id"])
        print_timeline(console, slices, budget_ms)
        client.close()
        code = daemon.stop()
    if code != 0:
        raise DemoError(f"the daemon exited with {code} after SIGTERM, see {out / 'daemon.log'}")
    console.print(f"SIGTERM: the daemon drained and exited {code}.")
    held = goals(modes, clean=pinned[0], full=pinned[1], fastest=pinned[2], budgets=budgets)
    print_goals(console, held)
    _print_next_steps(console, out, time.monotonic() - began)
    missed = [goal.name for goal in held if not goal.met]
    if missed:
        raise DemoError(f"everything ran, but not every goal was met: {'; '.join(missed)}")


def _road(out: Path, recipe: Recipe, console: Console) -> Path:
    """Train, explore, export. An unfinished training of this recipe goes on; any other is made anew."""
    run = out / "run"
    if (run / CHECKPOINT).exists():
        found = read_checkpoint(run)
        if found.recipe != recipe or found.epochs_done >= recipe.epochs:
            shutil.rmtree(run)
    console.rule("train: one checkpoint, every mode (Algorithm 1)")
    checkpoint = train(recipe, run)
    console.rule("explore: which modes are worth keeping here")
    frontier = find_frontier(checkpoint, run / FRONTIER)
    write_pictures(frontier, out, layers=tuple(weight_enabled(checkpoint.network())))
    for line in frontier.lines():
        console.print(line, soft_wrap=True)
    console.print(f"{len(frontier.modes)} modes kept; picture: {out / 'frontier.png'}")
    console.rule("export: every mode checked against torch, then written")
    sha256 = export_bundle(checkpoint, frontier, out / "bundle")
    console.print(f"bundle {sha256[:12]} in {out / 'bundle'}")
    return out / "bundle"


def _write_images(folder: Path, images: Images) -> list[Shown]:
    shutil.rmtree(folder, ignore_errors=True)
    return _shown(images, folder)


def _shown(images: Images, folder: Path) -> list[Shown]:
    paths = write_pngs(images, folder, len(images))
    return [Shown(path.read_bytes(), str(int(label))) for path, label in zip(paths, images.labels, strict=True)]


def _pinned(
    client: Client, images: Sequence[Shown], clean: Sequence[Shown], modes: Sequence[dict[str, Any]]
) -> list[Outcome]:
    """Without budgets: the full network on clean and cluttered digits, the fastest mode on cluttered ones."""
    full, fastest = modes[0]["id"], modes[-1]["id"]
    return [
        post_all(client, clean, f"{full}, clean digits", mode=full),
        post_all(client, images, f"{full}, pinned", mode=full),
        post_all(client, images, f"{fastest}, pinned", mode=fastest),
    ]


def _budgets(client: Client, images: Sequence[Shown], modes: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Budgets from the tightest to the widest."""
    outcomes = []
    step = (len(modes) - 1) / (BUDGET_MODES - 1)
    chosen = [modes[round(index * step)]["id"] for index in range(BUDGET_MODES)]
    for mode in reversed(list(dict.fromkeys(chosen))):
        budget_ms = HEADROOM * end_to_end_ms(client, images, mode)
        outcomes.append(post_all(client, images, f"{HEADROOM:g} × {mode}", budget_ms=budget_ms))
    return outcomes


def _print_next_steps(console: Console, out: Path, seconds: float) -> None:
    first = sorted((out / "images").glob("*.png"))[0]
    console.rule(f"done in {seconds:.0f} s; now yourself")
    console.print("Start the daemon:", style="bold")
    console.print(f"  .venv/bin/wenet-runtime --bundle {out / 'bundle'} --budget-ms 50", soft_wrap=True)
    console.print("Post an image to it from another terminal:", style="bold")
    console.print(
        f"  curl -sS -i --data-binary @{first} -H 'Content-Type: image/png' -H 'WeNet-Budget-Ms: 20' "
        "'http://127.0.0.1:8000/infer?top_k=3'",
        soft_wrap=True,
    )
