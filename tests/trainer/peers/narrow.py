"""Plain references: truly narrow networks of `nn.Conv2d`, `nn.Linear` and plain batch norms, with sliced weights."""

from copy import deepcopy

import torch
from torch import nn

from wenet_trainer.layers import ChannelShuffle, WeightEnabledLinear
from wenet_trainer.models.efficientnet import MBConv
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm1d


class Mobile(nn.Module):
    """Squeeze-excite, depthwise convolutions and a shortcut between dense ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.features = nn.Sequential(MBConv(24, 40, 5, 2, 4, 0.0), MBConv(40, 40, 3, 1, 4, 0.0))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(40, 7))

    def forward(self, x):
        return self.classifier(self.pool(self.features(self.stem(x))).flatten(1))


class Dense(nn.Sequential):
    """Dense layers only: the images' pixels in, a plain and a weight-enabled hidden layer."""

    def __init__(self) -> None:
        second = WeightEnabledLinear(64, 96)
        super().__init__(
            nn.Flatten(),
            nn.Linear(1024, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            second,
            SwitchableBatchNorm1d(96, fed_by=second),
            nn.ReLU(),
            nn.Linear(96, 10),
        )


def enliven(net):
    """Random affine parameters and statistics in every batch norm, so that a mix-up shows."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm):
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    return net.eval()


def kept(channels, sixteenths, divisor):
    """The nearest multiple, found by looking at all of them."""
    multiples = list(range(divisor, channels + 1, divisor)) or [channels]
    if sixteenths == 16:
        return channels
    return min(reversed(multiples), key=lambda count: abs(count - channels * sixteenths / 16))


def narrow(net, slimmable, level, divisor, norms_of=None):
    """The original network with every layer really narrow, its numbers taken from the slimmable's state.

    `norms_of`: a level to take the batch norms' numbers from wrongly, for the negative control.
    """
    state, sixteenths = slimmable.state_dict(), slimmable.widths[level - 1]
    root = nn.ModuleDict({"net": deepcopy(net)})
    layers = [name for name, module in root.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name, module in list(root.named_modules()):
        new = None
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = state[f"{name}.weight"]
            out = len(weight) if name == layers[-1] else kept(len(weight), sixteenths, divisor)
            ins = weight.shape[1] if name == layers[0] else kept(weight.shape[1], sixteenths, divisor)
            bias = module.bias is not None
            if isinstance(module, nn.Linear):
                new = nn.Linear(ins, out, bias)
            elif module.groups > 1:
                new = nn.Conv2d(out, out, module.kernel_size, module.stride, module.padding, groups=out, bias=bias)
                ins = 1
            else:
                new = nn.Conv2d(ins, out, module.kernel_size, module.stride, module.padding, bias=bias)
            numbers = {"weight": weight[:out, :ins]} | ({"bias": state[f"{name}.bias"][:out]} if bias else {})
            new.load_state_dict(numbers)
        elif isinstance(module, BatchNorm) and ".patterns." not in name:
            kind = nn.BatchNorm1d if isinstance(module, nn.BatchNorm1d) else nn.BatchNorm2d
            new = kind(kept(module.num_features, sixteenths, divisor))
            # Level 1 has the γ and β that levels without their own share.
            parts = [f"{name}.widths.{source}." for source in (1, norms_of or level)]
            numbers = {key.removeprefix(p): value for p in parts for key, value in state.items() if key.startswith(p)}
            new.load_state_dict({k: v[: new.num_features] if v.dim() else v for k, v in numbers.items()})
        elif isinstance(module, ChannelShuffle):
            new = nn.Identity()
        if new is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(root.get_submodule(parent), attribute, new)
    return root["net"].eval()
