"""A traced forward, asked how values get from one layer to the next, and what happens to their channels."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx, nn

from wenet_trainer.convert.parts import has_hooks, own_activation
from wenet_trainer.convert.tracing import Trace
from wenet_trainer.convert.trial import permutable, pools_whole_map, trial_copy
from wenet_trainer.norms import BatchNorm

SHAPE_METHODS = ("size", "dim", "numel", "element_size", "get_device")
SHAPE_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad")
SOURCES_OF_OPERATIONS = ("torch", "_operator")
UNKNOWN_CHANNELS = 48


class Flow:
    """One traced forward.

    An operation is *channelwise* if permuting the channels before or after it gives the same: activations,
    dropout, pooling. That is found by trying it in the forward's own mode, not by a list of names, so a user's own
    activation counts too.

    Attributes:
        nodes: every call, in order.
        untraced: modules whose inside could not be followed → why.
        hidden: what is inside of them → the one it is in; it may be called there as well.
    """

    def __init__(self, trace: Trace) -> None:
        self.nodes: tuple[fx.Node, ...] = tuple(trace.graph.nodes)
        self.untraced = trace.untraced
        holder = {one: place for place in trace.untraced for one in trace.modules[place].modules()}
        self.hidden = {name: holder[one] for name, one in trace.modules.items() if one in holder}
        self._modules = trace.modules
        self._training = trace.training
        self._buffers_read = trace.buffers_read
        self._channels: dict[fx.Node, int] = {}
        self._channelwise: set[fx.Node] = set()
        self._one_position: set[fx.Node] = set()
        self._calls: dict[str, list[fx.Node]] = {}
        for node in self.nodes:
            if node.op == "call_module":
                self._calls.setdefault(str(node.target), []).append(node)
            self._study(node)

    def calls(self, name: str) -> list[fx.Node]:
        """Where a module is called, in order; empty if it is not."""
        return self._calls.get(name, [])

    def reads_numbers(self, name: str) -> bool:
        """Whether the forward itself reads a module's weight, or another tensor of it, beside calling the module."""
        return name in self._buffers_read or any(
            node.op == "get_attr" and str(node.target).rpartition(".")[0] == name and self.readers(node)
            for node in self.nodes
        )

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that this node calls."""
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """The nodes it reads, each as often as it does."""
        found: list[fx.Node] = []
        fx.map_arg((node.args, node.kwargs), found.append)
        return found

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that read its values; asking for its shape is no reading."""
        return [user for user in node.users if not _asks_shape(user)]

    def channelwise(self, node: fx.Node) -> bool:
        """Whether it keeps every channel for itself: neither a layer nor a sum, but what may stand between layers."""
        return node in self._channelwise

    def one_position(self, node: fx.Node) -> bool:
        """Whether the values it reads are one number per channel, as in squeeze-and-excite."""
        return any(source in self._one_position for source in self.sources(node))

    def scales(self, node: fx.Node) -> bool:
        """Whether it multiplies two values."""
        target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        return node.op in ("call_function", "call_method") and target in ("mul", "imul", "mul_", "multiply")

    def before(self, node: fx.Node, passes: Callable[[fx.Node], bool]) -> Iterator[fx.Node]:
        """Every node whose values reach this one through nothing but nodes that pass; nearest first."""
        yield from _walk(node, self.sources, passes)

    def behind(self, node: fx.Node, passes: Callable[[fx.Node], bool]) -> Iterator[fx.Node]:
        """Every node that this one's values reach through nothing but nodes that pass; nearest first."""
        yield from _walk(node, self.readers, passes)

    def _study(self, node: fx.Node) -> None:
        module, sources = self.module(node), self.sources(node)
        pooled = any(source in self._one_position for source in sources)
        if isinstance(module, nn.Conv2d):
            self._channels[node] = module.out_channels
        elif isinstance(module, BatchNorm):
            self._channels[node] = module.num_features
            if self._norm_is_channelwise(module):
                self._channelwise.add(node)
        elif len(sources) == 1:
            self._study_operation(node, self._channels.get(sources[0]))
            pooled = (pooled and node in self._channelwise) or node in self._one_position
        elif self.scales(node):
            self._channels[node] = max(self._channels.get(one, 0) for one in sources)
            pooled = False
        else:
            pooled = False
        if pooled:
            self._one_position.add(node)

    def _study_operation(self, node: fx.Node, known_channels: int | None) -> None:
        """Try an operation with a single input: are its channels apart, and does it pool a whole map?"""
        channels = known_channels or UNKNOWN_CHANNELS
        if _is_dropout(node):  # random in training, so it cannot be tried
            self._channelwise.add(node)
            self._channels[node] = channels
            return
        run = self._runner(node)
        found = None if run is None else permutable(run, channels)
        if found is None:
            return
        self._channelwise.add(node)
        if known_channels is not None:
            self._channels[node] = channels
        assert run is not None
        if found.shape[2:] == (1, 1) and pools_whole_map(run):
            self._one_position.add(node)

    def _runner(self, node: fx.Node) -> Callable[[Tensor], Any] | None:
        """The operation as a function of its one input; None where running it here makes no sense."""
        module = self.module(node)
        if module is not None:
            return self._module_runner(node, module)
        if node.op == "call_function":
            room = getattr(node.target, "__module__", None) or "torch"
            if room.split(".")[0] not in SOURCES_OF_OPERATIONS:
                return None
        elif node.op != "call_method":
            return None

        def run(x: Tensor) -> Any:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: x)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)

        return run

    def _module_runner(self, node: fx.Node, module: nn.Module) -> Callable[[Tensor], Any] | None:
        if str(node.target) in self.untraced or has_hooks(module):
            return None
        numbers = (*module.parameters(), *module.buffers())
        if any(number.numel() > 1 or number.is_meta for number in numbers):
            return None  # a number per channel: it belongs to the channels in their order
        return trial_copy(module, training=self._training)

    def _norm_is_channelwise(self, norm: BatchNorm) -> bool:
        """Its numbers are moved with the channels; what else is in it must not care."""
        if has_hooks(norm):
            return False
        inner = own_activation(norm)
        if inner is None:
            return type(norm) is nn.BatchNorm2d
        copies = [trial_copy(one, training=self._training) for one in inner]
        if any(number.numel() > 1 for one in copies for number in (*one.parameters(), *one.buffers())):
            return False
        return permutable(nn.Sequential(*copies), norm.num_features) is not None


def _walk(
    node: fx.Node, step: Callable[[fx.Node], list[fx.Node]], passes: Callable[[fx.Node], bool]
) -> Iterator[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = step(node)
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.add(one)
        yield one
        if passes(one):
            waiting += step(one)


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        asks_type = node.target == "type" and len(node.args) == 1 and not node.kwargs  # with one it converts
        return node.target in SHAPE_METHODS or asks_type
    return node.op == "call_function" and node.target is getattr and node.args[1] in SHAPE_ATTRIBUTES


def _is_dropout(node: fx.Node) -> bool:
    return node.op == "call_function" and "dropout" in getattr(node.target, "__name__", "")
