"""What a traced forward says about its values; each operation is tried rather than looked up."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainer.convert.nets import SqueezeExcite, Swish
from wenet_trainer.convert.flow import Flow
from wenet_trainer.convert.tracing import trace


class Between(nn.Module):
    """A convolution, an operation, and nothing else."""

    def __init__(self, operation):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 1)
        self.operation = operation

    def forward(self, x):
        return self.operation(self.conv(x))


def last(operation, training=False):
    flow = Flow(trace(Between(operation), training=training))
    (output,) = (node for node in flow.nodes if node.op == "output")
    return flow, flow.sources(output)[0]


@pytest.mark.parametrize(
    "operation",
    [
        F.relu,
        torch.sigmoid,
        torch.relu_,
        lambda x: x.clamp(min=0),
        lambda x: x * 0.5 + 1,
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.dropout2d(x, 0.5, training=True),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x[:, :32],  # all there are
        lambda x: x.type(torch.float32),
        nn.LeakyReLU(inplace=True),
        nn.PReLU(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.AvgPool2d(28),
        nn.Identity(),
        Swish,
    ],
)
def test_activations_dropout_and_pooling_are_channelwise_however_they_are_written(operation):
    if operation is Swish:
        operation = type("MySwish", (nn.Module,), {"forward": lambda self, x: x * torch.sigmoid(x)})()
    flow, node = last(operation)
    assert flow.channelwise(node)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.flatten(1),
        lambda x: x[:, :16],
        lambda x: torch.roll(x, 1, 1),
        lambda x: x.chunk(2, 1)[0],
        lambda x: x.view(-1, 2, 16, 24, 20).transpose(1, 2).reshape(-1, 32, 24, 20),
        lambda x: torch.cat([x, x], 1),
        lambda x: x + x,
        lambda x: x.mean((2, 3)),
        nn.PReLU(32),
        nn.GroupNorm(4, 32),
        nn.LocalResponseNorm(3),
        nn.PixelShuffle(2),
        nn.Conv2d(32, 32, 1),
    ],
)
def test_what_joins_mixes_or_numbers_channels_is_not(operation):
    flow, node = last(operation)
    assert not flow.channelwise(node)


def test_an_activation_with_a_hook_is_not_channelwise_because_the_hook_sees_the_order():
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module, inputs, output: None)
    flow, node = last(hooked)
    assert not flow.channelwise(node)


def test_a_user_activation_that_mixes_channels_is_found_out():
    flow, node = last(type("Mixing", (nn.Module,), {"forward": lambda self, x: x - x.roll(1, 1)})())
    assert not flow.channelwise(node)


class TrainingOnly(nn.Module):
    """Does something in training."""

    def __init__(self, operation):
        super().__init__()
        self.operation, self.drop = operation, nn.Dropout()

    def forward(self, x):
        return self.operation(self.drop(x)) if self.training else x


@pytest.mark.parametrize(
    ("operation", "channelwise"),
    [
        (lambda x: torch.cat([x[:, :8] * 3, x[:, 8:]], 1), False),
        (lambda x: torch.cat([x[:, :8] * (torch.rand(1) > 0.5), x[:, 8:]], 1), False),
        (lambda x: x * torch.arange(32.0).reshape(1, 32, 1, 1), False),
        (lambda x: x * 2, True),
        (lambda x: x * (torch.rand(len(x), 1, 1, 1) > 0.5), True),
    ],
)
def test_what_a_module_does_in_training_counts_in_training(operation, channelwise):
    flow, node = last(TrainingOnly(operation), training=True)
    assert flow.channelwise(node) == channelwise
    flow, node = last(TrainingOnly(operation), training=False)
    assert flow.channelwise(node)


@pytest.mark.parametrize(
    ("see", "reads"),
    [
        (lambda x: x.type() == "torch.FloatTensor", False),
        (lambda x: x.size(1) + x.dim(), False),
        (lambda x: x.type(torch.float32), True),
        (lambda x: x.type(dtype=torch.float32), True),
        (lambda x: x.detach(), True),
    ],
)
def test_a_conversion_to_another_type_reads_and_asking_for_the_type_does_not(see, reads):
    def operation(x):
        see(x)
        return x.relu()

    flow, _ = last(operation)
    assert len(flow.readers(flow.calls("conv")[0])) == (2 if reads else 1)


def test_a_module_whose_inside_has_a_hook_is_not_channelwise():
    inner = nn.Sequential(nn.ReLU())
    inner[0].register_forward_hook(lambda module, inputs, output: None)
    flow, node = last(inner)
    assert not flow.channelwise(node)


def test_trying_leaves_torchs_randomness_alone():
    found = trace(Between(lambda x: torch.rrelu(x, training=True)), training=True)
    state = torch.get_rng_state()
    Flow(found)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_squeeze_is_known_by_its_single_position():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.squeeze, self.after = nn.Conv2d(3, 32, 1), SqueezeExcite(32), nn.Conv2d(32, 32, 1)

        def forward(self, x):
            return self.after(self.squeeze(self.conv(x)))

    flow = Flow(trace(Net(), training=False))
    found = {name: flow.one_position(flow.calls(name)[0]) for name in ("conv", "squeeze.fc1", "squeeze.fc2", "after")}
    assert found == {"conv": False, "squeeze.fc1": True, "squeeze.fc2": True, "after": False}


@pytest.mark.parametrize(("pool", "single"), [(16, False), (28, False), (56, False), (None, True)])
def test_a_map_is_one_position_only_if_a_large_one_is_too(pool, single):
    operation = nn.AdaptiveAvgPool2d(1) if pool is None else nn.AvgPool2d(pool)
    flow = Flow(trace(nn.Sequential(nn.Conv2d(3, 32, 1), operation, nn.Conv2d(32, 32, 1)), training=False))
    assert flow.channelwise(flow.calls("1")[0])
    assert flow.one_position(flow.calls("2")[0]) == single
