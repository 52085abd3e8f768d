"""Precision as one more choice: what a configuration needs to be computed in int8, fp16 or bf16, and what that gives.

Numbers come from the engine that will serve: torch computes no int8.
"""

import platform
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.bundle import Preprocess
from wenet_runtime.device import processor_flags
from wenet_runtime.engines.base import Backend, Engine, Tensors
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.lowering.precision import candidates, wants_reduced_range
from wenet_runtime.lowering.ranges import as_statistics, observe
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.plan import Plan
from wenet_runtime.profiler import load_graph, quickest_ms
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import recalibrated
from wenet_trainer.topology import INPUT, OUTPUT

OBSERVED_PIXELS = 1 << 18  # of one batch whose every activation is held at once
OBSERVED_IMAGES = 32  # of one batch at most
BATCH = 32

Statistics = Mapping[str, NDArray[np.float32]]


@runtime_checkable
class ComputesBf16(Protocol):
    """A backend that knows whether its processor has bf16."""

    @property
    def computes_bf16(self) -> bool:
        """Whether bf16 modes are computed in bf16; elsewhere they are computed in float."""


@runtime_checkable
class ComputesFp16(Protocol):
    """A backend that knows whether its processor has fp16."""

    @property
    def computes_fp16(self) -> bool:
        """Whether fp16 modes are computed in fp16; elsewhere they are computed in float."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A configuration in a precision.

    Attributes:
        groups: of every weight-enabled layer.
        precision: one of `PRECISIONS`.
        statistics: recalibrated batch norms; for int8 also ranges, as a mode's statistics file carries them.
    """

    groups: Mapping[str, int]
    precision: str
    statistics: Statistics


def precisions_of(backend: Backend) -> tuple[str, ...]:
    """The precisions besides fp32 that a backend may gain by.

    int8 is for any engine that computes. fp16 and bf16 are for those that say so: ONNX Runtime takes both on a
    processor, and computes them in float.
    """
    if backend.name == "sim":  # its answers are made up, in any precision
        return ()
    found = ["int8"]
    if isinstance(backend, ComputesBf16) and backend.computes_bf16:
        found.append("bf16")
    if isinstance(backend, ComputesFp16) and backend.computes_fp16:
        found.append("fp16")
    return tuple(found)


def prepare(
    net: nn.Module, supernet: Supernet, config: Mapping[str, int], precision: str, calibration: Tensor
) -> Variant:
    """All that a mode of this precision carries beside the weights.

    Args:
        net: the trained supernet; left as it is but for the active configuration.
        supernet: the same network as the runtime reads it.
        config: groups of every weight-enabled layer.
        precision: one of `PRECISIONS`.
        calibration: (N, C, H, W) normalised training images.

    Raises:
        ExploreError: an unknown precision.
    """
    with recalibrated(net, config, calibration) as statistics:
        return variant_of(supernet, config, precision, statistics, calibration)


def variant_of(
    supernet: Supernet, config: Mapping[str, int], precision: str, statistics: Statistics, calibration: Tensor
) -> Variant:
    """`prepare` for a configuration whose statistics are there: int8 wants ranges beside them.

    Args:
        supernet: the network.
        config: groups of every weight-enabled layer.
        precision: one of `PRECISIONS`.
        statistics: its recalibrated batch norms.
        calibration: (N, C, H, W) normalised training images; for int8 the float network is shown all of them.

    Raises:
        ExploreError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ExploreError(f"unknown precision '{precision}': known are {', '.join(PRECISIONS)}")
    if precision != "int8":
        return Variant(dict(config), precision, dict(statistics))
    graph = lower(supernet, config, statistics)
    rows = max(1, min(OBSERVED_IMAGES, OBSERVED_PIXELS // (calibration.shape[2] * calibration.shape[3])))
    batches = ({INPUT: np.ascontiguousarray(batch.numpy(), np.float32)} for batch in torch.split(calibration, rows))
    # The widest range of all images: on trained networks ranges that leave rare values out were never better.
    with closing(_Session()) as session:
        ranges = observe(graph, session.run, batches)
    return Variant(dict(config), precision, {**statistics, **as_statistics(ranges)})


def open_variant(
    supernet: Supernet,
    variant: Variant,
    backend: Backend,
    plan: Plan | None = None,
    *,
    emitted: Mapping[str, int] | None = None,
) -> Engine:
    """Build and load a variant as it will be served: emitted as is quickest here, made for this processor.

    Args:
        supernet: the network.
        variant: what to open.
        backend: what runs it.
        plan: chooses the emission in fp32; without one the rule does. Other precisions measure a few emissions.
        emitted: an emission that was chosen before, see `emission`.

    Raises:
        EngineError: the engine does not take it.
        BundleError: int8 without ranges, or numbers that do not fit fp16.
    """
    emitted = emission(supernet, variant, backend, plan) if emitted is None else emitted
    graph = variant_graph(supernet, variant, emitted)
    return load_graph(backend, graph, f"{variant.precision} {dict(variant.groups)}", variant.precision)


def variant_graph(supernet: Supernet, variant: Variant, emitted: Mapping[str, int] | None = None) -> Graph:
    """A variant's plain network for this processor.

    Args:
        supernet: the network.
        variant: what to lower.
        emitted: layers computed with fewer groups than they have; see `materialize.lower`.
    """
    return lower(
        supernet,
        variant.groups,
        variant.statistics,
        emitted=emitted,
        precision=variant.precision,
        reduce_range=wants_reduced_range(platform.machine(), processor_flags()),
    )


def right(engine: Engine, images: Images, preprocess: Preprocess, batch: int = BATCH) -> NDArray[np.bool_]:
    """Which images an engine answers rightly: (N,), in order.

    Args:
        engine: a classifier; stays open.
        images: what it is shown.
        preprocess: how an image becomes an input.
        batch: images at a time.
    """
    found = np.zeros(len(images), np.bool_)
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        inputs = {INPUT: normalise(images.pixels[rows], preprocess).numpy()}
        found[rows] = engine.infer(inputs)[OUTPUT].argmax(axis=1) == images.labels[rows]
    return found


def emission(supernet: Supernet, variant: Variant, backend: Backend, plan: Plan | None = None) -> Mapping[str, int]:
    """How many groups layers are computed with, as the device's tuner will choose; arguments as for `open_variant`."""
    if variant.precision == "fp32":
        return Plan(supernet).by_rule(variant.groups) if plan is None else plan.settled(variant.groups)
    ways = [one.emitted for one in candidates(supernet.layers, variant.groups, [variant.precision])]
    if len(ways) == 1:
        return ways[0]
    times = quickest_ms(backend, [variant_graph(supernet, variant, one) for one in ways], precision=variant.precision)
    return ways[times.index(min(times))]


class _Session:
    """ONNX Runtime on one model after the other; the session of the last is kept."""

    def __init__(self) -> None:
        self._model = b""
        self._engine: Engine | None = None

    def run(self, model: bytes, inputs: Tensors) -> Tensors:
        """Answers of a model, opened when it is another than before."""
        if self._engine is None or model is not self._model:
            self.close()
            self._model, self._engine = model, OrtBackend(None, 1).load_bytes(model, name="ranges")
        return self._engine.infer(inputs)

    def close(self) -> None:
        """Free the session."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None
