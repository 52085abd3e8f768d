"""A bundle's calibration from images to manifest: what `wenet-trainer calibrate` does."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wenet_runtime.bundle import MANIFEST, Bundle, Rule, encode_manifest
from wenet_runtime.files import write_atomic
from wenet_runtime.manifest_checks import check_manifest
from wenet_trainer.cascade.answers import answers_of, batches, opened, times_ms
from wenet_trainer.cascade.calibrate import PILOT, Answers, Goal, Pair, calibrate, rules_of
from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.cascade.risk import least_images
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Source, View
from wenet_trainer.evaluate import wilson
from wenet_trainer.explore.images import FINAL_IMAGES, SEARCH_IMAGES
from wenet_trainer.progress import tqdm

CERTIFYING = 10_000  # images behind a certificate that nobody asked to have on fewer
WANTED = CERTIFYING * PILOT // (PILOT - 1)
SPLITS = ("validation", "test")
EXPLORED = SEARCH_IMAGES + FINAL_IMAGES  # validation images that an exploration may have chosen modes by


@dataclass(frozen=True)
class HeldOut:
    """Which images to calibrate on: nothing may have been trained, chosen or judged by them.

    Attributes:
        data: a data source, as for a training.
        seed: of its splits.
        splits: some of `SPLITS`, read in this order.
        skip: images at the start of the first split that are left out; None leaves out what an exploration may have
            taken, the first `EXPLORED` of validation, and none of test.
        most: images at most; None takes all.
        allow_fewer: than `WANTED`.

    Raises:
        CalibrationError: an unknown split, or one twice, or an impossible number.
    """

    data: str
    seed: int
    splits: Sequence[str] = ("validation",)
    skip: int | None = None
    most: int | None = None
    allow_fewer: bool = False

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) != len(self.splits) or set(self.splits) - set(SPLITS):
            raise CalibrationError(
                f"--split is {', '.join(self.splits)}: give {' or '.join(SPLITS)}, each at most once"
            )
        if (self.skip or 0) < 0 or (self.most is not None and self.most < 1):
            raise CalibrationError(f"--skip {self.skip} with --images {self.most} is impossible: give at least 0 and 1")

    def left_out(self) -> int:
        """How many images at the start of the first split are left out."""
        if self.skip is not None:
            return self.skip
        return EXPLORED if self.splits[0] == "validation" else 0

    def views(self, source: Source) -> list[View]:
        """The splits of a source, in order."""
        return [source.validation() if split == "validation" else source.test() for split in self.splits]


@dataclass(frozen=True)
class Calibration:
    """What a calibration came to.

    Attributes:
        pairs: every pair of modes whose first is the quicker, with why it is no rule where it is none.
        rules: what the bundle carries now; empty where nothing was certified and the bundle is as it was.
        images: held-out images, of which a sixth chose and the others certify.
        sha256: the bundle's.
        notes: what a person should know of the images, a sentence each.
    """

    pairs: tuple[Pair, ...]
    rules: tuple[Rule, ...]
    images: int
    sha256: str
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """A sentence for each pair, rules first."""
        return [_line(pair) for pair in sorted(self.pairs, key=lambda pair: (bool(pair.why), pair.cost or 1.0))]


def calibrate_bundle(
    bundle: Bundle, held_out: HeldOut, goal: Goal, *, threads: int = 1, quiet: bool = False
) -> Calibration:
    """Certify which modes may answer for which, and write that into the bundle's manifest.

    The manifest is the bundle's identity, so the bundle has another SHA-256 then. Everything else stays.

    Args:
        bundle: the bundle; a cascade that it carries is replaced if anything is certified.
        held_out: the images.
        goal: what is to be certified.
        threads: of one inference, for the times.
        quiet: no progress bar.

    Raises:
        CalibrationError: the data is not the bundle's, there are too few images, or the manifest cannot be written.
        DataError: the data cannot be read.
        EngineError: a mode cannot be built.
    """
    source = _source(bundle, held_out)
    _check_labels(bundle, source)
    if len(bundle.modes) < 2:
        raise CalibrationError(f"the bundle has {len(bundle.modes)} mode, and a cascade takes two: explore for more")
    views = held_out.views(source)
    there = max(0, sum(len(view) for view in views) - held_out.left_out())
    _check_number(min(there, held_out.most or there), held_out, goal)  # before minutes are spent
    with opened(bundle, threads) as engines, tqdm(desc="answers", unit=" images", disable=quiet) as bar:
        times = times_ms(bundle, engines)
        answers, data_sha256 = answers_of(
            bundle, engines, batches(views, held_out.left_out(), held_out.most), progress=bar.update
        )
    images = len(next(iter(answers.values())).right)
    _check_number(images, held_out, goal)  # fewer where some are views of one original
    pairs = calibrate(answers, times, goal)
    rules = rules_of(pairs, goal, images, data_sha256)
    sha256 = write_rules(bundle, rules) if rules else bundle.sha256
    return Calibration(tuple(pairs), rules, images, sha256, _notes(bundle, answers))


def write_rules(bundle: Bundle, rules: Sequence[Rule]) -> str:
    """Put rules into a bundle's manifest, whole or not at all, and return the bundle's new SHA-256.

    Raises:
        BundleError: a rule is impossible; nothing was written.
        CalibrationError: the manifest cannot be written.
    """
    manifest = replace(bundle.manifest, cascade=tuple(rules))
    check_manifest(manifest)
    encoded = encode_manifest(manifest)
    try:
        write_atomic(bundle.path / MANIFEST, encoded)
    except OSError as error:
        raise CalibrationError(
            f"cannot write {bundle.path / MANIFEST} ({error.strerror}): calibrate a copy of the bundle"
        ) from error
    return hashlib.sha256(encoded).hexdigest()


def _source(bundle: Bundle, held_out: HeldOut) -> Source:
    """The data source, with images of the size that the bundle wants."""
    source = open_source(held_out.data, held_out.seed)
    recipe = bundle.manifest.preprocess
    if recipe is not None and recipe.height == recipe.width != source.preprocess.height:
        source = open_source(held_out.data, held_out.seed, recipe.height)
    return source


def _check_labels(bundle: Bundle, source: Source) -> None:
    wanted = bundle.manifest.labels
    if tuple(source.labels) != tuple(wanted):
        raise CalibrationError(
            f"the data has {len(source.labels)} labels ({', '.join(source.labels[:3])} …), the bundle {len(wanted)} "
            f"({', '.join(wanted[:3])} …): name the data source that the network was trained for"
        )


def _check_number(images: int, held_out: HeldOut, goal: Goal) -> None:
    if images >= WANTED or (held_out.allow_fewer and images >= PILOT):
        return
    least = least_images(goal.epsilon, goal.delta)
    certifying = images - images // PILOT
    hope = (
        f"with --allow-fewer the certificate is of {certifying}"
        if certifying >= least
        else f"even one rule of which no image is lost takes {least + least // (PILOT - 1) + 1}, so no number "
        "of these can certify it"
    )
    raise CalibrationError(
        f"there are {images} held-out images after {held_out.left_out()} left out, wanted are {WANTED} "
        f"({WANTED - CERTIFYING} to choose thresholds, {CERTIFYING} to certify them): add images, or another --split; "
        f"{hope}"
    )


def _notes(bundle: Bundle, answers: Mapping[str, Answers]) -> tuple[str, ...]:
    """Where the most accurate mode's accuracy on these images is not the one that the bundle tells."""
    mode = bundle.modes[0]
    right = answers[mode.id].right
    found, told = wilson(int(right.sum()), len(right)), mode.accuracy
    if told.ci_low <= found.ci_high and found.ci_low <= told.ci_high:
        return ()
    better = "they may be images it was trained on, and the rules then promise too much"
    worse = "they may be of another kind than those that will be served, of which the rules promise nothing"
    return (
        f"{mode.id} gets {100 * found.value:.1f} % of these images right, the bundle says {100 * told.value:.1f} %: "
        f"{better if found.value > told.value else worse}",
    )


def _line(pair: Pair) -> str:
    head = f"{pair.first} before {pair.then}"
    if pair.threshold is None or pair.escalated is None or pair.loss is None or pair.cost is None:
        return f"{head}: no rule, {pair.why}"
    found = (
        f"margin {pair.threshold:.3g}, {100 * pair.escalated:.1f} % escalate, {100 * pair.loss:+.2f} points lost, "
        f"{100 * pair.cost:.0f} % of {pair.then}'s time"
    )
    return f"{head}: no rule, {pair.why} ({found})" if pair.why else f"{head}: {found}"
