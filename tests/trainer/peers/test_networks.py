from inspect import signature

import pytest
import torch

from wenet_trainer.models import build
from wenet_trainer.models.digits_resnet import DigitsResNet
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.peers import networks
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import Flexible, set_active

PEERS = {
    "slimmable_small_resnet": (3, 24, "width", 13),
    "slimmable_digits_resnet": (1, 10, "width", 13),
    "early_exit_small_resnet": (3, 24, "exit", 3),
    "early_exit_digits_resnet": (1, 10, "exit", 4),
}
NETWORKS = {name: SmallResNet if name.endswith("small_resnet") else DigitsResNet for name in PEERS}


@pytest.mark.parametrize("name", PEERS)
def test_a_recipe_can_name_every_peer_and_each_level_answers_all_classes(name):
    channels, classes, knob, count = PEERS[name]
    net = build(f"wenet_trainer.peers.networks:{name}").eval()
    assert isinstance(net, Flexible)
    assert net.levels == {knob: tuple(range(1, count + 1))}
    for config in SearchSpace.of(net).uniforms():
        set_active(net, config)
        assert net(torch.zeros(2, channels, 32, 32)).shape == (2, classes)


@pytest.mark.parametrize("name", PEERS)
def test_the_same_name_takes_back_the_weights_it_gave(name):
    one, two = (build(f"wenet_trainer.peers.networks:{name}", {"classes": 5}).eval() for _ in range(2))
    x = torch.randn(2, PEERS[name][0], 32, 32)
    for config in (SearchSpace.of(one).full(), SearchSpace.of(one).smallest()):
        set_active(one, config)
        set_active(two, config)
        assert not torch.allclose(one(x), two(x), atol=1e-4)
    two.load_state_dict(one.state_dict())
    for config in (SearchSpace.of(one).full(), SearchSpace.of(one).smallest()):
        set_active(one, config)
        set_active(two, config)
        assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_defaults_are_those_of_its_network(name):
    network = {parameter.name: parameter.default for parameter in signature(NETWORKS[name]).parameters.values()}
    peer = {parameter.name: parameter.default for parameter in signature(getattr(networks, name)).parameters.values()}
    assert network.items() <= peer.items()


def test_arguments_reach_the_networks():
    peers = "wenet_trainer.peers.networks:"
    assert build(f"{peers}slimmable_small_resnet", {"narrowest": 12, "divisor": 4}).widths == (16, 15, 14, 13, 12)
    for name in ("slimmable_small_resnet", "slimmable_digits_resnet"):
        private, shared = (build(peers + name, {"shared_affine": shared}) for shared in (0, 1))
        assert len(list(shared.parameters())) < len(list(private.parameters()))
    assert len(build(f"{peers}early_exit_small_resnet", {"depth": 5}).levels["exit"]) == 5
    small = [build(f"{peers}early_exit_small_resnet", {"hidden": hidden}).params({"exit": 3}) for hidden in (0, 64)]
    assert small[1] > small[0]
