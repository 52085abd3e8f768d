import pytest
import torch

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS
from wenet_trainer.models import MODELS, build
from wenet_trainer.space import SearchSpace

SMALL = {
    "digits_mlp": (1, 32, 10),
    "digits_resnet": (1, 32, 10),
    "small_resnet": (3, 32, 24),
    "tiny": (1, 32, 10),
}  # input channels, side, classes


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_answers_all_its_classes_and_reaches_sixteen_groups(name):
    net = build(name).eval()
    channels, side, classes = SMALL.get(name, (3, 64, 1000))
    assert net(torch.zeros(2, channels, side, side)).shape == (2, classes)
    assert MAX_GROUPS in SearchSpace.of(net).smallest().values()


def test_arguments_reach_the_constructor():
    assert build("tiny", {"width": 48, "classes": 3})(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_what_is_no_model_is_refused():
    with pytest.raises(
        NetworkError,
        match="unknown model 'vgg': known are digits_mlp, digits_resnet, efficientnet_b0, mobilenet_v2, resnet50, "
        "small_resnet, tiny",
    ):
        build("vgg")
    with pytest.raises(NetworkError, match="does not take"):
        build("tiny", {"depth": 3})
    with pytest.raises(NetworkError, match="not a torch module"):
        build("collections:OrderedDict")
