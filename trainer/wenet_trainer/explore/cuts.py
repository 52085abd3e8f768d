"""Where a network's forward is cut so that configurations can share what lies before: one cut before each layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from wenet_trainer.convert.tracing import trace
from wenet_trainer.errors import NetworkError
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import fixed_norms, set_active, switchable_norms, weight_enabled

Values = dict[Any, Any]
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Segment:
    """A part of the forward that depends on nothing but the groups of its own layers and of those before it.

    Attributes:
        layers: the weight-enabled layers that run in it first.
        norms: names of the batch norms that run in it and in no other segment; a switchable one by its own name.
        run: takes the values that are alive before it and changes them to those alive behind it. The first
            segment is given the batch as `INPUT`; the last one leaves the answers as `OUTPUT`.
        bytes_alive: behind it, for each image.
    """

    layers: tuple[str, ...]
    norms: tuple[str, ...]
    run: Callable[[Values], None]
    bytes_alive: int = 0


@dataclass(frozen=True)
class Cuts:
    """A network's forward in segments, in the order in which they run.

    Attributes:
        segments: one if nothing can be shared.
        why_whole: why nothing can be shared; None where it can.
    """

    segments: tuple[Segment, ...]
    why_whole: str | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """Every weight-enabled layer, in execution order."""
        return tuple(name for segment in self.segments for name in segment.layers)


def cut(net: nn.Module, images: Tensor) -> Cuts:
    """Cut a supernet's forward before every weight-enabled layer where that is sound.

    It is traced once for several configurations. No cut is made where a value that was alive at it is changed in
    place later, between two runs of one batch norm, or between a norm and the layer that switches it. A forward
    that cannot be traced, that asks what is active, or that answers otherwise than its trace is left whole.

    Args:
        net: the supernet, in evaluation mode; the configuration that is active afterwards is undefined.
        images: (N, C, H, W) a few inputs on the network's device, on which traces are compared with the network.
    """
    try:
        return Cuts(_segments(net, images))
    except NetworkError as error:
        norms = (*switchable_norms(net), *fixed_norms(net))
        return Cuts((Segment(tuple(weight_enabled(net)), norms, _whole(net)),), str(error))


def _whole(net: nn.Module) -> Callable[[Values], None]:
    def run(values: Values) -> None:
        values[OUTPUT] = net(values.pop(INPUT))

    return run


def _segments(net: nn.Module, images: Tensor) -> tuple[Segment, ...]:
    space = SearchSpace.of(net)
    probes = (space.full(), space.smallest(), _mixed(space))
    program = _Program(net, _one_graph(net, probes))
    cuts = program.possible_cuts()
    for config in probes:
        set_active(net, config)
        cuts = program.unchanged(cuts, images)
    segments = program.segments(cuts)
    for config in probes:
        set_active(net, config)
        _compare(net, segments, images)
    return segments


def _mixed(space: SearchSpace) -> Mapping[str, int]:
    """A configuration that is uniform nowhere: neighbouring layers differ."""
    ends = (space.smallest(), space.full(), space.uniform(2))
    return {name: ends[index % len(ends)][name] for index, name in enumerate(space.allowed)}


def _one_graph(net: nn.Module, probes: Sequence[Mapping[str, int]]) -> fx.Graph:
    """The graph that all these configurations have. Raises `NetworkError` where there is none."""
    norms = {*switchable_norms(net), *fixed_norms(net)}
    traces = []
    for config in probes:
        set_active(net, config)
        traces.append(trace(net, training=False))
    if any(norms & one.buffers_read for one in traces):
        raise NetworkError("its forward reads a batch norm's statistics itself")
    if len({str(one.graph) for one in traces}) > 1:
        raise NetworkError("its forward takes another way for another configuration")
    return traces[0].graph


def _compare(net: nn.Module, segments: Sequence[Segment], images: Tensor) -> None:
    with torch.no_grad():
        values: Values = {INPUT: images.clone()}
        for segment in segments:
            segment.run(values)
        found, expected = values[OUTPUT], net(images.clone())
    if not isinstance(expected, Tensor) or not torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True):
        raise NetworkError("run in pieces it answers otherwise than as a whole")


class _Program:
    """A traced forward as numbered steps."""

    def __init__(self, net: nn.Module, graph: fx.Graph) -> None:
        self._net = net
        self._nodes = tuple(graph.nodes)
        self._numbers = {node: number for number, node in enumerate(self._nodes)}
        self._modules = dict(net.named_modules())
        self._layers = self._calls({id(module): name for name, module in weight_enabled(net).items()})
        norms = {id(module): name for name, module in (*switchable_norms(net).items(), *fixed_norms(net).items())}
        self._norms = self._calls(norms)
        self._bytes_alive: dict[int, int] = {}
        # The last step that reads a value; one that none reads dies where it was made.
        self._last = {
            node: max((self._numbers[user] for user in node.users), default=number)
            for node, number in self._numbers.items()
        }

    def possible_cuts(self) -> tuple[int, ...]:
        """Numbers of the steps before which the forward may be cut, whatever the values are."""
        cuts = sorted({steps[0] for steps in self._layers.values() if steps})
        for start, end in self._bound_together():
            cuts = [step for step in cuts if not start < step <= end]
        return tuple(step for step in cuts if step > 0)

    def unchanged(self, cuts: Sequence[int], images: Tensor) -> tuple[int, ...]:
        """The cuts at which nothing is alive that is changed in place later, with the active configuration."""
        alive: dict[int, list[tuple[Tensor, int]]] = {}
        values: Values = {INPUT: images.clone()}
        with torch.no_grad():  # inference mode would not count changes; views count with what they view
            for start, end in self._between(cuts):
                self._run(start, end, values)
                alive[end] = [(one, one._version) for one in _tensors(values)]
        for step, tensors in alive.items():
            self._bytes_alive[step] = sum(one.numel() * one.element_size() for one, _ in tensors) // len(images)
        return tuple(step for step in cuts if all(one._version == count for one, count in alive[step]))

    def segments(self, cuts: Sequence[int]) -> tuple[Segment, ...]:
        """The forward between these cuts."""
        uncalled = tuple(name for name, steps in self._layers.items() if not steps)
        found = []
        for start, end in self._between(cuts):
            layers = [name for name, steps in self._layers.items() if steps and start <= steps[0] < end]
            layers.sort(key=lambda name: self._layers[name][0])
            norms = tuple(name for name, steps in self._norms.items() if steps and start <= steps[0] < end)
            # A layer that the graph does not show decides before everything, which is sound wherever it acts.
            layers = [*(uncalled if start == 0 else ()), *layers]
            found.append(Segment(tuple(layers), norms, self._part(start, end), self._bytes_alive[end]))
        return tuple(found)

    def _calls(self, wanted: Mapping[int, str]) -> dict[str, list[int]]:
        """The steps that call each of these modules, or one that holds it."""
        found: dict[str, list[int]] = {name: [] for name in wanted.values()}
        for node, number in self._numbers.items():
            if node.op == "call_module":
                for module in self._modules[str(node.target)].modules():
                    if id(module) in wanted:
                        found[wanted[id(module)]].append(number)
        return found

    def _bound_together(self) -> list[tuple[int, int]]:
        """Pairs of steps between which there must be no cut."""
        pairs = [(steps[0], steps[-1]) for steps in self._norms.values() if steps]
        for name, norm in switchable_norms(self._net).items():
            layer = next(one for one, module in weight_enabled(self._net).items() if module is norm.fed_by)
            if self._norms[name] and self._layers[layer]:
                pairs.append((self._norms[name][0], self._layers[layer][0]))
        return pairs

    def _between(self, cuts: Sequence[int]) -> list[tuple[int, int]]:
        edges = [0, *cuts, len(self._nodes)]
        return list(pairwise(edges))

    def _part(self, start: int, end: int) -> Callable[[Values], None]:
        return lambda values: self._run(start, end, values)

    def _run(self, start: int, end: int, values: Values) -> None:
        for number in range(start, end):
            node = self._nodes[number]
            found = self._step(node, values)
            for source in node.all_input_nodes:
                if self._last[source] == number:
                    values.pop(source, None)
            if self._last[node] > number or node.op == "output":
                values[OUTPUT if node.op == "output" else node] = found

    def _step(self, node: fx.Node, values: Values) -> Any:
        if node.op == "placeholder":
            return values.pop(INPUT) if INPUT in values else node.args[0]  # others have their defaults
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_module":
            return self._modules[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            return _attribute(self._net, str(node.target))
        if node.op == "output":
            return args[0]
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _attribute(net: nn.Module, path: str) -> Any:
    found: Any = net
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    return [one for part in parts for one in _tensors(part)] if isinstance(value, Mapping | list | tuple) else []
