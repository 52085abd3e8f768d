"""What configurations cost on this machine with the engine that will serve them, every figure remembered."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.device import this_device
from wenet_runtime.engines.base import Engine
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.layer_profiler import profile_layers
from wenet_runtime.layer_table import LayerTable, supernet_id
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.meters.base import Meter
from wenet_runtime.plan import Plan
from wenet_runtime.plan_file import plan_path, read_figures, write_figures
from wenet_runtime.profiler import energy_mj, load_graph, quickest_ms, sample
from wenet_trainer.explore.journal import packed, unpacked
from wenet_trainer.explore.problem import Cost
from wenet_trainer.explore.records import Records
from wenet_trainer.space import GroupConfig
from wenet_trainer.topology import INPUT

Samples = Mapping[str, NDArray[Any]]  # name → (rounds,) milliseconds, sample k of all from one round
TIMING = "primed 1"  # how engines are timed; what was timed otherwise before is timed again
ROUNDS = 40  # interleaved runs behind a measured cost of the search
CHUNK = 20  # rounds of the final measurement that are kept together


class Bench:
    """One network on this machine.

    Args:
        supernet: the network as the runtime reads it.
        image: (1, C, H, W) float32, what engines are timed on.
        folder: where measurements are kept.
        meter: where watts come from.
        threads: of one inference.
        seed: of everything random.
        weights: hash of the weights: an int8 network is emitted by its numbers.
        keep: whether this process measures, and so keeps files; of many processes one does.

    Attributes:
        device: this machine, its engine and threads.
        backend, plan: what builds and loads engines, and how layers are emitted.
        table_path: where its layer table lies.
    """

    def __init__(
        self,
        supernet: Supernet,
        image: NDArray[np.float32],
        folder: Path,
        meter: Meter,
        *,
        threads: int,
        seed: int,
        weights: str = "",
        keep: bool = True,
    ) -> None:
        self.supernet = supernet
        self.backend = OrtBackend(None, threads)
        self.device = this_device(self.backend.name, self.backend.version, threads)
        self.meter = meter
        self._inputs = {INPUT: image}
        self._seed = seed
        self._plan_path = plan_path(folder, self.device)
        figures = read_figures(self._plan_path, self.device)
        self.plan = Plan(supernet, partial(quickest_ms, self.backend), figures)
        self._planned = figures.count
        identity = {
            "supernet": supernet_id(supernet),
            "weights": weights,
            "timing": TIMING,
            "meter": meter.source,
            **{name: str(value) for name, value in asdict(self.device).items()},
        }
        self._costs = Records(folder / "costs.jsonl" if keep else None, identity)
        self._finals = Records(folder / "finals.jsonl" if keep else None, identity)
        self._asked: set[str] = set()
        self.table_path = folder / f"layers-{self.device.fingerprint}-{supernet_id(supernet)[:12]}.json"
        self._full: Engine | None = None
        self._full_ms: float | None = None

    @property
    def name(self) -> str:
        """This machine and its engine, for a person."""
        device = self.device
        return f"{device.processor}, {device.threads} thread, {device.engine} {device.engine_version}"

    @property
    def measurements(self) -> int:
        """Configurations whose measured cost this process was asked for; those behind a table do not count."""
        return len(self._asked)

    def table(self, progress: Callable[[int, int], None]) -> LayerTable:
        """This machine's layer table; what is missing of it is measured now."""
        return profile_layers(
            self.supernet,
            self.backend,
            emitted=self.emitted,
            device=self.device,
            path=self.table_path,
            meter=self.meter,
            seed=self._seed,
            progress=progress,
        )

    def emitted(self, groups: Mapping[str, int]) -> Mapping[str, int]:
        """With how many groups layers are best computed here; what is measured for it is kept."""
        chosen = self.plan.emitted(groups)
        self._keep_plan()
        return chosen

    def cost(self, config: GroupConfig) -> Cost:
        """Measured, interleaved with the full network so that the machine's drift cancels.

        It is the median of pairwise ratios to the full network, times the full network's first median.
        """
        key = json.dumps(dict(config))
        self._asked.add(key)
        known = self._costs.get(key)
        if known is None:
            known = self._measured(config)
            self._costs.put(key, known)
        return Cost(*known)

    def open(self, config: GroupConfig) -> Engine:
        """An engine of a configuration in fp32 as it will be served. What a run costs no statistics change."""
        emitted = self.decided(f"fp32 {json.dumps(dict(config))}", lambda: self.plan.settled(config))
        self._keep_plan()
        return load_graph(self.backend, lower(self.supernet, config, emitted=emitted), str(dict(config)))

    def decided(self, name: str, decide: Callable[[], dict[str, int]]) -> dict[str, int]:
        """How a network is emitted, decided once: a second decision may fall otherwise."""
        found: dict[str, int] | None = self._finals.get(f"emitted {name}")
        if found is None:
            found = decide()
            self._finals.put(f"emitted {name}", found)
        return found

    def answers(self, name: str, images: int, take: Callable[[], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Which of so many images a network answers rightly, (images,), taken once.

        Args:
            name: says the network and the images.
            images: how many there are.
            take: shows them to its engine.
        """
        kept = self._finals.get(f"right {name}")
        if kept is None:
            kept = packed(take())
            self._finals.put(f"right {name}", kept)
        return unpacked(kept, images)

    def samples(self, engines: Mapping[str, Engine], rounds: int, progress: Callable[[int, int], None]) -> Samples:
        """Time engines interleaved; what was measured of these names before a kill is not measured again.

        Args:
            engines: by a name that says all that they differ in, and no two of which are alike.
            rounds: runs of each.
            progress: told (rounds done, rounds in all).
        """
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in engines}
        for number, start in enumerate(range(0, rounds, CHUNK)):
            wanted = min(CHUNK, rounds - start)
            key = f"{_digest(engines)} {number} {wanted}"
            kept = self._finals.get(key)
            if kept is None:
                warmup = 5 if start == 0 else 1
                taken = sample(engines, self._inputs, rounds=wanted, warmup=warmup, primed=1, seed=number)
                kept = {name: values.tolist() for name, values in taken.items()}
                self._finals.put(key, kept)
            for name, values in kept.items():
                found[name].append(np.array(values))
            progress(start + wanted, rounds)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def energies_mj(self, engines: Mapping[str, Engine], runs: int) -> dict[str, float | None]:
        """Energy of one image by each engine, in runs back to back; None where the meter does not tell."""
        found = {}
        for name, engine in engines.items():
            key = f"{name} energy {self.meter.source} {runs}"
            kept = self._finals.get(key)
            if kept is None:
                kept = [energy_mj(engine, self._inputs, self.meter, runs=runs)]
                self._finals.put(key, kept)
            found[name] = kept[0]
        return found

    def close(self) -> None:
        """Free the full network's engine."""
        if self._full is not None:
            self._full.close()
        self.backend.close()

    def _measured(self, config: GroupConfig) -> tuple[float, float | None]:
        if self._full is None:
            self._full = self._load(GroupConfig(dict.fromkeys(config, 1)))
        engine = self._load(config)
        try:
            samples = sample({"full": self._full, "it": engine}, self._inputs, rounds=ROUNDS, primed=1)
            energy = energy_mj(engine, self._inputs, self.meter, runs=ROUNDS)
        finally:
            engine.close()
        if self._full_ms is None:
            self._full_ms = self._first_full_ms(float(np.median(samples["full"])))
        return float(np.median(samples["it"] / samples["full"])) * self._full_ms, energy

    def _first_full_ms(self, now_ms: float) -> float:
        """The full network's time that every ratio refers to, also after a restart."""
        known = self._finals.get("full_ms")
        if known is None:
            self._finals.put("full_ms", now_ms)
        return float(now_ms if known is None else known)

    def _load(self, config: GroupConfig) -> Engine:
        return load_graph(self.backend, lower(self.supernet, config, emitted=self.emitted(config)), str(dict(config)))

    def _keep_plan(self) -> None:
        if self.plan.figures.count != self._planned:
            write_figures(self._plan_path, self.device, self.plan.figures)
            self._planned = self.plan.figures.count


def _digest(engines: Mapping[str, Engine]) -> str:
    return hashlib.sha256("\n".join(engines).encode()).hexdigest()[:16]
