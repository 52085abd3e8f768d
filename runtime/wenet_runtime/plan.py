"""Decides with how many groups each layer is emitted: by measurement on this host with this engine.

A layer of g groups may be computed with fewer groups and zeros between the blocks. That costs arithmetic
and buys kernels that suit the engine, or shuffles that disappear; which wins, only a measurement tells.
A plan belongs to one engine on one host and never travels.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from wenet_runtime.bundle import Layer
from wenet_runtime.errors import EngineError
from wenet_runtime.lowering.graph import Graph
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.segments import MOST_LAYERS, Segment, segments

# Networks of the same inputs → milliseconds of each. Raises `EngineError` where the engine does not take one.
Measure = Callable[[Sequence[Graph]], List[float]]
VECTOR = 16  # channels that the widest vector unit takes at once
MARGIN = 0.97  # a candidate replaces another only when it is this much quicker
WHOLE_MARGIN = 0.995  # the same for whole networks, in which one segment is a small part
CHUNK = 6  # candidates measured interleaved


@dataclass
class Figures:
    """What one engine was measured to take on one host. Segments of any supernet share them.

    Attributes:
        times_ms: by segment signature, by emitted groups as "4.4.16".
        peak: multiply-accumulates per ms that the dense segments reached at most, with some room.
    """

    times_ms: Dict[str, Dict[str, float]] = field(default_factory=dict)
    peak: Optional[float] = None

    @property
    def count(self) -> int:
        """How many times there are."""
        return sum(map(len, self.times_ms.values()))


def emitted_by_rule(layers: Sequence[Layer], groups: Mapping[str, int], spatial: Mapping[str, bool]) -> Dict[str, int]:
    """The choice without a measurement, for hosts that cannot be measured on.

    A convolution over neighbourhoods whose groups are smaller than a vector falls off an engine's vector
    kernels and pays for copying every neighbourhood, so its groups are joined until they fill a vector.
    Everything else keeps its groups: a 1×1 convolution is a matrix product at any size.

    Args:
        layers: the network's weight-enabled layers.
        groups: their configuration.
        spatial: whether a layer's kernel is larger than 1×1, by name.

    Returns:
        Emitted groups of the layers that change.
    """
    found: Dict[str, int] = {}
    for layer in layers:
        count, channels = groups[layer.name], min(layer.in_channels, layer.out_channels)
        if spatial[layer.name] and channels // count < VECTOR:
            found[layer.name] = max((one for one in _levels(layer, count) if channels // one >= VECTOR), default=1)
    return found


class Plan:
    """Chooses emitted groups for any configuration of one supernet, measuring what it does not know yet.

    Args:
        supernet: the network.
        measure: takes the time of models on this host; None decides by the rule alone.
        figures: what was measured on this host before; new figures are added to it.
    """

    def __init__(
        self,
        supernet: Supernet,
        measure: Optional[Measure] = None,
        figures: Optional[Figures] = None,
    ) -> None:
        self.figures = Figures() if figures is None else figures
        self._supernet = supernet
        self._spatial = {
            layer.name: supernet.weights[layer.weight].ndim == 4 and supernet.weights[layer.weight].shape[2] > 1
            for layer in supernet.layers
        }
        self._measure = measure
        self._refused: Dict[str, Set[str]] = {}
        self._own_peak: Optional[float] = None
        self._segments = segments(supernet) if measure is not None else ()

    def by_rule(self, groups: Mapping[str, int]) -> Dict[str, int]:
        """What is chosen without a measurement."""
        return emitted_by_rule(self._supernet.layers, groups, self._spatial)

    def emitted(self, groups: Mapping[str, int]) -> Dict[str, int]:
        """Emitted groups of the layers that are better computed with fewer than `groups` gives them."""
        chosen = self.by_rule(groups)
        for segment in self._segments:
            chosen.update(self._tuned(segment, groups, chosen))
        return {name: count for name, count in chosen.items() if count != groups[name]}

    def settled(self, groups: Mapping[str, int]) -> Dict[str, int]:
        """The quickest whole network made of `emitted`, of the rule, and of the groups as they are.

        Segments are measured between neighbours that stand for many, so each may err: the whole network takes
        one of the three to start with, then for every kind of segment whichever is quicker there.
        """
        choices: List[Dict[str, int]] = []
        for one in (self.emitted(groups), self.by_rule(groups), {}):
            if one not in choices:
                choices.append(one)
        if self._measure is None or len(choices) == 1:
            return choices[0]
        best = choices[self._whole(groups, choices)]
        kinds: Dict[str, List[str]] = {}
        for segment in self._segments:
            kinds.setdefault(segment.signature, []).extend(layer.name for layer in segment.supernet.layers)
        for names in kinds.values():
            others = [_crossed(best, choice, names) for choice in choices]
            candidates = [best, *(one for at, one in enumerate(others) if one != best and one not in others[:at])]
            best = candidates[self._whole(groups, candidates)]
        return best

    def _whole(self, groups: Mapping[str, int], candidates: Sequence[Mapping[str, int]]) -> int:
        """Which emission of the whole network is quickest; the first where they hardly differ."""
        if len(candidates) == 1:
            return 0
        times = self._taken([lower(self._supernet, groups, emitted=one) for one in candidates])
        return times.index(min(times)) if min(times) < times[0] * WHOLE_MARGIN else 0

    def _tuned(self, segment: Segment, groups: Mapping[str, int], start: Mapping[str, int]) -> Dict[str, int]:
        layers = segment.supernet.layers
        best = {layer.name: start.get(layer.name, groups[layer.name]) for layer in layers}
        # Every combination of a unit's layers; of a long one's, which has too many, layer by layer.
        units = [part for unit in segment.units for part in ([unit] if len(unit) <= MOST_LAYERS else _singly(unit))]
        for unit in units:
            levels = [_levels(layer, groups[layer.name]) for layer in layers]
            choices = [level if layer.name in unit else [best[layer.name]] for layer, level in zip(layers, levels)]
            candidates = [
                {layer.name: count for layer, count in zip(layers, counts)} for counts in itertools.product(*choices)
            ]
            best = self._quickest(segment, candidates, best)
        return best

    def _quickest(self, segment: Segment, candidates: List[Dict[str, int]], start: Mapping[str, int]) -> Dict[str, int]:
        """The candidate that is quickest by more than the margin, starting from `start`."""
        work = {_key(one): self._macs(segment, one) for one in candidates}
        best, best_ms = dict(start), self._time(segment, [start])[0]
        left = sorted(candidates, key=lambda one: work[_key(one)])
        while left:
            # No host computes faster than its peak, so what needs more arithmetic than that is not tried.
            left = [one for one in left if work[_key(one)] <= best_ms * self._peak()]
            chunk, left = left[:CHUNK], left[CHUNK:]
            for one, took_ms in zip(chunk, self._time(segment, chunk)):
                if took_ms < best_ms * MARGIN:
                    best, best_ms = one, took_ms
        return best

    def _time(self, segment: Segment, candidates: Sequence[Mapping[str, int]]) -> List[float]:
        known = self.figures.times_ms.setdefault(segment.signature, {})
        refused = self._refused.setdefault(segment.signature, set())
        missing = [one for one in candidates if _key(one) not in known and _key(one) not in refused]
        if missing:
            # Groups and emitted groups are the same here: zeros cost as much as any number.
            for one, took_ms in zip(missing, self._taken([lower(segment.supernet, one) for one in missing])):
                if math.isfinite(took_ms):
                    known[_key(one)] = took_ms
                else:
                    refused.add(_key(one))
        return [known.get(_key(one), math.inf) for one in candidates]

    def _taken(self, graphs: Sequence[Graph]) -> List[float]:
        """Milliseconds of each; infinite for what the engine does not take."""
        assert self._measure is not None
        try:
            return self._measure(graphs)
        except EngineError:
            return [math.inf] if len(graphs) == 1 else [self._taken([graph])[0] for graph in graphs]

    def _macs(self, segment: Segment, groups: Mapping[str, int]) -> float:
        """Multiply-accumulates of the segment's layers when emitted so, for the whole image."""
        total = 0.0
        for layer in segment.supernet.layers:
            weight = segment.supernet.weights[layer.weight]
            total += weight.size / groups[layer.name] * segment.positions[layer.name]
        return total

    def _peak(self) -> float:
        """Multiply-accumulates per ms of dense segments at their best, with some room; of this network's or of
        others that were measured here, since small networks do not reach what a host can do.
        """
        if self._own_peak is None:
            best = 0.0
            for segment in {one.signature: one for one in self._segments}.values():
                dense = {layer.name: 1 for layer in segment.supernet.layers}
                best = max(best, self._macs(segment, dense) / self._time(segment, [dense])[0])
            self._own_peak = 1.2 * best
            self.figures.peak = max(self._own_peak, self.figures.peak or 0.0)
        return max(self._own_peak, self.figures.peak or 0.0)


def _levels(layer: Layer, groups: int) -> List[int]:
    """With how many groups a layer of so many may be emitted, ascending."""
    return [one for one in layer.groups if groups % one == 0]


def _singly(names: Sequence[str]) -> List[Tuple[str, ...]]:
    return [(name,) for name in names]


def _key(groups: Mapping[str, int]) -> str:
    return ".".join(map(str, groups.values()))


def _crossed(one: Mapping[str, int], other: Mapping[str, int], names: Sequence[str]) -> Dict[str, int]:
    """`one`, with the layers of these names as `other` has them."""
    kept = {name: count for name, count in one.items() if name not in names}
    return {**kept, **{name: count for name, count in other.items() if name in names}}
