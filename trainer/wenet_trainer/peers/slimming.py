"""Turns a network into a slimmable one: every layer with weights is replaced, and shuffles by nothing."""

from collections.abc import Sequence
from copy import deepcopy

from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d, WeightEnabledLinear
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm, SwitchableBatchNorm1d, SwitchableBatchNorm2d
from wenet_trainer.peers.slimmable_layers import SlimmableConv2d, SlimmableLinear, kept_channels
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm

# Exact types, because a subclass may compute something else than what replaces it.
LAYERS = (nn.Conv2d, WeightEnabledConv2d, nn.Linear, WeightEnabledLinear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, SwitchableBatchNorm1d, SwitchableBatchNorm2d)

Layer = nn.Conv2d | nn.Linear


def slimmed(net: nn.Module, widths: Sequence[int], divisor: int, *, shared_affine: bool = False) -> nn.Module:
    """A copy of the network with slimmable layers, a level for each width.

    The first layer takes the whole image and the last one that is defined gives every logit; all other
    channel counts follow one rule (`kept_channels`), so what a residual addition joins fits at every width.

    Args:
        net: a plain network or a supernet, with its weights.
        widths: sixteenths of each level.
        divisor: see `kept_channels`.
        shared_affine: see `SlimmableBatchNorm`.

    Raises:
        NetworkError: a layer cannot be slimmed; the message names it.
    """
    root = nn.ModuleDict({"net": deepcopy(net)})  # so that a network that is one layer can be replaced too
    layers = _layers(root)
    if not layers:
        raise NetworkError("the network has no convolution and no dense layer, so nothing can be slimmed")
    patterns = _patterns(root)
    made: dict[nn.Module, nn.Module] = {}
    for path, module in list(root.named_modules(remove_duplicate=False)):
        if module in patterns:
            continue
        if module not in made:
            try:
                made[module] = _slim(module, layers[0], layers[-1], widths, divisor, shared_affine=shared_affine)
            except NetworkError as error:
                raise NetworkError(f"'{path.removeprefix('net.')}': {error}") from None
        if made[module] is not module:
            parent, _, name = path.rpartition(".")
            setattr(root.get_submodule(parent), name, made[module])
    return root["net"]


def distinct_widths(net: nn.Module, widths: Sequence[int], divisor: int) -> tuple[int, ...]:
    """The widths without those that keep as many channels of every layer as one before them."""
    outputs = sorted({_outputs(layer) for layer in _layers(net)[:-1]})
    first: dict[tuple[int, ...], int] = {}
    for width in widths:
        first.setdefault(tuple(kept_channels(count, width, divisor) for count in outputs), width)
    return tuple(first.values())


def _slim(
    module: nn.Module, first: Layer, last: Layer, widths: Sequence[int], divisor: int, *, shared_affine: bool
) -> nn.Module:
    """What stands in the module's place: itself where it has no weights of its own."""

    def kept(channels: int, whole: bool = False) -> list[int]:
        return [channels if whole else kept_channels(channels, width, divisor) for width in widths]

    if type(module) in LAYERS and isinstance(module, nn.Conv2d):
        return SlimmableConv2d(
            module, kept(module.in_channels, module is first), kept(module.out_channels, module is last)
        )
    if type(module) in LAYERS and isinstance(module, nn.Linear):
        return SlimmableLinear(
            module, kept(module.in_features, module is first), kept(module.out_features, module is last)
        )
    if type(module) in NORMS and isinstance(module, BatchNorm):
        return SlimmableBatchNorm(module, kept(module.num_features), shared_affine=shared_affine)
    if isinstance(module, ChannelShuffle):
        return nn.Identity()
    if any(True for _ in module.parameters(recurse=False)):
        raise NetworkError(
            f"a {type(module).__name__} cannot be slimmed: known are Conv2d, Linear, BatchNorm1d, BatchNorm2d and "
            "their weight-enabled kinds"
        )
    return module


def _layers(net: nn.Module) -> list[Layer]:
    return [module for module in net.modules() if type(module) in LAYERS and isinstance(module, Layer)]


def _patterns(net: nn.Module) -> set[nn.Module]:
    switches = (module for module in net.modules() if isinstance(module, SwitchableBatchNorm))
    return {norm for switch in switches for norm in switch.patterns.values()}


def _outputs(layer: Layer) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
