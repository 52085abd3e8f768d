"""Does the daemon keep its budget on this machine while other work comes and goes, and under three times its load?

Which core does what: the engine's thread has the last core; the daemon's server, the generator and this process share
the first. The stress that spins has the engine's core, half of which it takes. The stress that streams over memory
has what is left of the first, so that it slows the engine through caches and memory and hardly delays the generator.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Arguments, Figure, Measured, at_least, at_most, reported, run
from benchmarks.load_bench import Daemon, Sender, five_modes
from benchmarks.load_picture import Line, draw
from benchmarks.load_report import Report, by_second, only_allowed, report
from benchmarks.open_loop import Answer, arrivals
from benchmarks.stress import CPU, MEMORY, Stress, Stressor, alternating
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import golden_inputs

QUESTION = "Do accepted requests keep their budget while real stress comes and goes, and at three times the load?"
BUDGET_FULLS = 3.0  # the budget, in the full mode's profiled medians
LEAST_BUDGET_MS = 30.0  # or this, with a network so small that HTTP takes longer than it
LOAD = 0.7
OVERLOAD = 3.0
MOST_LATE = 0.05  # of the budget: what the generator may add at the 99th percentile before figures are not trusted
# Who asks ours would rather be refused at once than answered late. The static mode answers as a server without
# predictions does: everything, however late. Both see the same budget.
ON_TIME, LATE = {"WeNet-On-Miss": "reject"}, {"WeNet-On-Miss": "late"}
OURS, STATIC = "ours", "static full"
SPIN, STREAM = frozenset({0}), frozenset({1})
TURNS = {SPIN: "cpu", STREAM: "memory", SPIN | STREAM: "cpu + memory"}


@dataclass(frozen=True)
class Sizes:
    """How long everything takes, seconds. A block's periods are without and with stress by turns."""

    period_s: float
    blocks: tuple[tuple[bool, float], ...]  # (begins with stress, length)
    overload_s: float
    closed_s: float
    warm_s: float
    most_rate: float  # arrivals per second at which the machine's first core would be what limits

    @property
    def seconds(self) -> float:
        """Of all blocks."""
        return sum(length for _, length in self.blocks)


FULL = Sizes(10.0, ((False, 30.0), (True, 30.0)), 15.0, 3.0, 2.0, 1000.0)
QUICK = Sizes(0.5, ((False, 0.5),), 0.5, 0.3, 0.2, 300.0)


@dataclass(frozen=True)
class Way:
    """A daemon under a load: `LOAD` of the capacity of the mode `of`, `rate` requests per second with `headers`."""

    name: str
    of: str
    rate: float
    daemon: Daemon
    headers: Mapping[str, str]

    @property
    def label(self) -> str:
        """What it is called in the report."""
        return f"{self.name}, {LOAD:.0%} of {self.of}"


def measure(arguments: Arguments) -> Measured:
    """Bundle, daemons, profile, budget, capacity; blocks of the ways by turns; then the overload."""
    sizes = QUICK if arguments.quick else FULL
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wenet-load-")))
        bundle = Bundle(arguments.bundle) if arguments.quick else five_modes(folder / "bundle", arguments.seed)
        accuracies = {mode.id: mode.accuracy.value for mode in bundle.modes}
        ((_, image),) = golden_inputs(bundle, rows=1).items()
        body = folder / "body"
        body.write_bytes(np.ascontiguousarray(image).tobytes())
        os.sched_setaffinity(0, {cores[0]})  # inherited by the daemons, whose engines then pin themselves
        opened.callback(os.sched_setaffinity, 0, set(cores))
        log = opened.enter_context((folder / "log").open("ab"))
        full = bundle.modes[0].id
        flags = ["--bundle", str(bundle.path), "--cache-dir", str(folder / "cache"), "--engine-core", str(cores[-1])]
        ours = opened.enter_context(Daemon(flags, log))
        static = opened.enter_context(Daemon([*flags, "--mode", full], log))
        profile: dict[str, float] = {mode["id"]: mode["latency_ms"]["p50"] for mode in ours.modes()["modes"]}
        fastest = min(profile, key=lambda mode: profile[mode])
        budget_ms = round(max(BUDGET_FULLS * profile[full], LEAST_BUDGET_MS), 3)
        budget = {"WeNet-Budget-Ms": f"{budget_ms:g}", **ON_TIME}
        sender = Sender(cores[0], body)
        for daemon in (ours, static):
            sender.open_loop(daemon, arrivals(20, sizes.warm_s), sizes.warm_s, budget)
        capacity = {mode: [sender.capacity(ours, mode, sizes.closed_s)] for mode in dict.fromkeys((full, fastest))}
        ways = [
            Way(name, of, min(sizes.most_rate, LOAD * capacity[of][0]), daemon, headers)
            for of in dict.fromkeys((fastest, full))  # one and the same where a crowded machine profiled them
            for name, daemon, headers in ((OURS, ours, budget), (STATIC, static, {**budget, **LATE}))
        ]
        stress = None
        if not arguments.quick:
            stress = opened.enter_context(Stress([Stressor(CPU, cores[-1]), Stressor(MEMORY, cores[0], polite=True)]))
        found = _blocks(sender, ways, sizes, stress, arguments.seed)
        stressed_cpu_s = stress.cpu_s() if stress is not None else []
        times = arrivals(
            min(sizes.most_rate, OVERLOAD * capacity[fastest][0]), sizes.overload_s, seed=arguments.seed + 100
        )
        flood = sender.open_loop(ours, times, sizes.overload_s, budget)
        capacity[fastest].append(sender.capacity(ours, fastest, sizes.closed_s))
    reports = {
        label: report(
            [one for block in blocks for one in block],
            budget_ms=budget_ms,
            seconds=sizes.seconds,
            accuracies=accuracies,
        )
        for label, blocks in found.items()
    }
    reports["overload"] = report(flood, budget_ms=budget_ms, seconds=sizes.overload_s, accuracies=accuracies)
    if arguments.out is not None:
        title = f"{bundle.manifest.model}: budget {budget_ms:.1f} ms, Poisson arrivals, one engine core"
        lines = [
            _line(_said(label, reports[label]), blocks, sizes, stressed=stress is not None)
            for label, blocks in found.items()
        ]
        flooded = _said(f"{OURS}, {OVERLOAD:g}x the capacity of {fastest}", reports["overload"])
        lines.append(Line(flooded, [(0.0, flood)], []))
        draw(arguments.out.with_suffix(".png"), lines, budget_ms=budget_ms, modes=accuracies, title=title)
    answered = all(only_allowed(block) for way in ways if way.name == OURS for block in (flood, *found[way.label]))
    figures = _figures(reports, ways, capacity[fastest], budget_ms, answered=answered)
    return figures, {
        "accuracies": f"recorded, not measured: {accuracies}",
        "profile_p50_ms": profile,
        "budget_ms": budget_ms,
        "capacity_per_s": capacity,
        "sizes": asdict(sizes),
        "stress_cpu_s": stressed_cpu_s,
        "reports": {label: asdict(one) for label, one in reports.items()},
        "by_second": {
            label: [by_second(block, budget_ms=budget_ms) for block in blocks] for label, blocks in found.items()
        },
    }


def _blocks(
    sender: Sender,
    ways: Sequence[Way],
    sizes: Sizes,
    stress: Stress | None,
    seed: int,
) -> dict[str, list[list[Answer]]]:
    """Answers by way and block. In a block all ways come by turns, in random order, under the same stress."""
    order = np.random.default_rng(seed)
    found: dict[str, list[list[Answer]]] = {way.label: [] for way in ways}
    for number, (first, length) in enumerate(sizes.blocks):
        for position in order.permutation(len(ways)):
            way = ways[position]
            times = arrivals(way.rate, length, seed=seed + number)
            switches = alternating(sizes.period_s, length, _turns(number), first=first)
            answers = sender.open_loop(way.daemon, times, length, way.headers, stress=stress, switches=switches)
            found[way.label].append(answers)
    return found


def _turns(block: int) -> list[frozenset[int]]:
    """Kinds of stress by turns; each block goes on with the next one."""
    turns = list(TURNS)
    return [*turns[block % len(turns) :], *turns[: block % len(turns)]]


def _said(label: str, one: Report) -> str:
    """A line's title."""
    return (
        f"{label}: {one.accepted_within:.1%} of what was accepted within the budget, {one.attainment:.1%} of all, "
        f"mean recorded accuracy {one.accuracy:.1%}"
    )


def _line(title: str, blocks: Sequence[Sequence[Answer]], sizes: Sizes, *, stressed: bool) -> Line:
    """A way's blocks, one after the other."""
    shaded: list[tuple[float, float, str]] = []
    placed: list[tuple[float, Sequence[Answer]]] = []
    first_s = 0.0
    for number, ((first, length), answers) in enumerate(zip(sizes.blocks, blocks, strict=True)):
        placed.append((first_s, answers))
        if stressed:
            switches = alternating(sizes.period_s, length, _turns(number), first=first)
            for one, after in zip(switches, switches[1:], strict=False):
                if one.working:
                    shaded.append((first_s + one.at_s, first_s + after.at_s, TURNS[one.working]))
        first_s += length
    return Line(title, placed, shaded)


def _figures(
    reports: Mapping[str, Report], ways: Sequence[Way], capacity: Sequence[float], budget_ms: float, *, answered: bool
) -> dict[str, Figure]:
    """Figures against the issue's goals; the share of accepted requests, because refusals are said beforehand."""
    figures: dict[str, Figure] = {}
    for way in ways:
        one = reports[way.label]
        how = f"{one.arrivals} Poisson arrivals, latency from the scheduled time; {dict(one.statuses)}"
        within = f"{way.label}: accepted within budget"
        if way.name == OURS:
            figures[within] = at_least(one.accepted_within, 0.99, "of accepted", how)
        else:
            how = f"one mode pinned, on-miss late: refuses only what its queue cannot hold; {how}"
            figures[within] = Figure(one.accepted_within, "of accepted", "< 0.6", one.accepted_within < 0.6, how)
        figures[f"{way.label}: attainment"] = reported(one.attainment, "of arrivals", "a refusal is a miss")
        figures[f"{way.label}: accuracy"] = reported(one.accuracy, "recorded top-1", "mean of what was within budget")
    flood = reports["overload"]
    share = flood.goodput / float(np.mean(capacity))
    figures["overload: goodput"] = at_least(
        share, 0.9, "of capacity", f"{OVERLOAD:g}x the fastest mode's closed-loop capacity, {dict(flood.statuses)}"
    )
    figures["overload: accepted within budget"] = reported(flood.accepted_within, "of accepted", "no stress")
    figures["only 200, 503, 504"] = Figure(
        float(answered), "yes", "= 1", answered, "every arrival of ours was answered"
    )
    late = max(one.late_ms[1] for one in reports.values() if one.late_ms)
    how = f"{late:.3g} ms, the 99th percentile of how late a request was sent, in the worst of the loads"
    figures["generator late"] = at_most(late / budget_ms, MOST_LATE, "of the budget", how)
    excused = sum(one.missed_by_generator for one in reports.values())
    figures["missed by the generator"] = reported(excused, "200s", "late only because they were sent late")
    return figures


if __name__ == "__main__":
    run("real_load", QUESTION, measure, needs_bundle=False)
