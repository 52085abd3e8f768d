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
    search: Annotated[str, typer.Option(help="Search.")] = "paper",
    granularity: Annotated[str, typer.Option(help="What one knob moves: layer or block.")] = "block",
    threshold: Annotated[float, typer.Option(help="Least accuracy, 0–1; 0 goes to the smallest network.")] = 0.0,
    keep: Annotated[int, typer.Option(help="Most modes to keep.")] = 8,
    search_images: Annotated[int, typer.Option(help="Validation images behind the search's accuracies.")] = 480,
) -> None:
    """Algorithm 2: measure configurations on this machine and keep the Pareto modes."""
    from wenet_trainer.checkpoint import read_checkpoint
    from wenet_trainer.explore.frontier import find_frontier
    from wenet_trainer.explore.result import FILE
    from wenet_trainer.plots import plot_frontier

    frontier = find_frontier(
        read_checkpoint(out), out / FILE, search=search, granularity=granularity, threshold=threshold, keep=keep,
        search_images=search_images,
    )  # fmt: skip
    plot_frontier(frontier, out / "frontier.png")
    for note in frontier.notes:
        typer.echo(note)
    for mode in frontier.modes:
        typer.echo(
            f"{mode.id}: {100 * mode.accuracy.value:.1f} % "
            f"({100 * mode.accuracy.ci_low:.1f}–{100 * mode.accuracy.ci_high:.1f}), "
            f"{mode.macs / 1e6:.1f} MMACs, {mode.latency.p50_ms:.3f} ms, {mode.found_by}"
        )
    typer.echo(f"{len(frontier.modes)} modes → {out / FILE}; next: wenet-trainer export --out {out} --bundle bundle")


@app.command()
def export(
    out: Out = RUN,
    bundle: Annotated[Path, typer.Option(help="Directory of the bundle to write.")] = Path("bundle"),
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

    if standalone is not None:
        check_place(standalone)  # before minutes are spent on the bundle
    if standalone is not None and not (out / CHECKPOINT).exists() and (bundle / MANIFEST).exists():
        typer.echo(f"no checkpoint in {out}: the bundle in {bundle} is taken as it is")
    else:
        sha256 = export_bundle(read_checkpoint(out), read_frontier(out / FILE), bundle)
        typer.echo(f"bundle {sha256[:12]} → {bundle}; next: wenet-runtime --bundle {bundle} --budget-ms 50")
    if standalone is not None:
        files = export_standalone(Bundle(bundle), standalone)
        typer.echo(f"{len(files)} modes as ONNX files and as Triton models → {standalone}; see {standalone / README}")


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
