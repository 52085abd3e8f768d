"""What is left alone and what is refused, with the module's name and the reason."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.nn.quantized import Conv2d as QuantizedConv2d
from torch.nn.utils import parametrizations

from tests.trainer.convert.nets import Headed, Mobile, Odd, conv_bn, make
from wenet_trainer.convert import Note, convert
from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build


def notes(model):
    return {note.module: note.reason for note in convert(model).notes}


class Lines(nn.Module):
    """Modules one after the other, and a second way through some of them."""

    def __init__(self, *steps, again=()):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3)
        self.steps = nn.Sequential(*steps)
        self.good = nn.Sequential(*conv_bn(32, 32), nn.ReLU(), *conv_bn(32, 32))
        self.again = again
        self.last = nn.Linear(32, 5)

    def forward(self, x):
        x = self.steps(self.first(x))
        for place in self.again:
            x = self.steps[place](x)
        return self.last(self.good(x).mean((2, 3)))


def test_stems_heads_squeezes_and_fixed_groups_are_left_alone_each_with_its_reason():
    found = notes(make("mobile"))
    assert found["stem.0"] == "3 input and 32 output channels allow only 1 group"
    assert found["head"] == "head"
    assert found["body.0.depthwise.0"] == "depthwise"
    assert "one position per image" in found["body.1.squeeze.fc1"]
    assert "one position per image" in found["body.1.squeeze.fc2"]
    assert notes(make("resnext"))["body.0.conv2"] == "already in 8 groups"


def test_channels_that_sixteen_does_not_divide_or_equal_get_no_shuffle_and_it_is_said():
    found = notes(Odd())
    assert found["body.0"] == "no shuffle after it: 24 channels are not divisible by 16"
    assert found["body.3"] == "no shuffle after it: 16 channels in 16 groups would stay in their order"


def test_a_last_convolution_is_the_head_where_no_dense_layer_is():
    body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1))
    conversion = convert(nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert conversion.layers == ("2",)
    assert Note("4", "head") in conversion.notes


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (nn.ConvTranspose2d(32, 32, 2, 2), "a ConvTranspose2d, not torch's own Conv2d"),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"), "pads with 'reflect' instead of zeros"),
        (parametrizations.weight_norm(nn.Conv2d(32, 32, 1)), "its weight is computed from others (parametrized)"),
        (nn.Conv2d(32, 45, 1), "32 input and 45 output channels allow only 1 group"),
        (type("Mine", (nn.Conv2d,), {})(32, 32, 1), "a Mine, not torch's own Conv2d"),
    ],
)
def test_other_convolutions_are_left_alone(step, reason):
    back = nn.Conv2d(45, 32, 1) if getattr(step, "out_channels", 32) == 45 else nn.Identity()
    assert notes(Lines(step, back))["steps.0"] == reason


def test_a_hooked_convolution_is_left_alone():
    hooked = nn.Conv2d(32, 32, 1)
    hooked.register_forward_hook(lambda module, inputs, output: output * 2)
    model = Lines(hooked).eval()
    assert notes(model)["steps.0"] == "has hooks, or a method set on the object"
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.allclose(convert(model).net(pixels), model(pixels), atol=1e-5)


def test_a_convolution_that_is_used_twice_or_shares_its_weight_is_left_alone():
    assert notes(Lines(nn.Conv2d(32, 32, 1), again=(0,)))["steps.0"] == "used 2 times in the forward"
    first, second = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
    second.weight = first.weight
    found = notes(Lines(first, second))
    assert found["steps.0"] == found["steps.1"] == "shares its parameters with another module"


def test_a_convolution_that_only_training_uses_is_left_alone():
    class Auxiliary(Lines):
        def __init__(self):
            super().__init__()
            self.aux = nn.Conv2d(32, 32, 1)

        def forward(self, x):
            x = self.first(x)
            extra = self.aux(x).mean() if self.training else 0
            return self.last(self.good(x).mean((2, 3))) + extra

    assert notes(Auxiliary())["aux"] == "not used in every forward, of training and of evaluation"


def test_a_functional_convolution_is_named_and_left_alone():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32, 1, 1))

        def forward(self, x):
            return F.conv2d(x, self.weight)

    assert notes(Lines(Functional()))["steps.0"] == "calls conv2d as a function: make it a module"


def test_a_submodule_with_dynamic_control_flow_is_left_alone_whole():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 1)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    conversion = convert(Lines(Dynamic()))
    (note,) = (note for note in conversion.notes if note.module == "steps.0")
    assert note.reason.startswith("left alone with all that is in it, because it cannot be traced (")
    assert conversion.layers == ("good.0", "good.3")


def test_a_layer_that_is_also_called_where_the_trace_cannot_follow_is_left_alone():
    class Dynamic(nn.Module):
        def __init__(self, conv, norm):
            super().__init__()
            self.conv, self.norm = conv, norm

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    conv, norm = conv_bn(32, 32)
    found = notes(Lines(conv, norm, Dynamic(conv, norm)))
    assert found["steps.0"] == "used inside 'steps.2', which cannot be traced"
    first = nn.Conv2d(32, 32, 1)
    assert convert(Lines(first, norm, Dynamic(conv, norm))).norms.keys() == {"good.1", "good.4"}


def test_norms_that_are_not_torchs_own_stay_fixed():
    class Mine(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 2

    conversion = convert(Lines(nn.Conv2d(32, 32, 1), Mine(32)))
    assert Note("steps.1", "stays one fixed norm: its class Mine is not torch's own") in conversion.notes
    reason = "weight-enabled without a switchable batch norm: none follows it"
    assert Note("steps.0", reason) in conversion.notes
    assert "steps.1" not in conversion.norms


def test_dense_layers_that_are_no_head_stay_dense():
    model = nn.Sequential(*conv_bn(16, 16), nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    assert notes(model) == {"3": "dense layer: only convolutions are converted", "5": "head"}


def test_the_printed_conversion_says_how_much_was_done_and_every_reason():
    lines = str(convert(make("mobile"))).splitlines()
    assert lines[0] == "5 weight-enabled convolutions, 7 switchable batch norms, 2 channel shuffles"
    assert "  'head': head" in lines
    assert len(lines) == 1 + len(convert(make("mobile")).notes)


class Dynamic(Mobile):
    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else super().forward(-x)


class Listed(nn.Module):
    """Knows its layers by a plain list, too, and calls them there."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 5)
        self.order = [self.stem, self.conv]

    def forward(self, x):
        for layer in self.order:
            x = layer(x).relu()
        return self.head(x.mean((2, 3)))


def quantized():
    return nn.Sequential(QuantizedConv2d(16, 16, 1), nn.Flatten())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Dynamic, r"the forward of Dynamic cannot be traced by torch\.fx: symbolically traced variables"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), r"no convolution of Sequential can be weight-enabled: '0': head"),
        (lambda: nn.ReLU(), r"no convolution of ReLU can be weight-enabled: it has none"),
        (lambda: build("tiny"), r"'conv' is a WeightEnabledConv2d: this is a supernet already"),
        (lambda: nn.Sequential(nn.LazyConv2d(16, 1)), r"'0' is a LazyConv2d without a shape yet: run the model on a"),
        (quantized, r"'0' is quantized \(Conv2d\): convert the network it was made from"),
        (lambda: Lines(nn.BatchNorm2d(32), again=(0,)), r"batch norm 'steps\.0' is used more than once"),
        (lambda: Lines(nn.BatchNorm2d(32, affine=False)), r"batch norm 'steps\.0' has no weight and bias"),
        (
            lambda: Lines(nn.BatchNorm2d(32, track_running_stats=False)),
            r"batch norm 'steps\.0' keeps no running statistics",
        ),
        (Listed, r"the forward of Listed reaches its layers by another way than their attributes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_cannot_be_converted_is_refused_by_name(model, said):
    with pytest.raises(NetworkError, match=said):
        convert(model())


def test_a_long_refusal_names_the_first_few():
    with pytest.raises(NetworkError, match=r"'4': dense layer: only convolutions are converted; and 3 more$"):
        convert(nn.Sequential(*(nn.Linear(4, 4) for _ in range(8))))


def test_a_layer_under_two_names_is_replaced_under_both():
    class Twice(Headed):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = conv_bn(32, 32)
            self.same = self.conv

        def body(self, x):
            return self.bn(self.same(x))

    net = convert(Twice()).net
    assert net.same is net.conv
    assert net.conv.groups_allowed == (1, 2, 4, 8, 16)
