import pytest
import torch

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import MAX_GROUPS
from wenet_trainer.models import MODELS, build
from wenet_trainer.space import SearchSpace


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_answers_ten_classes_and_reaches_sixteen_groups(name):
    net = build(name)
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert MAX_GROUPS in SearchSpace.of(net).smallest().values()


def test_arguments_reach_the_constructor():
    assert build("tiny", {"width": 48, "classes": 3})(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_what_is_no_model_is_refused():
    with pytest.raises(NetworkError, match="unknown model 'vgg': known are digits_resnet, tiny"):
        build("vgg")
    with pytest.raises(NetworkError, match="does not take"):
        build("tiny", {"depth": 3})
    with pytest.raises(NetworkError, match="not a torch module"):
        build("collections:OrderedDict")
