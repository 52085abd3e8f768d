"""A frontier as CSV: a row for every mode, dropped finalist, peer's width and candidate."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

from wenet_runtime.bundle import Accuracy
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.beside import PeerCurve
from wenet_trainer.explore.result import Dropped, FoundMode, Frontier

COLUMNS = (
    "kind", "id", "precision", "accuracy", "ci_low", "ci_high", "images", "p50_ms", "p95_ms", "p99_ms", "energy_mj",
    "macs", "params", "found_by", "why", "groups",
)  # fmt: skip

Row = dict[str, object]


def sheet(frontier: Frontier, peers: Sequence[PeerCurve] = (), layers: Sequence[str] = ()) -> str:
    """The text, `COLUMNS` first. What is not known is left empty; numbers are written in full.

    A candidate's accuracy, p50_ms and energy_mj are the search's own, quicker figures.

    Args:
        frontier: what is written.
        peers: curves beside it.
        layers: see `run_order`.
    """
    order = run_order(frontier, layers)
    macs = {frozenset(point.groups.items()): point.macs for point in frontier.points}
    rows: list[Row] = []
    for mode in frontier.modes:
        row: Row = {"kind": "mode", "id": mode.id, "macs": mode.macs, "params": mode.params}
        rows.append({**row, "found_by": mode.found_by, **_final(mode, order)})
    for gone in frontier.dropped:
        known = macs.get(frozenset(gone.groups.items()))
        rows.append({"kind": "dropped", "macs": known, "why": gone.why, **_final(gone, order)})
    for peer in peers:
        for at in peer.points:
            row = {"kind": "peer", "id": peer.name, "p50_ms": at.latency_ms, "macs": at.macs}
            rows.append({**row, **_accuracy(at.accuracy), "groups": f"width={at.level}"})
    for point in frontier.points:
        row = {"kind": "candidate", "accuracy": point.accuracy, "images": frontier.search_images}
        row |= {"p50_ms": point.latency_ms, "energy_mj": point.energy_mj, "macs": point.macs}
        rows.append({**row, "found_by": point.found_by, "groups": _groups(point.groups, order)})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def run_order(frontier: Frontier, layers: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers' names in the order in which they run.

    Args:
        frontier: its file keeps no order.
        layers: the order; by default names are sorted, with the numbers in them as numbers.

    Raises:
        ExploreError: `layers` are not the frontier's.
    """
    names = set(frontier.modes[0].groups)
    if not layers:
        return tuple(sorted(names, key=_by_number))
    if set(layers) != names:
        raise ExploreError(
            f"the order names other layers than the frontier's modes ({sorted(set(layers) ^ names)[:5]}): "
            "take it from the network that was explored"
        )
    return tuple(layers)


def _final(found: FoundMode | Dropped, order: Sequence[str]) -> Row:
    latency = found.latency
    times: Row = {"p50_ms": latency.p50_ms, "p95_ms": latency.p95_ms, "p99_ms": latency.p99_ms}
    rest: Row = {"precision": found.precision, "energy_mj": found.energy_mj, "groups": _groups(found.groups, order)}
    return _accuracy(found.accuracy) | times | rest


def _accuracy(found: Accuracy) -> Row:
    return {"accuracy": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "images": found.images}


def _groups(groups: Mapping[str, int], order: Sequence[str]) -> str:
    return ";".join(f"{name}={groups[name]}" for name in order)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]
