"""Supernets whose batch norms are far from trivial, so that a mix-up shows."""

import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

from wenet_trainer.models import build
from wenet_trainer.norms import BatchNorm


def lively(name: str) -> nn.Module:
    """A supernet with random affine parameters and statistics, different in every pattern."""
    torch.manual_seed(0)
    net = build(name)
    for module in net.modules():
        enliven_norm(module)
    return net.eval()


@torch.no_grad()
def enliven_norm(module: nn.Module) -> None:
    """Give a batch norm random numbers; any other module stays as it is."""
    if isinstance(module, BatchNorm):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(0, 0.3)
        module.running_mean.normal_(0, 0.3)
        module.running_var.uniform_(0.5, 2.0)


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


@pytest.fixture(scope="session")
def torchvision() -> Iterator[ModuleType]:
    """It imports beside a CPU torch if two operators that it describes are declared before."""
    declared = torch.library.Library("torchvision", "FRAGMENT")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, name):
                    declared.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
            import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: one that was built for another torch
        pytest.skip(f"torchvision cannot be imported: {error}")
    yield torchvision
    del declared
