"""Networks of torchvision and timm, where these are installed."""

import random
import warnings

import pytest
import torch

from tests.trainer.convert.nets import enliven
from wenet_trainer.convert import convert
from wenet_trainer.export import TOLERANCE, relative_deviation, torch_answers
from wenet_trainer.models import build
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import layer_blocks, shuffles, switchable_norms, weight_enabled
from wenet_trainer.topology import describe

SIDE = 96
SAME = 2e-6


@pytest.fixture(scope="module")
def timm(torchvision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("timm")


def check(original, sizes):
    torch.manual_seed(0)
    enliven(original)
    conversion = convert(original)
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        reference, found = original(images), conversion.net(images)
    assert (found - reference).abs().max() <= SAME * reference.abs().max()
    assert (len(conversion.layers), len(conversion.norms), len(conversion.shuffles)) == sizes
    return conversion


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet18", (19, 19, 8)),
        ("resnext50_32x4d", (36, 52, 16)),
        ("vgg11_bn", (7, 7, 3)),
        ("densenet121", (119, 61, 58)),
        ("shufflenet_v2_x1_0", (36, 52, 0)),
        ("regnet_y_400mf", (36, 52, 7)),
        ("mobilenet_v3_small", (22, 32, 7)),
        ("mnasnet1_0", (34, 50, 11)),
        ("squeezenet1_1", (24, 0, 0)),
    ],
)
def test_torchvisions_networks_answer_as_before(torchvision, name, sizes):
    check(getattr(torchvision.models, name)(num_classes=10), sizes)


@pytest.mark.parametrize(
    ("name", "sizes"), [("resnet18", (19, 19, 8)), ("efficientnet_b0", (32, 47, 15)), ("dla34", (36, 36, 12))]
)
def test_timms_networks_answer_as_before(timm, name, sizes):
    check(timm.create_model(name, num_classes=10), sizes)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("resnet50", (52, 52, 16)), ("mobilenet_v2", (34, 50, 16)), ("efficientnet_b0", (32, 47, 15))],
)
def test_the_papers_networks_are_converted_to_what_ours_are(torchvision, name, sizes):
    ours = build(name)
    conversion = check(getattr(torchvision.models, name)(), sizes)
    names = {module: name for name, module in ours.named_modules()}
    assert set(conversion.layers) == set(weight_enabled(ours))
    assert dict(conversion.norms) == {names[switch]: names[switch.fed_by] for switch in switchable_norms(ours).values()}
    assert list(conversion.net.state_dict()) == list(ours.state_dict())
    assert layer_blocks(conversion.net) == layer_blocks(ours)
    # Ours stand in a place of their own behind the layer, converted ones in the module that reads it.
    behind = {shuffle.rpartition(".")[0] for shuffle in shuffles(ours)}
    assert {layer.rpartition(".")[0] for layer in conversion.shuffles} == behind


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_what_is_exported_answers_as_torch_does(torchvision, name):
    torch.manual_seed(0)
    net = convert(enliven(getattr(torchvision.models, name)(num_classes=10))).net
    described, space, rng = describe(net, (3, SIDE, SIDE)), SearchSpace.of(net), random.Random(0)
    training, images = torch.randn(32, 3, SIDE, SIDE), torch.randn(2, 3, SIDE, SIDE)
    for config in (space.smallest(), *(space.sample(rng) for _ in range(2))):
        statistics, answers = torch_answers(net, config, training, images)
        assert relative_deviation(described, config, statistics, images, answers) <= TOLERANCE
