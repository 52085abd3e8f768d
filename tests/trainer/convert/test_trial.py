"""Operations are told apart by what they make of random numbers."""

import torch
import torch.nn.functional as F
from torch import nn

from wenet_trainer.convert.trial import SEEDS, attempt, permutable, pools_whole_map, trial_copy


def test_an_operation_is_tried_on_a_larger_map_if_the_first_is_too_small_for_it():
    small, large = permutable(nn.ReLU(), 8), permutable(nn.AvgPool2d(28), 8)
    assert small is not None
    assert tuple(small.shape) == (2, 8, 24, 20)
    assert large is not None
    assert tuple(large.shape) == (2, 8, 2, 2)
    assert permutable(nn.AvgPool2d(65), 8) is None  # too large for both


def test_what_mixes_channels_fails_or_gives_no_image_is_not_permutable():
    def fails(x):
        raise RuntimeError

    for operation in (lambda x: x.roll(1, 1), lambda x: x.flatten(1), lambda x: x > 0, lambda x: x.shape, fails):
        assert permutable(operation, 8) is None


def test_a_random_operation_is_tried_under_several_seeds_and_a_plain_one_under_one():
    seen = []

    def run(x):
        seen.append(len(x))
        return x * torch.rand(1) if len(seen) <= 2 * SEEDS else x

    assert permutable(run, 8) is not None
    assert len(seen) == 2 * SEEDS
    assert permutable(run, 8) is not None
    assert len(seen) == 2 * SEEDS + 2


def test_every_attempt_meets_the_same_numbers_and_leaves_the_image_and_torchs_randomness_alone():
    image, state = torch.ones(1, 2, 4, 4), torch.get_rng_state()
    found, random = attempt(lambda x: x.add_(torch.rand(2)[:, None, None]), image)
    assert random
    assert torch.equal(attempt(lambda x: x + torch.rand(2)[:, None, None], image)[0], found)
    assert not torch.equal(attempt(lambda x: x + torch.rand(2)[:, None, None], image, seed=1)[0], found)
    assert not attempt(nn.ReLU(), image)[1]
    assert torch.equal(image, torch.ones(1, 2, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_whole_map_is_pooled_only_if_a_large_one_is_too():
    for operation in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), lambda x: x.mean((2, 3), keepdim=True)):
        assert pools_whole_map(operation)
    for operation in (nn.AvgPool2d(16), nn.AvgPool2d(64), nn.AvgPool2d(512), nn.ReLU(), lambda x: F.interpolate(x, 9)):
        assert not pools_whole_map(operation)


def test_a_trial_copy_is_in_its_mode_without_dropout_and_the_original_stays():
    module = nn.Sequential(nn.Dropout2d(), nn.RReLU(), nn.PReLU()).double().eval()
    made = trial_copy(module, training=True)
    assert [one.training for one in made] == [False, False, True]
    assert {value.dtype for value in made.parameters()} == {torch.float32}
    assert not any(one.training for one in trial_copy(module.train(), training=False))
    assert all(one.training for one in module)
    assert {value.dtype for value in module.parameters()} == {torch.float64}
