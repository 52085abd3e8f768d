from benchmarks.accuracy import BASE
from benchmarks.arms import INPUT, arms, candidates
from wenet_trainer.cost import macs_of
from wenet_trainer.network import make_network


def test_every_arm_s_network_is_made_and_has_its_candidates():
    for arm in arms(BASE, 3):
        net = make_network(arm.recipe)
        found = candidates(net, hull=arm.hull)
        costs = [macs_of(net, config, INPUT) for name, config in found.items() if name.startswith("1/")]
        assert costs == sorted(costs, reverse=True)
        assert arm.seeded(7).recipe.seed == 7


def test_arms_differ_from_wenet_in_what_they_are_about():
    changed = {arm.name: BASE.differences(arm.recipe) for arm in arms(BASE, 3)}
    assert changed["wenet"] == []
    assert changed["without distillation"] == ["teacher is 'none' there, 'ema' here"]
    assert changed["progressive sampling"] == ["sampling is 'progressive' there, 'target' here"]
    assert changed["s = 20"] == ["epochs is 3 there, 32 here", "samples is 20 there, 4 here"]
    assert len(changed["us-net"]) == 2  # the network, and its channels in steps of four


def test_candidates_follow_from_the_network_alone():
    one, other = (make_network(BASE) for _ in range(2))
    assert candidates(one, hull=True) == candidates(other, hull=True)
    assert len(candidates(one, hull=True)) > len(candidates(one, hull=False)) == 5
