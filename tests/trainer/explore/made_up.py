"""Frontiers of random numbers, for pictures and tables."""

import numpy as np

from wenet_trainer.evaluate import wilson
from wenet_trainer.explore.beside import PeerCurve, PeerPoint
from wenet_trainer.explore.problem import Limits
from wenet_trainer.explore.result import Dropped, FoundMode, Frontier, Latency, Point, Reference

LAYERS = ("stem", "stages.0.conv", "stages.1.conv", "stages.2.conv", "stages.10.conv", "head")
LEVELS = (1, 2, 4, 8, 16)


def frontier(modes=8, points=60, dropped=4, seed=0, *, energy=False, equal_times=False):
    """A frontier with accuracies that rise with the time, in three precisions."""
    rng = np.random.default_rng(seed)

    def groups(most=5):
        return {name: int(rng.choice(LEVELS[:most])) for name in LAYERS}

    def latency(ms):
        return Latency(ms, 1.1 * ms, 1.3 * ms, 200)

    def mj(ms):
        return 9.0 * ms if energy else None

    times = [1.0] * modes if equal_times else sorted(rng.uniform(0.2, 1.2, modes).tolist())
    values = [round(float(value)) for value in 800 + 140 * np.sort(rng.uniform(0, 1, modes))]
    kept = tuple(
        FoundMode(
            f"m{index}",
            groups() if index < modes - 1 else dict.fromkeys(LAYERS, 1),
            ("fp32", "int8", "bf16")[index % 3] if index < modes - 1 else "fp32",
            wilson(value, 1000),
            round(ms * 1e7),
            round(ms * 1e5),
            latency(ms),
            "polish",
            mj(ms),
            "rapl" if energy else "none",
        )
        for index, (ms, value) in enumerate(zip(times, values, strict=True))
    )
    candidates = [(groups(), float(rng.uniform(0.75, 0.92)), float(rng.uniform(0.3, 1.2))) for _ in range(points)]
    gone = [(groups(), round(float(rng.uniform(780, 900))), float(rng.uniform(0.4, 1.2))) for _ in range(dropped)]
    return Frontier(
        weights_sha256="0" * 64,
        method="table",
        granularity="layer",
        seed=seed,
        device="a made-up device",
        tables=(),
        data="digits",
        calibration_images=512,
        search_images=480,
        final_images=1000,
        accuracy_evaluations=points,
        latency_measurements=0,
        search_seconds=0.5,
        limits=Limits(),
        reference=Reference(5.0, 0.1),
        hypervolume=0.5,
        points=tuple(Point(g, a, ms, mj(ms), round(ms * 1e7), "programme") for g, a, ms in candidates),
        dropped=tuple(
            Dropped(g, "fp32", wilson(value, 1000), latency(ms), mj(ms), 'not faster than "m1", by 3 %')
            for g, value, ms in gone
        ),
        notes=(),
        modes=kept,
    )


def peer(name="us-net"):
    """A curve of four widths."""
    points = [PeerPoint(level, wilson(900 - 20 * level, 1000), 1.2 / level, 10**7 // level) for level in range(1, 5)]
    return PeerCurve(name, tuple(points))
