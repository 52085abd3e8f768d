"""The forward of a foreign network as a torch.fx graph: which module is called on what."""

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from wenet_trainer.errors import NetworkError
from wenet_trainer.norms import BatchNorm

LAYERS = (_ConvNd, nn.Linear, BatchNorm)
# What foreign code raises when it meets a value that is not there yet, or an input it does not expect.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,  # NotImplementedError is one
    TypeError,
    ValueError,  # fx.proxy.TraceError is one
)


@dataclass(frozen=True)
class Trace:
    """One mode's forward.

    Attributes:
        graph: every call in order; a layer is one `call_module`.
        modules: the traced copy's modules by name.
        untraced: sub-modules whose inside torch.fx could not follow → why; each is one call.
        buffers_read: modules whose buffers the forward reads as attributes, of which the graph has no node.
        training: which mode it is.
    """

    graph: fx.Graph
    modules: Mapping[str, nn.Module]
    untraced: Mapping[str, str]
    buffers_read: frozenset[str]
    training: bool

    def calls(self) -> list[str]:
        """The names of the modules that are called, in order."""
        return [str(node.target) for node in self.graph.nodes if node.op == "call_module"]


def trace(model: nn.Module, *, training: bool) -> Trace:
    """Trace a copy of the model in training or evaluation mode.

    Arguments of the forward that have defaults take them. A sub-module that cannot be traced becomes a single
    call, so that the rest of the network can still be read.

    Raises:
        NetworkError: the model cannot be copied, or its own forward cannot be traced.
    """
    # The copy is for what a forward may write into the model's attributes; weights are many and only read.
    shared = {id(parameter): parameter for parameter in model.parameters()}
    try:
        scratch = copy.deepcopy(model, shared).train(training)
    except (RuntimeError, TypeError) as error:
        raise NetworkError(f"{type(model).__name__} cannot be copied, which a conversion needs: {error}") from error
    untraced: dict[str, str] = {}
    while True:
        tracer = _LayerTracer(frozenset(untraced))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about defaults of the forward that it cannot compare
                graph = tracer.trace(scratch, _defaults(scratch))
        except FAILURES as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not tracer.inside:
                raise NetworkError(
                    f"the forward of {type(model).__name__} cannot be traced by torch.fx: {reason}. What it does must "
                    "not depend on its input's values or size: move such a decision out of it, or into a sub-module, "
                    "which is then left alone"
                ) from error
            untraced[tracer.inside[-1]] = reason
            continue
        modules = dict(scratch.named_modules())
        read = {name for name, one in modules.items() if tracer.buffers.intersection(map(id, one.buffers(False)))}
        return Trace(graph, modules, untraced, frozenset(read), training)


class _LayerTracer(fx.Tracer):
    """Looks into every module that holds layers; others are one call.

    Attributes:
        inside: the modules it is in, outermost first; after a failure, those it failed in.
        buffers: ids of the buffers that were read as attributes; read as a parameter is, they are in the graph.
    """

    def __init__(self, untraced: frozenset[str]) -> None:
        super().__init__()
        self.untraced = untraced
        self.inside: list[str] = []
        self.buffers: set[int] = set()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """As torch.fx does, remembering buffers: a forward may compute with them before any value of its own."""
        if isinstance(attr_val, Tensor) and not isinstance(attr_val, nn.Parameter):
            self.buffers.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is one call: a layer, something without layers, or something that failed before."""
        if module_qualified_name in self.untraced or isinstance(m, LAYERS):
            return True
        if super().is_leaf_module(m, module_qualified_name):
            return True
        # An activation written by the user is as good as torch's; one with weights may hold a hidden convolution.
        return not any(isinstance(child, LAYERS) or len(_sizes(child)) > 0 for child in m.modules())

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As torch.fx does, remembering where it is."""
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return super().call_module(m, forward, args, kwargs)
        self.inside.append(name)
        result = super().call_module(m, forward, args, kwargs)
        self.inside.pop()  # not in a finally: whoever catches the failure asks where it was
        return result


def _sizes(module: nn.Module) -> list[int]:
    """Sizes of a module's own parameters that are more than one number."""
    return [size for size in (parameter.numel() for parameter in module.parameters(recurse=False)) if size > 1]


def _defaults(model: nn.Module) -> dict[str, Any] | None:
    parameters = inspect.signature(model.forward).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty} or None
