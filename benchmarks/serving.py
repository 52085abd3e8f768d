"""What does serving cost, beside other servers? Latency added, throughput, time to refuse, overload.

Which core does what: in part a the servers share the last core (all but the first, where there are more than two) and
the client has the first. In the others servers may use every core with one thread of inference, the sending process
has the first.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import serving_added as added
from benchmarks import serving_models as models
from benchmarks import serving_overload as overload
from benchmarks import serving_refusal as refusal
from benchmarks import serving_throughput as throughput
from benchmarks.common import ROOT, Arguments, Figure, Measured, run
from benchmarks.peers.base import JPEG, TENSOR, Peer
from benchmarks.peers.environments import PEERS, installed, interpreter, make
from benchmarks.peers.wenet import PEER as WENET
from benchmarks.serving_stand import Stand

QUESTION = "What do servers add to session.run, how much of a loop's throughput is left, how soon do they refuse?"
PARTS = "abcd"


class Bench:
    """What the parts share: arguments, cores, folders; collects figures and samples."""

    def __init__(self, arguments: Arguments, scratch: Path) -> None:
        own = arguments.own
        self.quick: bool = arguments.quick
        self.seed = arguments.seed
        self.scratch = scratch
        self.work: Path = own["work"] / ("quick" if arguments.quick else "full")
        self.environments: Path = own["environments"]
        names = own["peers"].split(",") if own["peers"] is not None else None
        self.peers = chosen(names)
        self.cores = sorted(os.sched_getaffinity(0))
        self.figures: dict[str, Figure] = {}
        self.samples: dict[str, Any] = {"cores": self.cores, "skipped": {}, "orphans": {}, "load_1min": {}}

    def stand(self, name: str, subject: models.Subject, modes: tuple[str, ...], **more: Any) -> Stand:
        """Servers of a part, not yet up."""
        limit_ms = more.pop("limit_ms", None)
        served = subject.served(modes, limit_ms=limit_ms)
        self.samples["load_1min"][name] = round(os.getloadavg()[0], 2)
        cores = more.pop("cores", self.cores)
        return Stand(subject, served, self.peers, self.environments, self.scratch / name, cores, **more)

    def done(self, name: str, stand: Stand) -> None:
        """Keep what a stand that is stopped knows."""
        self.samples["skipped"][name] = stand.skipped
        self.samples["orphans"][name] = stand.orphans

    def a(self) -> None:
        """Added latency."""
        sizes = added.QUICK if self.quick else added.FULL
        for name, pixels, kinds in (("small", 2, (TENSOR,)), (added.LARGE, 224, (TENSOR, JPEG))):
            subject = models.transport(self.work / f"pixels{pixels}", pixels)
            stand = self.stand(
                name.replace(" ", ""), subject, ("only",), cores=self.cores[1:] or self.cores, kinds=kinds
            )
            with stand:
                for kind in kinds:
                    body = "JPEG" if kind == JPEG else name
                    taken = added.take(stand, kind, sizes, self.seed)
                    self.figures |= added.figures(taken.turns, body, kind)
                    self.samples[f"a, {body}"] = added.samples(taken)
            self.done(f"a, {name}", stand)

    def b(self) -> None:
        """Throughput."""
        sizes = throughput.QUICK if self.quick else throughput.FULL
        subject = models.sub_network(self.work / "mobilenet", quick=self.quick)
        with self.stand("throughput", subject, ("g4",)) as stand:
            found = throughput.take(stand, sizes, self.seed, self.cores[0])
        self.done("b", stand)
        self.figures |= throughput.figures(found)
        self.samples["b, per second"] = found

    def c(self) -> None:
        """Time to refuse."""
        sizes = refusal.QUICK if self.quick else refusal.FULL
        subject = models.slow_and_fast(self.work / "slow", sizes.slow_ms)
        rounds = ("--profile-rounds", "20")  # half a second each
        with self.stand("refusal", subject, refusal.MODES, limit_ms=sizes.limit_ms, flags=rounds) as stand:
            probes, slow_ms = refusal.take(stand, sizes)
        self.done("c", stand)
        self.figures |= refusal.figures(probes, slow_ms, sizes, self.peers)
        self.samples["c"] = refusal.samples(probes, slow_ms)

    def d(self) -> None:
        """Overload. Ours first, because its profile says the budget that the others are given."""
        sizes = overload.QUICK if self.quick else overload.FULL
        subject = models.five(self.work / "resnet")
        core = self.cores[0]
        flags: tuple[str, ...] = ("--engine-core", str(self.cores[-1]))
        if self.quick:
            flags = (*flags, "--profile-rounds", "20", "--no-tune")
        found: dict[str, overload.Overloaded] = {}
        all_peers, self.peers = self.peers, (WENET,)
        with self.stand("overload", subject, (overload.FASTEST,), flags=flags) as stand:
            ours = stand.way(added.RAW)
            if ours is None:
                raise RuntimeError(f"ours does not serve: {stand.skipped}")
            profile = overload.profile_ms(ours.server.port)
            budget_ms = overload.budget_of(profile)
            per_second = overload.capacity(stand, ours, sizes, core)
            rate = min(sizes.most_rate, overload.FACTOR * per_second)
            asked = overload.Asked(rate, budget_ms, sizes.warm_s, self.seed, core)
            found[WENET.name] = overload.overload(stand, ours, asked, seconds=sizes.ours_s)
        self.done("d, ours", stand)
        self.peers = tuple(peer for peer in all_peers if peer is not WENET)
        with self.stand("overload-others", subject, (overload.FASTEST,), limit_ms=budget_ms) as stand:
            for way in {way.peer.name: way for way in reversed(stand.ways)}.values():
                found[way.peer.name] = overload.overload(stand, way, asked, seconds=sizes.others_s)
        self.done("d, others", stand)
        self.peers = all_peers
        self.figures |= overload.figures(found, asked, per_second)
        self.samples["d"] = {
            "profile_p50_ms": profile,
            "budget_ms": budget_ms,
            "capacity_per_s": per_second,
            **overload.samples(found),
        }


def chosen(names: list[str] | None) -> tuple[Peer, ...]:
    """Ours and the peers of these names; all if None. Raises `SystemExit` for an unknown one."""
    known = {peer.name: peer for peer in PEERS}
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise SystemExit(f"no peer '{unknown[0]}': choose from {', '.join(known)}")
    return tuple(peer for name, peer in known.items() if names is None or name in names or peer is WENET)


def measure(arguments: Arguments) -> Measured:
    """The parts that were asked for, one after the other."""
    own = arguments.own
    if own["install"]:
        make(own["environments"])
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wenet-serving-")))
        bench = Bench(arguments, scratch)
        opened.callback(os.sched_setaffinity, 0, bench.cores)
        for part in own["part"]:
            os.sched_setaffinity(0, bench.cores[:1] if part in "ac" else bench.cores)
            getattr(bench, part)()
    bench.samples["versions"] = {
        peer.name: installed(interpreter(peer, bench.environments))
        for peer in bench.peers
        if peer.environment is not None and interpreter(peer, bench.environments).exists()
    }
    return bench.figures, bench.samples


def flags(parser: argparse.ArgumentParser) -> None:
    """Flags of its own."""
    parser.add_argument("--part", type=part, default=PARTS, help="which of a, b, c, d; several may stand together")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / "out/peers", help="folder of the peers' environments"
    )
    parser.add_argument("--install", action="store_true", help="make those environments that are not there first")
    parser.add_argument("--peers", help="names of peers, with commas; all if not given")
    parser.add_argument("--work", type=Path, default=ROOT / "out/serving", help="where networks are kept")


def part(text: str) -> str:
    """One or several of the parts. Raises `argparse.ArgumentTypeError`."""
    if not text or set(text) - set(PARTS) or len(set(text)) != len(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not made of {', '.join(PARTS)}, each at most once")
    return text


if __name__ == "__main__":
    run("serving", QUESTION, measure, needs_bundle=False, flags=flags)
