import copy
import random

import numpy as np
import onnx
import pytest
import torch

from tests.trainer.peers.narrow import Dense, Mobile, enliven
from wenet_runtime.engines.ort import OrtBackend
from wenet_trainer.errors import NetworkError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.models.digits_resnet import DigitsResNet
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.models.tiny import TinyNet
from wenet_trainer.peers.onnx import plain_network, width_model
from wenet_trainer.peers.slimmable import Slimmable
from wenet_trainer.peers.slimmable_layers import SlimmableConv2d, SlimmableLinear
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm
from wenet_trainer.topology import INPUT, OUTPUT

NETWORKS = {
    "small": (SmallResNet, 3),
    "digits": (lambda: DigitsResNet(16, 64), 1),
    "tiny": (TinyNet, 1),
    "mobile": (Mobile, 3),
    "dense": (Dense, 1),
}
EXACT = 1e-5  # of the largest answer


def run(model, x):
    engine = OrtBackend(None, 1).load_bytes(model, name="width")
    try:
        return engine.infer({INPUT: x.numpy()})[OUTPUT]
    finally:
        engine.close()


def furthest(found, wanted):
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.fixture(params=NETWORKS)
def made(request):
    """A plain network or supernet, and an image's shape."""
    torch.manual_seed(0)
    build, channels = NETWORKS[request.param]
    return enliven(build()), (channels, 32, 32)


@pytest.mark.parametrize("shared_affine", [0, 1])
def test_a_width_answers_under_onnx_runtime_as_the_slimmable_network_does(made, shared_affine):
    net, shape = made
    slimmable, x = enliven(Slimmable(net, divisor=4, shared_affine=shared_affine)), torch.randn(3, *shape)
    last = slimmable.levels["width"][-1]
    for level in {1, last, *random.Random(shared_affine).sample(range(2, last), 1)}:
        slimmable.activate({"width": level})
        assert furthest(run(width_model(slimmable, level, shape), x), logits(slimmable, x).numpy()) <= EXACT
    other = run(width_model(slimmable, last - 1, shape), x)  # the control: another width
    assert furthest(other, logits(slimmable, x).numpy()) > 1e-2


def test_a_width_takes_the_statistics_that_are_loaded():
    torch.manual_seed(0)
    slimmable, x = enliven(Slimmable(TinyNet())), torch.randn(64, 1, 32, 32)
    slimmable.activate({"width": 5})
    stored = width_model(slimmable, 5, (1, 32, 32))
    with recalibrated(slimmable, {"width": 5}, x):
        own, answers = width_model(slimmable, 5, (1, 32, 32)), logits(slimmable, x).numpy()
    assert furthest(run(own, x), answers) <= EXACT
    assert furthest(run(stored, x), answers) > 1e-2  # the control
    assert furthest(run(stored, x), logits(slimmable, x).numpy()) <= EXACT


def test_a_width_is_an_ordinary_small_model_of_opset_13():
    slimmable = Slimmable(SmallResNet())
    last = slimmable.levels["width"][-1]
    model = onnx.load_from_string(width_model(slimmable, last, (3, 32, 32)))
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import] == [13]
    assert model.ir_version <= 8
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Slice", "Gather", "BatchNormalization"})
    numbers = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert numbers <= slimmable.params({"width": last}) + 100
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_plain_network_is_apart_from_the_slimmable_one_and_leaves_it_as_it_was():
    slimmable = enliven(Slimmable(SmallResNet()))
    slimmable.activate({"width": 2})
    before = copy.deepcopy(slimmable.state_dict())
    plain = plain_network(slimmable, 9)
    kinds = SlimmableConv2d | SlimmableLinear | SlimmableBatchNorm
    assert not any(isinstance(module, kinds) for module in plain.modules())
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in slimmable.state_dict().items())
    assert {module.level for module in slimmable.modules() if isinstance(module, kinds)} == {2}


def test_a_width_that_the_network_lacks_is_refused():
    with pytest.raises(NetworkError, match="level from 1 to"):
        width_model(Slimmable(TinyNet()), 99, (1, 32, 32))
