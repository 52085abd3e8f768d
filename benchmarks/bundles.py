"""Bundles of the paper's networks with random numbers: what a device does with one needs no training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from benchmarks.networks import random_groups, uniform
from wenet_runtime.bundle import (
    FORMAT,
    FORMAT_VERSION,
    GOLDEN,
    TOPOLOGY,
    WEIGHTS,
    Accuracy,
    Bundle,
    Manifest,
    Mode,
    TensorSpec,
)
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer.topology import INPUT, OUTPUT

LEVELS = (1, 2, 4, 8, 16)
MIXES = 3
FULL = "g1"


def eight_modes(supernet: Supernet, seed: int) -> dict[str, dict[str, int]]:
    """Five uniform configurations and three random mixes, by the mode's id."""
    modes = {f"g{level}": uniform(supernet, level) for level in LEVELS}
    return {**modes, **{f"mix{number}": random_groups(supernet, seed + number) for number in range(MIXES)}}


def write(path: Path, supernet: Supernet, *, own_statistics: bool, seed: int = 0) -> Bundle:
    """Write and open a bundle of eight modes.

    Args:
        path: where it goes.
        supernet: the network.
        own_statistics: give each mode recalibrated batch-norm statistics of its own, as an export does; without
            them modes share what the supernet's switchable batch norms say.
        seed: of the mixes and the statistics.
    """
    random = np.random.default_rng(seed)
    image = random.normal(size=(1, *supernet.inputs[0].shape[1:])).astype(np.float32)
    golden = {f"input.{INPUT}": image}
    files = {TOPOLOGY: supernet.topology, WEIGHTS: save(dict(supernet.weights))}
    modes = []
    for number, (mode_id, groups) in enumerate(eight_modes(supernet, seed).items()):
        statistics = _recalibrated(supernet, groups, random) if own_statistics else {}
        name = f"modes/{mode_id}.safetensors" if own_statistics else None
        if name is not None:
            files[name] = save(statistics)
        engine = OrtBackend().load_bytes(materialize(supernet, groups, statistics), name=mode_id)
        golden[f"{mode_id}.{OUTPUT}"] = engine.infer({INPUT: image})[OUTPUT]
        engine.close()
        # Accuracy, MACs and parameters are made up: nothing here asks for them.
        accuracy = Accuracy(0.9 - 0.01 * number, 0.0, 1.0, 1)
        modes.append(Mode(mode_id, groups, "fp32", accuracy, 100 - number, 1, "made up", name))
    files[GOLDEN] = save(golden)
    classes = golden[f"{FULL}.{OUTPUT}"].shape[1]
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        model="random",
        inputs=supernet.inputs,
        outputs=(TensorSpec(OUTPUT, "FP32", (-1, classes)),),
        preprocess=None,
        labels=(),
        max_batch=1,
        layers=supernet.layers,
        norms=supernet.norms,
        shuffles=supernet.shuffles,
        modes=tuple(modes),
    )
    write_bundle(path, manifest, files)
    return Bundle(path)


def _recalibrated(
    supernet: Supernet, groups: Mapping[str, int], random: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Means and variances a little off the supernet's, for the patterns that a configuration uses."""
    found: dict[str, NDArray[Any]] = {}
    for norm in supernet.norms:
        pattern = norm.patterns[groups[norm.layer] if norm.layer is not None else 1]
        mean, var = (np.asarray(supernet.weights[name]) for name in (pattern.mean, pattern.var))
        found[pattern.mean] = (mean + 0.02 * np.sqrt(var) * random.normal(size=mean.shape)).astype(np.float32)
        found[pattern.var] = (var * random.uniform(0.95, 1.05, var.shape)).astype(np.float32)
    return found
