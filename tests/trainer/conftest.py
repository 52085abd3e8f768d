"""Supernets whose batch norms are far from trivial, so that a mix-up shows."""

import pytest
import torch
from torch import nn

from wenet_trainer.models import build
from wenet_trainer.norms import BatchNorm


def lively(name: str) -> nn.Module:
    """A supernet with random affine parameters and statistics, different in every pattern."""
    torch.manual_seed(0)
    net = build(name)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from threads, and waiting threads slow everything beside them."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> nn.Module:
    return lively("tiny")


@pytest.fixture(params=["tiny", "digits_resnet"])
def supernet(request: pytest.FixtureRequest) -> nn.Module:
    return lively(request.param)
