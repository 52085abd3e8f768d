"""Foreign forwards as graphs: what is one call, what is looked into, and what cannot be followed."""

import pytest
import torch
from torch import nn

from wenet_trainer.convert.tracing import trace
from wenet_trainer.errors import NetworkError


class Options(nn.Module):
    """A forward with arguments that have defaults, and one that it writes to."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x, twice=False, scale=None):
        self.seen += 1
        self.last = x
        x = self.conv(x) if scale is None else x * scale
        return self.conv(x) if twice else x


def test_arguments_with_defaults_take_them_and_the_model_is_not_written_to():
    model = Options()
    assert trace(model, training=False).calls() == ["conv"]
    assert model.seen.item() == 0
    assert not hasattr(model, "last")
    assert model.training


def test_both_modes_are_read():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.aux = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) + self.aux(x) if self.training else self.conv(x)

    assert trace(Auxiliary(), training=False).calls() == ["conv"]
    assert trace(Auxiliary(), training=True).calls() == ["conv", "aux"]


def test_a_module_without_layers_is_one_call_even_if_it_could_not_be_followed():
    class DropPath(nn.Module):
        def forward(self, x):
            return x * torch.rand(len(x), 1, 1, 1) if x.shape[0] > 1 else x

    found = trace(nn.Sequential(nn.Conv2d(3, 3, 1), DropPath()), training=True)
    assert found.calls() == ["0", "1"]
    assert found.untraced == {}


def test_the_innermost_module_that_cannot_be_followed_is_one_call_with_the_reason():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) if x.max() > 0 else x

    found = trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(Dynamic(), nn.ReLU()), Dynamic()), training=False)
    assert found.calls() == ["0", "1.0", "1.1", "2"]
    assert set(found.untraced) == {"1.0", "2"}
    assert "control flow" in found.untraced["2"]


def test_a_model_that_cannot_be_followed_or_copied_is_refused():
    class Dynamic(nn.Module):
        def forward(self, x):
            return x if len(x) else -x

    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.made = torch.ones(1, requires_grad=True) * 2

    with pytest.raises(NetworkError, match=r"the forward of Dynamic cannot be traced by torch\.fx: .*len"):
        trace(Dynamic(), training=False)
    with pytest.raises(NetworkError, match="Held cannot be copied, which a conversion needs"):
        trace(Held(), training=False)


def test_reading_a_modules_buffer_is_remembered_even_where_nothing_of_it_gets_into_the_graph():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.read, self.called = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            scale = self.read.running_mean.sum() if self.training else 1
            return self.called(self.read(self.conv(x))) * scale

    assert trace(Reading(), training=True).buffers_read == {"read"}
    assert trace(Reading(), training=False).buffers_read == set()
