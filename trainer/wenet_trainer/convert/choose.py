"""Which convolutions become weight-enabled and which batch norms they switch; what is refused or left, and why."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from wenet_trainer.convert.flow import Flow
from wenet_trainer.convert.parts import has_hooks, own_activation
from wenet_trainer.convert.report import Note
from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import ChannelShuffle, WeightEnabled, allowed_groups
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm

NAMED = 5


def refuse(model: nn.Module) -> None:
    """Refuse what no trace is needed to refuse.

    Raises:
        NetworkError: the model is a supernet already, quantized, or has parameters without a shape.
    """
    for name, module in model.named_modules():
        if isinstance(module, WeightEnabled | SwitchableBatchNorm | ChannelShuffle):
            raise NetworkError(f"'{name}' is a {type(module).__name__}: this is a supernet already, use it as it is")
        if re.match(r"torch\.(ao\.)?nn\.(\w+\.)*quantized\b", type(module).__module__):
            raise NetworkError(f"'{name}' is quantized ({type(module).__name__}): convert the network it was made from")
        if any(isinstance(value, UninitializedParameter) for value in module.parameters(recurse=False)):
            raise NetworkError(
                f"'{name}' is a {type(module).__name__} without a shape yet: run the model on a batch, then convert it"
            )


def refuse_norms(model: nn.Module, flows: Iterable[Flow]) -> None:
    """Refuse batch norms that the network could be trained with, but never exported.

    Raises:
        NetworkError: a batch norm is called twice, or lacks affine parameters or running statistics.
    """
    for name, module in model.named_modules():
        if not isinstance(module, BatchNorm):
            continue
        if any(len(flow.calls(name)) > 1 for flow in flows):
            raise NetworkError(
                f"batch norm '{name}' is used more than once in the forward, on values with statistics of their own: "
                "give every place a batch norm of its own"
            )
        if module.weight is None or module.bias is None:
            raise NetworkError(f"batch norm '{name}' has no weight and bias: build it with affine=True")
        if module.running_mean is None:
            raise NetworkError(
                f"batch norm '{name}' keeps no running statistics: build it with track_running_stats=True"
            )


def choose_layers(
    model: nn.Module, flows: tuple[Flow, ...], max_groups: int
) -> tuple[dict[str, nn.Conv2d], list[Note]]:
    """The convolutions that become weight-enabled, in the order of the first flow, and why others do not.

    Raises:
        NetworkError: there are none.
    """
    owners = _owners(model)
    chosen: dict[str, nn.Conv2d] = {}
    notes = [
        Note(name, f"left alone with all that is in it, because it cannot be traced ({reason})")
        for name, reason in _untraced(flows).items()
    ]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            head = any(_is_head(flow, name) for flow in flows)
            notes.append(Note(name, "head" if head else "dense layer: only convolutions are converted"))
        if not isinstance(module, _ConvNd) or any(name.startswith(f"{place}.") for place in _untraced(flows)):
            continue
        reason = _reason(name, module, flows, owners, max_groups)
        if reason is None:
            assert isinstance(module, nn.Conv2d)
            chosen[name] = module
        else:
            notes.append(Note(name, reason))
    notes += _functional(flows)
    if not chosen:
        found = "; ".join(str(note) for note in notes[:NAMED]) or "it has none"
        more = f"; and {len(notes) - NAMED} more" if len(notes) > NAMED else ""
        raise NetworkError(f"no convolution of {type(model).__name__} can be weight-enabled: {found}{more}")
    order = {str(node.target): place for place, node in enumerate(flows[0].nodes) if node.op == "call_module"}
    return {name: chosen[name] for name in sorted(chosen, key=order.__getitem__)}, notes


def choose_norms(
    model: nn.Module, flows: tuple[Flow, ...], layers: Mapping[str, nn.Conv2d]
) -> tuple[dict[str, str], list[Note]]:
    """Batch norm → the weight-enabled layer that feeds it, and what else there is to say about norms.

    A norm is fed by a layer if nothing but channelwise operations, other norms and convolutions in fixed
    groups lies between them: then the layer's pattern decides which statistics the norm meets.
    """
    owners = _owners(model)
    switched: dict[str, str] = {}
    notes: list[Note] = []
    for name, module in model.named_modules():
        if not isinstance(module, BatchNorm):
            continue
        feeders = {_feeder(flow, call, layers) for flow in flows for call in flow.calls(name)}
        feeder = feeders.pop() if len(feeders) == 1 else None
        if feeder is None or any(name in flow.hidden for flow in flows):
            continue
        reason = _norm_reason(name, module, flows, owners)
        if reason is None:
            switched[name] = feeder
        else:
            notes.append(Note(name, f"stays one fixed norm: {reason}"))
    normed = set(switched.values())
    notes += [
        Note(name, "weight-enabled without a switchable batch norm: none follows it")
        for name in layers
        if name not in normed
    ]
    return switched, notes


def _reason(
    name: str, module: _ConvNd, flows: tuple[Flow, ...], owners: Mapping[int, int], max_groups: int
) -> str | None:
    """Why a convolution is left as it is; None: it becomes weight-enabled."""
    calls = [len(flow.calls(name)) for flow in flows]
    common = allowed_groups(module.in_channels, module.out_channels, max_groups)
    if is_parametrized(module):
        return "its weight is computed from others (parametrized)"
    if type(module) is not nn.Conv2d:
        return f"a {type(module).__name__}, not torch's own Conv2d"
    if max(calls) > 1:
        return f"used {max(calls)} times in the forward"
    hidden = next((flow.hidden[name] for flow in flows if name in flow.hidden), None)
    if hidden is not None:
        return f"used inside '{hidden}', which cannot be traced"
    if min(calls) == 0:
        return "not used in every forward, of training and of evaluation"
    if _shares(module, owners):
        return "shares its parameters with another module"
    if any(flow.reads_numbers(name) for flow in flows):
        return "its weight is also read outside of it"
    if module.groups == module.in_channels and module.groups > 1:
        return "depthwise"
    if module.groups > 1:
        return f"already in {module.groups} groups"
    if module.padding_mode != "zeros":
        return f"pads with '{module.padding_mode}' instead of zeros"
    if has_hooks(module):
        return "has hooks, or a method set on the object"
    if any(_is_head(flow, name) for flow in flows):
        return "head"
    if any(flow.one_position(call) for flow in flows for call in flow.calls(name)):
        return "works on one position per image, as in squeeze-and-excite: nothing to save"
    if len(common) == 1:
        return f"{module.in_channels} input and {module.out_channels} output channels allow only 1 group"
    return None


def _norm_reason(name: str, module: BatchNorm, flows: tuple[Flow, ...], owners: Mapping[int, int]) -> str | None:
    """Why a norm that a layer feeds stays one norm; None: it is switched."""
    if has_hooks(module):
        return "it has hooks, or a method set on the object"
    if type(module) is not nn.BatchNorm2d and own_activation(module) is None:
        return f"its class {type(module).__name__} is not torch's own"
    if _shares(module, owners):
        return "it shares its parameters or statistics with another module"
    if any(flow.reads_numbers(name) for flow in flows):
        return "its numbers are also read outside of it"
    return None


def _owners(model: nn.Module) -> Counter[int]:
    """How many modules have a tensor, by its id."""
    return Counter(id(value) for module in model.modules() for value in _tensors(module))


def _shares(module: nn.Module, owners: Mapping[int, int]) -> bool:
    return any(owners[id(value)] > 1 for value in _tensors(module))


def _tensors(module: nn.Module) -> tuple[Tensor, ...]:
    return (*module.parameters(recurse=False), *module.buffers(recurse=False))


def _is_head(flow: Flow, name: str) -> bool:
    """Whether nothing with numbers of its own lies between a layer and the network's output."""
    (output,) = (node for node in flow.nodes if node.op == "output")
    before = flow.before(output, lambda node: not _has_numbers(flow.module(node)))
    return any(node in flow.calls(name) for node in before)


def _has_numbers(module: nn.Module | None) -> bool:
    return module is not None and any(value.numel() > 1 for value in module.parameters())


def is_grouped(module: nn.Module | None) -> bool:
    """Whether it is a convolution in fixed groups, depthwise or wider."""
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _feeder(flow: Flow, norm: fx.Node, layers: Mapping[str, nn.Conv2d]) -> str | None:
    def passes(node: fx.Node) -> bool:
        module = flow.module(node)
        single = len(flow.sources(node)) == 1
        return single and (flow.channelwise(node) or isinstance(module, BatchNorm) or is_grouped(module))

    last = norm
    for node in flow.before(norm, passes):  # a single line, because only what has one source passes
        last = node
    return str(last.target) if last.op == "call_module" and last.target in layers else None


def _untraced(flows: Iterable[Flow]) -> dict[str, str]:
    return {name: reason for flow in flows for name, reason in flow.untraced.items()}


def _functional(flows: Iterable[Flow]) -> list[Note]:
    """Convolutions that are function calls: there is no module to put another in the place of."""
    found: dict[str, Note] = {}
    for node in (node for flow in flows for node in flow.nodes if node.op == "call_function"):
        kind = getattr(node.target, "__name__", "")
        if kind in ("conv2d", "conv_transpose2d"):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            where = stack[-1][0] if stack else ""
            found.setdefault(node.name, Note(where or "forward", f"calls {kind} as a function: make it a module"))
    return list(found.values())
