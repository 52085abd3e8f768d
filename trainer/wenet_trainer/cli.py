"""`wenet-trainer`: train, explore and export; the only room that prints and exits."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wenet_runtime.errors import WeNetError
from wenet_trainer import __version__
from wenet_trainer.recipe import Recipe

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
def train(
    out: Out = RUN,
    data: Annotated[str, typer.Option(help="Data source.")] = Recipe.data,
    model: Annotated[str, typer.Option(help="Supernet.")] = Recipe.model,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = Recipe.epochs,
    batch: Annotated[int, typer.Option(help="Images per step.")] = Recipe.batch,
    samples: Annotated[int, typer.Option(help="Sub-networks per step; the paper takes 20.")] = Recipe.samples,
    sampling: Annotated[str, typer.Option(help="mixed, or paper: every layer drawn uniformly.")] = Recipe.sampling,
    teacher: Annotated[str, typer.Option(help="none: hard labels, as the paper; or inplace.")] = Recipe.teacher,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = Recipe.learning_rate,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = Recipe.weight_decay,
    seed: Annotated[int, typer.Option(help="Fixes splits, views, weights and draws.")] = Recipe.seed,
) -> None:
    """Algorithm 1: train every sub-network at once. Repeat the command to go on after a kill."""
    from wenet_trainer.train import train as run

    recipe = Recipe(
        data=data, model=model, epochs=epochs, batch=batch, samples=samples, sampling=sampling, teacher=teacher,
        learning_rate=learning_rate, weight_decay=weight_decay, seed=seed,
    )  # fmt: skip
    checkpoint = run(recipe, out)
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
    from wenet_trainer.report import plot_frontier

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
