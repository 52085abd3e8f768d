"""The conversion itself: read the forward, choose layers and places, put the new modules in, check the result."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from wenet_trainer.convert.choose import choose_layers, choose_norms, refuse, refuse_norms
from wenet_trainer.convert.flow import Flow
from wenet_trainer.convert.parts import (
    ShuffledConv2d,
    ShuffledGroupedConv2d,
    SwitchableBatchNormAct2d,
    own_activation,
)
from wenet_trainer.convert.place import Place, place_shuffles
from wenet_trainer.convert.report import Conversion
from wenet_trainer.convert.tracing import Trace, trace
from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS, WeightEnabled, WeightEnabledConv2d, shuffle_indices
from wenet_trainer.models.pretrained import start_patterns
from wenet_trainer.norms import SwitchableBatchNorm, SwitchableBatchNorm2d

Made = TypeVar("Made", bound=nn.Module)
NEW = (WeightEnabledConv2d, SwitchableBatchNorm)
NUMBERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def convert(model: nn.Module, *, shuffle: bool = True, max_groups: int = MAX_GROUPS) -> Conversion:
    """A supernet that computes, with every layer at full width, exactly what the model computes.

    Convolutions become weight-enabled and the batch norms that they feed switchable. The supernet is a copy
    of the model with these modules in the place of the plain ones, so its forward, its other attributes and
    its tensors' names stay; the patterns' norms are added and start as copies. Shuffles stand in the layers
    that read them. The rows of the layer before a shuffle are stored in the order that the shuffle undoes.

    Equal is what the forward returns when called with its input alone. Other methods, other arguments and values
    stored in attributes may hand out what lies before a shuffle, with its channels permuted: then use `shuffle=False`.

    The same model gives the same supernet: build, convert, then load its state dict.

    Args:
        model: a CNN whose forward torch.fx can trace in both modes; it is left as it is.
        shuffle: off places no channel shuffles (paper, Table II, "without shuffling").
        max_groups: a layer's highest pattern; shuffles have 16 groups all the same.

    Raises:
        NetworkError: the model cannot be traced, has nothing to convert, or could not be exported later.
    """
    refuse(model)
    traces = tuple(trace(model, training=training) for training in (False, True))
    flows = tuple(Flow(one) for one in traces)
    refuse_norms(model, flows)
    layers, notes = choose_layers(model, flows, max_groups)
    norms, norm_notes = choose_norms(model, flows, layers)
    places, place_notes = place_shuffles(flows, layers, norms) if shuffle else ((), [])
    net = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):  # new layers draw numbers, which are thrown away
        _put_in(net, tuple(layers), norms, places, max_groups)
    _check(net, traces, (*layers, *norms))
    return Conversion(
        net, tuple(layers), norms, {one.layer: one.reader for one in places}, (*notes, *norm_notes, *place_notes)
    )


def _put_in(
    net: nn.Module, layers: tuple[str, ...], norms: Mapping[str, str], places: tuple[Place, ...], max_groups: int
) -> None:
    """Replace the modules of the copied network."""
    readers = {place.reader for place in places}
    old = dict(net.named_modules())
    new: dict[str, nn.Module] = {}
    switching: dict[str, WeightEnabledConv2d] = {}
    for name in layers:
        conv = old[name]
        assert isinstance(conv, nn.Conv2d)
        new[name] = switching[name] = _weight_enabled(conv, max_groups, shuffled=name in readers)
    for name in readers - set(layers):
        conv = old[name]
        assert isinstance(conv, nn.Conv2d)
        new[name] = _shuffled_grouped(conv)
    switches = {name: _switchable(old[name], switching[layer]) for name, layer in norms.items()}
    for name, module in (*new.items(), *switches.items()):
        module.train(old[name].training)
        _replace(net, old[name], module)
    for place in places:
        for name in (place.layer, *place.norms):
            _store_shuffled(new[name] if name in new else switches[name])
    for switch in switches.values():
        start_patterns(switch)


def _weight_enabled(conv: nn.Conv2d, max_groups: int, *, shuffled: bool) -> WeightEnabledConv2d:
    made = (ShuffledConv2d if shuffled else WeightEnabledConv2d)(
        conv.in_channels,
        conv.out_channels,
        _pair(conv.kernel_size),
        _pair(conv.stride),
        _padding(conv),
        _pair(conv.dilation),
        bias=conv.bias is not None,
        max_groups=max_groups,
    )
    return _take_numbers(made, conv)


def _shuffled_grouped(conv: nn.Conv2d) -> ShuffledGroupedConv2d:
    made = ShuffledGroupedConv2d(
        conv.in_channels,
        conv.out_channels,
        _pair(conv.kernel_size),
        _pair(conv.stride),
        _padding(conv),
        _pair(conv.dilation),
        conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
    )
    return _take_numbers(made, conv)


def _switchable(norm: nn.Module, layer: WeightEnabled) -> SwitchableBatchNorm:
    assert isinstance(norm, nn.BatchNorm2d)
    inner = own_activation(norm)
    made: SwitchableBatchNorm
    if inner is None:
        made = SwitchableBatchNorm2d(norm.num_features, fed_by=layer, eps=norm.eps)
    else:
        drop, act = inner
        made = SwitchableBatchNormAct2d(norm.num_features, fed_by=layer, drop=drop, act=act, eps=norm.eps)
    _take_numbers(made, norm)
    for _, pattern in made.norms():
        pattern.momentum = norm.momentum  # may be None: a cumulative average
        for name, parameter in pattern.named_parameters(recurse=False):
            parameter.requires_grad_(norm.get_parameter(name).requires_grad)
    return made


def _take_numbers(made: Made, old: nn.Module) -> Made:
    """The old module's own tensors, not copies, on its device and in its type."""
    made.to(old.get_parameter("weight"))
    for name in NUMBERS:
        if getattr(old, name, None) is not None:
            setattr(made, name, getattr(old, name))
    return made


def _replace(net: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in wherever the network holds the old one: it may have several names."""
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)


def _store_shuffled(module: nn.Module) -> None:
    """Store the numbers of every output channel where the shuffle behind looks for them."""
    order = shuffle_indices(len(module.get_parameter("weight")), MAX_GROUPS)
    with torch.no_grad():
        for name in NUMBERS:
            tensor = getattr(module, name, None)
            if tensor is not None and tensor.dim():
                tensor[order.to(tensor.device)] = tensor.clone()


def _check(net: nn.Module, before: tuple[Trace, ...], names: tuple[str, ...]) -> None:
    """See that the converted forward calls the new modules, in the same order as before.

    Raises:
        NetworkError: it does not; it knows a layer by another way than the attribute that was replaced.
    """
    wrong = NetworkError(
        f"the forward of {type(net).__name__} reaches its layers by another way than their attributes, so they "
        "cannot be replaced: keep layers in attributes, nn.ModuleList or nn.ModuleDict, not also in plain lists"
    )
    for training, expected in zip((False, True), before, strict=True):
        try:
            after = trace(net, training=training)
        except NetworkError as error:
            raise wrong from error
        same = after.calls() == expected.calls() and after.untraced.keys() == expected.untraced.keys()
        if not same or any(not isinstance(after.modules[name], NEW) for name in names):
            raise wrong


def _padding(conv: nn.Conv2d) -> tuple[int, int] | str:
    """In numbers where both sides get the same: ONNX Runtime computes no dilated convolution that pads by name."""
    if not isinstance(conv.padding, str):
        return _pair(conv.padding)
    if conv.padding == "valid":
        return 0, 0
    height, width = (rate * (size - 1) for rate, size in zip(conv.dilation, conv.kernel_size, strict=True))
    return "same" if height % 2 or width % 2 else (height // 2, width // 2)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    height, width = value
    return height, width
