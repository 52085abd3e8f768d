"""Where channel shuffles go: between two layers whose values nothing else sees, at most at every other such place."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from wenet_trainer.convert.choose import is_grouped
from wenet_trainer.convert.flow import Flow
from wenet_trainer.convert.parts import has_hooks
from wenet_trainer.convert.report import Note
from wenet_trainer.layers import MAX_GROUPS
from wenet_trainer.norms import BatchNorm


@dataclass(frozen=True)
class Place:
    """A shuffle between two layers.

    Attributes:
        layer: the weight-enabled one before it.
        norms: the switched norms between it and the shuffle, whose numbers belong to the layer's channels.
        reader: the layer behind it, weight-enabled or in fixed groups.
    """

    layer: str
    norms: tuple[str, ...]
    reader: str


def place_shuffles(
    flows: tuple[Flow, ...], layers: Mapping[str, nn.Conv2d], norms: Mapping[str, str]
) -> tuple[tuple[Place, ...], list[Note]]:
    """The places, in the order of the layers (that of the first flow), and where a shuffle would be but for a reason.

    There is none where any flow sums, joins or otherwise reads the values: a permutation would then be seen.
    """
    places: list[Place] = []
    notes: list[Note] = []
    for name, layer in layers.items():
        found = {_place(flow, name, layers, norms) for flow in flows}
        place = found.pop() if len(found) == 1 else None
        readers = {place.reader for place in places}
        if place is None or any(_reads_shuffled(flow, name, layers, readers) for flow in flows):
            continue
        reason = _reason(layer, place.reader, flows)
        if reason is None:
            places.append(place)
        else:
            notes.append(Note(name, f"no shuffle after it: {reason}"))
    return tuple(places), notes


def _place(flow: Flow, layer: str, layers: Mapping[str, nn.Conv2d], norms: Mapping[str, str]) -> Place | None:
    (node,) = flow.calls(layer)
    between: list[str] = []
    while True:
        readers = flow.readers(node)
        if len(readers) != 1 or flow.sources(readers[0]) != [node]:
            return None
        (node,) = readers
        name = str(node.target)
        if node.op == "call_module" and name in layers:
            return Place(layer, tuple(between), name)
        if is_grouped(flow.module(node)):
            leads_on = any(one.target in layers for one in flow.behind(node, lambda one: _carries(flow, one, layers)))
            return Place(layer, tuple(between), name) if leads_on else None
        if not flow.channelwise(node):
            return None
        if isinstance(flow.module(node), BatchNorm):
            if norms.get(name) != layer:  # its numbers could not be moved with the layer's
                return None
            between.append(name)


def _reads_shuffled(flow: Flow, layer: str, layers: Mapping[str, nn.Conv2d], readers: set[str]) -> bool:
    """Whether the layer's input is shuffled already, by itself or before a convolution in fixed groups."""
    (call,) = flow.calls(layer)
    before = flow.before(call, lambda node: _carries(flow, node, layers))
    return layer in readers or any(node.target in readers and node.target not in layers for node in before)


def _carries(flow: Flow, node: fx.Node, layers: Mapping[str, nn.Conv2d]) -> bool:
    """Whether an order of channels passes through: no dense layer, no sum."""
    if node.target in layers:
        return False
    return flow.channelwise(node) or flow.scales(node) or is_grouped(flow.module(node))


def _reason(layer: nn.Conv2d, reader: str, flows: tuple[Flow, ...]) -> str | None:
    """Why a place gets no shuffle; None: it gets one."""
    channels = layer.out_channels
    if channels % MAX_GROUPS:
        return f"{channels} channels are not divisible by {MAX_GROUPS}"
    if channels == MAX_GROUPS:
        return f"{channels} channels in {MAX_GROUPS} groups would stay in their order"
    if any(len(flow.calls(reader)) > 1 or reader in flow.hidden for flow in flows):
        return f"'{reader}' behind it is used more than once in the forward"
    module = flows[0].module(flows[0].calls(reader)[0])
    if type(module) is not nn.Conv2d or has_hooks(module):
        return f"'{reader}' behind it is no plain Conv2d"
    return None
