"""From a search's finalists to the modes that are kept: measured whole, judged on other images, the rest named."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.selection import Candidate, select
from wenet_trainer.cost import Costs
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.finalists import Finalist
from wenet_trainer.explore.problem import Limits
from wenet_trainer.explore.result import Dropped, FoundMode, Latency

TOLD = 100
ENERGY_SHARE = 10  # runs behind an energy are a tenth of those behind a latency

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """A finalist's cost here."""

    samples_ms: NDArray[np.float64]
    energy_mj: float | None

    @property
    def latency(self) -> Latency:
        """Its percentiles."""
        p50, p95, p99 = (float(value) for value in np.percentile(self.samples_ms, (50, 95, 99)))
        return Latency(p50, p95, p99, len(self.samples_ms))


def measure(bench: Bench, finalists: Sequence[Finalist], rounds: int, progress: Progress) -> dict[str, Measured]:
    """All finalists interleaved, by id."""
    with ExitStack() as opened:
        engines = {one.id: opened.enter_context(closing(one.open())) for one in finalists}
        samples = bench.samples(engines, rounds, progress)
        energies = bench.energies_mj(engines, max(3, rounds // ENERGY_SHARE))
    return {name: Measured(values, energies[name]) for name, values in samples.items()}


def keep_here(
    finalists: Sequence[Finalist], measured: Mapping[str, Measured], limits: Limits, keep: int
) -> tuple[list[Finalist], list[tuple[Finalist, str]]]:
    """The modes worth keeping on this machine, and why the others are not.

    The full network stays whatever was measured: every figure refers to it.

    Returns:
        Kept ones, and each other with a sentence.
    """
    left: list[tuple[Finalist, str]] = []
    candidates = []
    for one in finalists:
        broken = None if one.is_full else _broken(one, measured[one.id], limits)
        if broken is not None:
            left.append((one, broken))
        else:
            cost = measured[one.id]
            candidates.append(Candidate(one.id, one.accuracy.value, cost.samples_ms, cost.energy_mj))
    by_id = {one.id: one for one in finalists}
    kept, others = select(candidates, keep, always=[one.id for one in finalists if one.is_full])
    left += [(by_id[other.id], other.why) for other in others]
    return [by_id[name] for name in kept], left


def keep_for_all(
    finalists: Sequence[Finalist], devices: Sequence[str], limits: Limits, keep: int
) -> tuple[list[Finalist], list[tuple[Finalist, str]]]:
    """The modes worth keeping on any of several devices known by their tables alone; each will measure for itself.

    Tables are of fp32. A mode in another precision stays for every configuration that does: only the device
    can tell whether it helps there (`wenet-runtime profile --select`).

    Returns:
        Kept ones, and each other with a sentence.
    """
    kept: list[Finalist] = []
    reasons: dict[str, list[str]] = {}
    for device in devices:
        here, left = _keep_for(finalists, device, limits, keep)
        kept += [one for one in here if one not in kept]
        for one, why in left:
            reasons.setdefault(one.id, []).append(f"on {device}: {why}")
    return kept, [(one, "; ".join(reasons[one.id])) for one in finalists if one not in kept]


def _keep_for(
    finalists: Sequence[Finalist], device: str, limits: Limits, keep: int
) -> tuple[list[Finalist], list[tuple[Finalist, str]]]:
    left: list[tuple[Finalist, str]] = []
    candidates = []
    for one in finalists:
        time_ms = one.predicted_ms[device]
        if one.precision != "fp32":
            continue
        if not one.is_full and limits.max_ms is not None and time_ms > limits.max_ms:
            left.append((one, f"it is predicted to take {time_ms:.3g} ms, above --max-ms {limits.max_ms:g}"))
        elif not one.is_full and limits.max_mj is not None and one.predicted_mj.get(device, 0.0) > limits.max_mj:
            energy_mj = one.predicted_mj[device]
            left.append((one, f"it is predicted to take {energy_mj:.3g} mJ, above --max-mj {limits.max_mj:g}"))
        elif not one.is_full and one.accuracy.value < limits.min_accuracy:
            left.append((one, _inaccurate(one, limits)))
        else:
            # Many equal samples: a table knows no spread, so only the size of a difference counts.
            samples = np.full(TOLD, time_ms)
            candidates.append(Candidate(one.id, one.accuracy.value, samples, one.predicted_mj.get(device)))
    by_id = {one.id: one for one in finalists}
    kept, others = select(candidates, keep, always=[one.id for one in finalists if one.is_full])
    left += [(by_id[other.id], other.why) for other in others]
    configs = {by_id[name].groups for name in kept}
    for one in finalists:
        if one.precision != "fp32" and one.groups not in configs:
            left.append((one, "its configuration is not kept in fp32"))
        elif one.precision != "fp32" and one.accuracy.value < limits.min_accuracy:
            left.append((one, _inaccurate(one, limits)))
    gone = {one.id for one, _ in left}
    return [one for one in finalists if one.groups in configs and one.id not in gone], left


def check_kept(kept: Sequence[Finalist], left: Sequence[tuple[Finalist, str]], limits: Limits) -> None:
    """Refuse limits that only the full network is left by.

    Raises:
        ExploreError: says why the nearest one was not kept, where one came so far.
    """
    if limits == Limits() or not all(set(one.groups.values()) == {1} for one in kept):
        return
    broken = [why for _, why in left if " --m" in why]
    if left and not broken:
        return  # others kept them, but were no better than the full network
    nearest = f"; of {len(broken)} measured the last: {broken[-1]}" if broken else ""
    raise ExploreError(f"no mode but the full network keeps the limits{nearest}. Ask for less, or train longer")


def ordered(kept: Sequence[Finalist], measured: Mapping[str, Measured]) -> list[Finalist]:
    """From the fastest here to the slowest."""
    return sorted(kept, key=lambda one: (measured[one.id].latency.p50_ms, one.id))


def notes(kept: Sequence[Finalist], limits: Limits) -> tuple[str, ...]:
    """What a person should know of what is kept."""
    return tuple(
        f"the full network is kept, because every figure refers to it, though {_inaccurate(one, limits)}"
        for one in kept
        if one.is_full and one.accuracy.value < limits.min_accuracy
    )


def modes_of(kept: Sequence[Finalist], measured: Mapping[str, Measured], costs: Costs, source: str) -> list[FoundMode]:
    """Kept finalists as modes, from the fastest to the slowest here."""
    return [
        FoundMode(
            id=f"m{rank}",
            groups=dict(one.groups),
            precision=one.precision,
            accuracy=one.accuracy,
            macs=costs.macs(one.groups),
            params=costs.params(one.groups),
            latency=measured[one.id].latency,
            found_by=one.found_by,
            energy_mj=measured[one.id].energy_mj,
            energy_source=source if measured[one.id].energy_mj is not None else "none",
            predicted_ms=one.predicted_ms if one.precision == "fp32" else {},  # tables are of fp32
            below_full=0.0 if one.below_full is None else one.below_full.value,
            below_full_error=0.0 if one.below_full is None else one.below_full.standard_error,
        )
        for rank, one in enumerate(ordered(kept, measured))
    ]


def dropped_of(
    left: Sequence[tuple[Finalist, str]], measured: Mapping[str, Measured], names: Mapping[str, str]
) -> list[Dropped]:
    """What is not kept, each with its reason; `names` are the modes' ids by finalist's, to speak of them."""
    found = []
    for one, why in left:
        for finalist, mode in names.items():
            why = why.replace(f"than {finalist}, ", f"than {mode}, ")
        cost = measured[one.id]
        found.append(Dropped(dict(one.groups), one.precision, one.accuracy, cost.latency, cost.energy_mj, why))
    return found


def _broken(one: Finalist, cost: Measured, limits: Limits) -> str | None:
    if limits.max_ms is not None and cost.latency.p50_ms > limits.max_ms:
        return f"it takes {cost.latency.p50_ms:.3g} ms, above --max-ms {limits.max_ms:g}"
    if limits.max_mj is not None and cost.energy_mj is not None and cost.energy_mj > limits.max_mj:
        return f"it takes {cost.energy_mj:.3g} mJ, above --max-mj {limits.max_mj:g}"
    return _inaccurate(one, limits) if one.accuracy.value < limits.min_accuracy else None


def _inaccurate(one: Finalist, limits: Limits) -> str:
    return (
        f"its accuracy on {one.accuracy.images} other images, {one.accuracy.value:.4f}, is below "
        f"--min-accuracy {limits.min_accuracy:.4f}"
    )
