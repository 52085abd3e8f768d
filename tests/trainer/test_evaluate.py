import numpy as np
import pytest
import torch

from wenet_trainer.errors import NetworkError
from wenet_trainer.evaluate import accuracy, logits, recalibrate, recalibrated, wilson
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active


def test_the_wilson_interval_is_the_closed_form():
    # centre and half width written out: (8 + z²/2) / (10 + z²) ± …
    found = wilson(8, 10)
    assert (found.value, found.images) == (0.8, 10)
    assert found.ci_low == pytest.approx(0.4902, abs=1e-4)
    assert found.ci_high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(10, 10).ci_high == pytest.approx(1.0)
    with pytest.raises(NetworkError, match="3 correct of 0 images"):
        wilson(3, 0)


def test_accuracy_counts_right_answers_of_the_configuration(tiny):
    space, x = SearchSpace.of(tiny), torch.randn(300, 1, 32, 32)
    set_active(tiny, space.smallest())
    labels = logits(tiny, x).argmax(1).numpy()
    assert accuracy(tiny, space.smallest(), x, labels).value == 1.0
    labels[:75] = (labels[:75] + 5) % 10
    assert accuracy(tiny, space.smallest(), x, labels).value == 0.75
    labels[:] = np.arange(300) % 10
    found = accuracy(tiny, space.full(), x, labels).value
    assert found == (logits(tiny, x).argmax(1).numpy() == labels).mean()


def test_recalibration_gives_the_statistics_the_images_have(tiny):
    space, x = SearchSpace.of(tiny), torch.randn(200, 1, 32, 32)
    statistics = recalibrate(tiny, space.uniform(4), x)
    stem = tiny.stem(x).detach()
    np.testing.assert_allclose(statistics["stem_bn.running_mean"], stem.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["stem_bn.running_var"], stem.var((0, 2, 3)), rtol=1e-4)
    assert "block.depthwise_bn.patterns.4.running_var" in statistics
    assert "block.depthwise_bn.running_var" not in statistics


def test_recalibration_averages_batches_of_equal_weight(tiny):
    x = torch.randn(600, 1, 32, 32)
    config = SearchSpace.of(tiny).full()
    mean = recalibrate(tiny, config, x)["stem_bn.running_mean"]
    np.testing.assert_allclose(mean, tiny.stem(x).detach().mean((0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_the_stored_statistics_return_after_recalibration_even_after_an_error(tiny):
    space, x = SearchSpace.of(tiny), torch.randn(64, 1, 32, 32)
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    tiny.train()

    def fail_inside():
        with recalibrated(tiny, space.uniform(2), x):
            assert not torch.equal(tiny.stem_bn.running_mean, before["stem_bn.running_mean"])
            assert not tiny.stem_bn.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert tiny.stem_bn.training
    assert tiny.stem_bn.momentum == 0.1


def test_recalibration_is_repeatable(tiny):
    space, x = SearchSpace.of(tiny), torch.randn(64, 1, 32, 32)
    one, two = (recalibrate(tiny, space.uniform(8), x) for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)
