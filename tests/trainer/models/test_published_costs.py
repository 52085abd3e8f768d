"""The paper's networks at 224×224 cost what is published of them, and so do their uniform modes."""

import pytest

from wenet_trainer.cost import measure_costs
from wenet_trainer.models import build
from wenet_trainer.space import SearchSpace


@pytest.mark.parametrize(
    ("name", "gmacs", "params"),
    [
        ("resnet50", (4.09, 2.11, 1.11, 0.62, 0.37), 25_557_032),
        ("mobilenet_v2", (0.30, 0.17, 0.10, 0.07, 0.05), 3_504_872),
        ("efficientnet_b0", (0.39, 0.22, 0.13, 0.09, 0.07), 5_288_548),
    ],
)
def test_a_network_and_its_uniform_modes_cost_what_is_published(name, gmacs, params):
    net = build(name)
    costs, space = measure_costs(net, (3, 224, 224)), SearchSpace.of(net)
    assert [costs.macs(mode) / 1e9 for mode in space.uniforms()] == pytest.approx(gmacs, abs=0.0055)
    assert costs.params(space.full()) == params
