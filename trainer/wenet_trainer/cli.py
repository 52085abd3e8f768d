"""`wenet-trainer`: train, explore and export; the only room that prints and exits."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wenet_runtime.errors import WeNetError
from wenet_trainer import __version__
from wenet_trainer.config import read_settings, with_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="Directory of this run: checkpoint, frontier, picture.")]
RUN = Path("run")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wenet-trainer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train one checkpoint, explore its modes, export them as a bundle."""


@app.command()
@with_settings
def train(flags: Mapping[str, Any], config: Path | None, out: Out = RUN) -> None:
    """Algorithm 1: train every sub-network at once. Repeat the command to go on after a kill.

    Many processes: torchrun --nproc-per-node 4 -m wenet_trainer train …
    """
    from wenet_trainer.logs import watcher
    from wenet_trainer.parallel import is_first
    from wenet_trainer.progress import tqdm
    from wenet_trainer.train import train as run

    recipe, options = read_settings(config, flags)
    if not is_first():
        run(recipe, out, options=options)
        return
    with watcher(out, options, tqdm.write) as watch:  # above the bar, not through it
        checkpoint = run(recipe, out, options=options, watch=watch, say=typer.echo)
    seconds = sum(record["seconds"] for record in checkpoint.history)
    typer.echo(f"{checkpoint.epochs_done} epochs in {seconds:.0f} s → {out}; next: wenet-trainer explore --out {out}")


@app.command()
def explore(
    out: Out = RUN,
    method: Annotated[str, typer.Option(help="Search: table, paper (Algorithm 2) or evolve (NSGA-II).")] = "table",
    granularity: Annotated[str, typer.Option(help="What one knob moves: layer, block, or auto.")] = "auto",
    evaluations: Annotated[int, typer.Option(help="Most configurations whose accuracy is evaluated.")] = 250,
    modes: Annotated[int, typer.Option(help="Most modes to keep.")] = 8,
    max_ms: Annotated[float | None, typer.Option(help="Most latency of a mode, ms.", min=0)] = None,
    max_mj: Annotated[float | None, typer.Option(help="Most energy of a mode, mJ an image.", min=0)] = None,
    min_accuracy: Annotated[float, typer.Option(help="Least accuracy of a mode, 0-1.", min=0, max=1)] = 0.0,
    table: Annotated[
        list[Path] | None,
        typer.Option(help="Layer table that `wenet-runtime profile --layers` wrote on a device; repeatable."),
    ] = None,
    measured: Annotated[bool, typer.Option("--measured", help="Measure every configuration, without a table.")] = False,
    precisions: Annotated[bool, typer.Option(help="Try int8 and what else the engine has.")] = True,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Directory of a US-Net's run to show in the picture; repeatable.")
    ] = None,
    search_images: Annotated[
        int | None, typer.Option(help="Validation images behind the search's accuracies.", show_default="a third")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of one inference.", min=1)] = 1,
    meter: Annotated[str, typer.Option(help="Source of watts on this machine.")] = "none",
    seed: Annotated[
        int | None, typer.Option(help="Of everything random.", min=0, max=2**32 - 1, show_default="the training's")
    ] = None,
) -> None:
    """Find the modes worth keeping: accurate, fast on a device, frugal. Repeat the command to go on after a kill.

    Many processes: torchrun --nproc-per-node 4 -m wenet_trainer explore …
    """
    from wenet_trainer.checkpoint import read_checkpoint
    from wenet_trainer.explore.beside import check_beside, peer_curves
    from wenet_trainer.explore.exploring import Exploring
    from wenet_trainer.explore.frontier import find_frontier
    from wenet_trainer.explore.picture import write_pictures
    from wenet_trainer.explore.problem import Limits
    from wenet_trainer.explore.result import FILE
    from wenet_trainer.parallel import is_first
    from wenet_trainer.supernet import weight_enabled

    asked = Exploring(
        method=method,
        granularity=granularity,
        evaluations=evaluations,
        modes=modes,
        limits=Limits(max_ms, max_mj, min_accuracy),
        tables=tuple(table or ()),
        measured=measured,
        precisions=precisions,
        search_images=search_images,
        threads=threads,
        meter=meter,
        seed=seed,
    )
    checkpoint = read_checkpoint(out)
    for run in beside or []:
        check_beside(run, checkpoint.recipe)  # before minutes are spent
    frontier = find_frontier(checkpoint, out / FILE, asked, quiet=not is_first())
    if not is_first():
        return
    peers = peer_curves(beside or [], checkpoint, frontier, search_images=search_images, threads=threads)
    write_pictures(frontier, out, peers, layers=tuple(weight_enabled(checkpoint.network())))
    for line in frontier.lines():
        typer.echo(line)
    typer.echo(f"{len(frontier.modes)} modes → {out / FILE}; next: wenet-trainer export --out {out} --bundle bundle")


@app.command()
def export(
    out: Out = RUN,
    bundle: Annotated[Path, typer.Option(help="Directory of the bundle to write.")] = Path("bundle"),
    uniform: Annotated[
        bool, typer.Option("--uniform", help="The uniform modes, unexplored: to measure a device's layer table with.")
    ] = False,
    standalone: Annotated[
        Path | None,
        typer.Option(
            help="Directory for each mode as an ordinary ONNX file and a Triton model repository, too. "
            "Where --out has no checkpoint, an existing --bundle is taken as it is."
        ),
    ] = None,
) -> None:
    """Check every mode against torch and write the bundle that wenet-runtime serves."""
    from wenet_runtime.bundle import MANIFEST, Bundle
    from wenet_trainer.checkpoint import FILE as CHECKPOINT
    from wenet_trainer.checkpoint import read_checkpoint
    from wenet_trainer.explore.result import FILE, read_frontier
    from wenet_trainer.export import export_bundle
    from wenet_trainer.standalone import README, check_place, export_standalone
    from wenet_trainer.uniform import export_uniform

    if standalone is not None:
        check_place(standalone)  # before minutes are spent on the bundle
    if standalone is not None and not (out / CHECKPOINT).exists() and (bundle / MANIFEST).exists():
        typer.echo(f"no checkpoint in {out}: the bundle in {bundle} is taken as it is")
    else:
        checkpoint = read_checkpoint(out)
        sha256 = (
            export_uniform(checkpoint, bundle)
            if uniform
            else export_bundle(checkpoint, read_frontier(out / FILE), bundle, say=typer.echo)
        )
        typer.echo(f"bundle {sha256[:12]} → {bundle}; next: wenet-runtime --bundle {bundle} --budget-ms 50")
    if standalone is not None:
        files = export_standalone(Bundle(bundle), standalone)
        typer.echo(f"{len(files)} modes as ONNX files and as Triton models → {standalone}; see {standalone / README}")


@app.command()
def calibrate(
    data: Annotated[str, typer.Option(help="Data source of the held-out images, as for a training.")],
    seed: Annotated[
        int,
        typer.Option(
            help="Of the data's splits: the training's, or images it was trained on are taken for held-out ones. Of "
            "`generated` another, which draws new images.",
            min=0,
            max=2**32 - 1,
        ),
    ],
    bundle: Annotated[Path, typer.Option(help="Bundle whose manifest is to carry the cascade.")] = Path("bundle"),
    split: Annotated[
        list[str] | None, typer.Option(help="validation or test; repeatable.", show_default="validation")
    ] = None,
    skip: Annotated[
        int | None,
        typer.Option(
            help="Images at the start of the first split that modes were chosen or judged by.",
            show_default="7000 of validation",
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Images at most.", show_default="all")] = None,
    epsilon: Annotated[float, typer.Option(help="Accuracy that a rule may lose at most, 0-1.")] = 0.003,
    delta: Annotated[float, typer.Option(help="Chance that any rule loses more.")] = 0.05,
    allow_fewer: Annotated[
        bool, typer.Option("--allow-fewer", help="Certify on fewer than 10000 images; the bundle tells how many.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of one inference.", min=1)] = 1,
) -> None:
    """Certify which quick modes may answer first, and from what margin on, and write that into the bundle.

    The bundle's SHA-256 changes with its manifest. Needs images that nothing was trained, chosen or judged by.
    """
    from wenet_runtime.bundle import Bundle
    from wenet_trainer.cascade.calibrate import Goal
    from wenet_trainer.cascade.calibration import HeldOut, calibrate_bundle
    from wenet_trainer.cascade.errors import CalibrationError

    held_out = HeldOut(data, seed, tuple(split or ("validation",)), skip, images, allow_fewer)
    found = calibrate_bundle(Bundle(bundle), held_out, Goal(epsilon, delta), threads=threads)
    for line in (*found.lines(), *found.notes):
        typer.echo(line)
    if not found.rules:
        raise CalibrationError(f"no rule was certified on {found.images} images, so {bundle} is as it was")
    typer.echo(f"{len(found.rules)} rules on {found.images} images, bundle {found.sha256[:12]} → {bundle}")


@app.command()
def report(
    out: Out = RUN,
    beside: Annotated[list[Path] | None, typer.Option(help="Directory of a run to compare with; repeatable.")] = None,
) -> None:
    """Curves of a training, and accuracy over multiply-accumulates, beside other runs of the same data."""
    from wenet_trainer.report import ACCURACY, CURVES, TABLE, write_report

    for row in write_report(out, beside or []):
        typer.echo(f"{row.run} {row.mode}: {row.macs / 1e6:.2f} MMACs, {100 * row.accuracy.value:.2f} %")
    typer.echo(f"{TABLE}, {CURVES}, {ACCURACY} → {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for everything the demo leaves.")] = Path("out/demo"),
) -> None:
    """Train, explore, export and serve handwritten digits, and show the budget at work."""
    from wenet_trainer.demo.main import demo as run

    run(out)


def main() -> None:
    """Run the command line; mistakes of the user end with exit code 2 and a message."""
    try:
        app()
    except WeNetError as error:
        typer.echo(f"wenet-trainer: {error}", err=True)
        sys.exit(2)
