import copy

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import FILE, read_checkpoint
from wenet_trainer.errors import TrainingError
from wenet_trainer.optimizer import schedule
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.step import Step
from wenet_trainer.supernet import set_active
from wenet_trainer.train import train

RECIPE = Recipe(data=FEW, model="tiny", epochs=2, batch=32, learning_rate=5e-3)


def test_a_step_adds_up_the_gradients_of_every_sub_network(tiny):
    tiny.train()
    space = SearchSpace.of(tiny)
    configs = [space.full(), space.smallest(), space.uniform(2), {**space.full(), "conv": 8}]
    x, labels = torch.randn(8, 1, 32, 32), torch.arange(8)
    expected: dict[str, torch.Tensor] = {}
    for config in configs:
        alone = copy.deepcopy(tiny)
        set_active(alone, config)
        F.cross_entropy(alone(x), labels).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, torch.zeros_like(parameter)) + parameter.grad
    losses = Step(tiny, torch.optim.SGD(tiny.parameters(), lr=0.0), RECIPE).gradients(x, labels, configs)
    assert len(losses) == 4
    for name, parameter in tiny.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert parameter.grad is None, name
    assert "block.expand_bn.patterns.4.weight" not in expected


def test_training_lowers_the_loss_and_follows_the_seed(tmp_path):
    one = train(RECIPE, tmp_path / "one", quiet=True)
    two = train(RECIPE, tmp_path / "two", quiet=True)
    assert one.history[1]["loss_full"] < one.history[0]["loss_full"]
    assert one.weights.keys() == two.weights.keys()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    other = train(Recipe(**{**RECIPE.to_json(), "seed": 1}), tmp_path / "other", quiet=True)
    assert any(not torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    straight = train(RECIPE, tmp_path / "straight", quiet=True)
    train(RECIPE, tmp_path / "killed", stop_after=1, quiet=True)
    assert read_checkpoint(tmp_path / "killed").epochs_done == 1
    torch.rand(100)  # whatever the new process did before
    resumed = train(RECIPE, tmp_path / "killed", quiet=True)
    assert resumed.epochs_done == 2
    assert all(torch.equal(straight.weights[name], resumed.weights[name]) for name in straight.weights)
    assert all(torch.equal(straight.optimizer[name], resumed.optimizer[name]) for name in straight.optimizer)
    assert len(resumed.history) == 2


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(RECIPE, tmp_path, quiet=True)
    stamp = (tmp_path / FILE).stat().st_mtime_ns
    again = train(RECIPE, tmp_path, quiet=True)
    assert (tmp_path / FILE).stat().st_mtime_ns == stamp
    assert again.history == first.history


def test_a_run_with_other_settings_is_refused_and_named(tmp_path):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    other = Recipe(**{**RECIPE.to_json(), "batch": 16})
    with pytest.raises(TrainingError, match=r"batch is 32 there, 16 here.*choose another --out"):
        train(other, tmp_path, quiet=True)


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_checkpoint(tmp_path):
    wild = Recipe(**{**RECIPE.to_json(), "model": "tests.trainer.broken_net:BrokenNet"})
    with pytest.raises(TrainingError, match=r"the loss became .*nan.* lower --learning-rate"):
        train(wild, tmp_path, quiet=True)
    assert not (tmp_path / FILE).exists()


def test_too_few_images_for_a_batch_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="128 training images are fewer than one batch of 256"):
        train(Recipe(**{**RECIPE.to_json(), "batch": 256}), tmp_path, quiet=True)


def test_an_inplace_teacher_gives_other_weights_than_hard_labels(tmp_path):
    taught = train(Recipe(**{**RECIPE.to_json(), "teacher": "inplace", "epochs": 1}), tmp_path / "taught", quiet=True)
    plain = train(Recipe(**{**RECIPE.to_json(), "teacher": "none", "epochs": 1}), tmp_path / "plain", quiet=True)
    assert not torch.equal(taught.weights["conv.weight"], plain.weights["conv.weight"])


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    rates = [schedule(step / 100, 0.15) for step in range(101)]
    assert 0 < rates[0] < 0.1
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
