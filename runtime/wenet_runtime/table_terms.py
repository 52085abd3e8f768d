"""What a layer table has terms for: every weight-enabled layer, and neighbours in one segment. No figures."""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from wenet_runtime.materialize import Supernet
from wenet_runtime.segments import segments


@dataclass(frozen=True)
class LayerTerm:
    """One layer.

    Attributes:
        groups: counts it allows, ascending from 1.
        kind: equal for layers of one weight's shape at as many places of the image, which cost alike.
        macs: multiply-accumulates of the full layer for one image.
    """

    name: str
    groups: Tuple[int, ...]
    kind: str
    macs: float


@dataclass(frozen=True)
class PairOf:
    """Two layers that run one after the other in one segment: how both are emitted depends on both.

    Attributes:
        kind: equal for pairs of equal kinds.
        elements: numbers that the first makes for one image, which is what a shuffle or a change of layout moves.
    """

    first: str
    second: str
    kind: str
    elements: float


@dataclass(frozen=True)
class Terms:
    """Of one network.

    Attributes:
        layers: in the supernet's order.
        pairs: in the supernet's order, each layer at most twice.
        blocks: every layer's name once, those of one segment together.
    """

    layers: Tuple[LayerTerm, ...]
    pairs: Tuple[PairOf, ...]
    blocks: Tuple[Tuple[str, ...], ...]

    def uniform(self, groups: int) -> Dict[str, int]:
        """Every layer at `groups`, clipped to what it allows."""
        return {layer.name: max(one for one in layer.groups if one <= groups) for layer in self.layers}

    def key(self, groups: Mapping[str, int]) -> Tuple[int, ...]:
        """A configuration as something to compare."""
        return tuple(groups[layer.name] for layer in self.layers)


def terms_of(supernet: Supernet) -> Terms:
    """The terms of a supernet's table.

    Raises:
        BundleError: its parts do not fit together.
    """
    order = {layer.name: number for number, layer in enumerate(supernet.layers)}
    positions: Dict[str, int] = {}
    runs: List[Tuple[str, ...]] = []
    for segment in segments(supernet):
        positions.update(segment.positions)
        runs.append(tuple(name for unit in segment.units for name in unit))
    alone = [name for name in order if name not in positions]
    layers: Dict[str, LayerTerm] = {}
    elements: Dict[str, float] = {}
    for layer in supernet.layers:
        weight, places = supernet.weights[layer.weight], positions.get(layer.name, 1)
        kind = f"{'×'.join(map(str, weight.shape))} at {places}"
        layers[layer.name] = LayerTerm(layer.name, layer.groups, kind, float(weight.size) * places)
        elements[layer.name] = float(layer.out_channels) * places
    pairs: List[PairOf] = []
    for names in runs:
        for one, other in zip(names, names[1:]):
            first, second = sorted((one, other), key=order.__getitem__)
            kind = f"{layers[first].kind}, {layers[second].kind}"
            pairs.append(PairOf(first, second, kind, elements[one]))
    pairs.sort(key=lambda pair: (order[pair.first], order[pair.second]))
    return Terms(tuple(layers.values()), tuple(pairs), (*runs, *((name,) for name in alone)))
