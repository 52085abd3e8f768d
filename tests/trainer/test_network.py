import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build
from wenet_trainer.network import make_network, start_network
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active, weight_enabled


class PlainNet(nn.Module):
    """A network of a user's own: no layer of it is ours."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return self.head(x.mean((2, 3)))


PLAIN = "tests.trainer.test_network:PlainNet"


@pytest.fixture
def numbers(tmp_path):
    torch.manual_seed(5)
    net = PlainNet().eval()
    save_file(net.state_dict(), str(tmp_path / "plain.safetensors"))
    return net, str(tmp_path / "plain.safetensors")


def test_a_plain_network_is_converted_and_what_was_left_alone_is_said():
    said = []
    net = start_network(Recipe(model=PLAIN, convert=True), said.append)
    assert set(weight_enabled(net)) == {"conv2", "conv3"}
    assert "2 weight-enabled convolutions" in said[0]
    assert "'head'" in said[0]


@pytest.mark.parametrize("convert", [True, False])
def test_a_training_may_start_from_a_plain_network_s_numbers(numbers, convert):
    plain, file = numbers
    recipe = Recipe(model=PLAIN if convert else "digits_resnet", convert=convert, pretrained=file)
    if not convert:
        with pytest.raises(NetworkError, match="the state dict does not fit the full network"):
            start_network(recipe, print)
        return
    net = start_network(recipe, lambda line: None).eval()
    x = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(net(x), plain(x), rtol=1e-5, atol=1e-6)
    set_active(net, SearchSpace.of(net).smallest())
    assert not torch.allclose(net(x), plain(x), atol=1e-3)


def test_numbers_of_another_plain_network_are_refused(numbers):
    _, file = numbers
    with pytest.raises(NetworkError, match="the numbers to start from do not fit the network"):
        start_network(Recipe(model=PLAIN, convert=True, model_arguments={"classes": 3}, pretrained=file), print)


def test_a_pickle_is_not_read(tmp_path):
    torch.save(PlainNet().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(NetworkError, match="save the plain network's state dict with safetensors"):
        start_network(Recipe(model=PLAIN, convert=True, pretrained=str(tmp_path / "plain.pt")), print)


def test_a_grouped_classifier_is_asked_for_by_name():
    recipe = Recipe(model="resnet50", classifier="grouped", model_arguments={"classes": 16, "width": 16})
    assert "fc" in weight_enabled(make_network(recipe))
    assert "fc" not in weight_enabled(build("resnet50", {"classes": 16, "width": 16}))
    with pytest.raises(NetworkError, match=r"'tiny' does not take .*grouped_classifier"):
        make_network(Recipe(model="tiny", classifier="grouped"))
