import random

from wenet_trainer.models import build
from wenet_trainer.sampling import Sampler


def test_a_sandwich_is_the_full_network_the_smallest_and_random_ones():
    sampler = Sampler.of(build("tiny"), 20, "paper")
    sandwich = sampler.sandwich(random.Random(0))
    assert len(sandwich) == 20
    assert sandwich[0] == sampler.layers.full()
    assert sandwich[1] == sampler.layers.smallest()
    assert len(set(sandwich[2:])) > 10


def test_mixed_sampling_draws_uniform_modes_every_other_time():
    sampler = Sampler.of(build("digits_resnet"), 6, "mixed")
    rng = random.Random(0)
    for _ in range(5):
        drawn = sampler.sandwich(rng)[2:]
        assert len(set(drawn[0].values())) == 1
        assert len(set(drawn[2].values())) == 1
        for config in (drawn[1], drawn[3]):
            assert all(len({config[name] for name in knob}) == 1 for knob in sampler.blocks.knobs)


def test_the_paper_sampling_draws_every_layer_on_its_own():
    sampler = Sampler.of(build("digits_resnet"), 12, "paper")
    drawn = sampler.sandwich(random.Random(0))[2:]
    assert any(len({config[name] for name in sampler.blocks.knobs[0]}) > 1 for config in drawn)


def test_draws_follow_the_seed():
    sampler = Sampler.of(build("tiny"), 8, "mixed")
    assert sampler.sandwich(random.Random(5)) == sampler.sandwich(random.Random(5))
    assert sampler.sandwich(random.Random(5)) != sampler.sandwich(random.Random(6))
