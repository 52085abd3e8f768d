import numpy as np
import pytest
import torch

from tests.trainer.few_digits import FewDigits
from wenet_trainer import evaluate
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import NetworkError
from wenet_trainer.evaluate import accuracy, accuracy_on, effective_images, logits, recalibrated, wilson
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active


def recalibrate(net, config, inputs):
    """The statistics alone."""
    with recalibrated(net, config, inputs) as statistics:
        return statistics


def test_the_wilson_interval_is_the_closed_form():
    # centre and half width written out: (8 + z²/2) / (10 + z²) ± …
    found = wilson(8, 10)
    assert (found.value, found.images) == (0.8, 10)
    assert found.ci_low == pytest.approx(0.4902, abs=1e-4)
    assert found.ci_high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(10, 10).ci_high == pytest.approx(1.0)
    with pytest.raises(NetworkError, match="3 correct of 0 images"):
        wilson(3, 0)


def interval(right, origins):
    found = wilson(int(right.sum()), len(right), effective_images(right, origins))
    return found.ci_low, found.ci_high


@pytest.mark.parametrize("wrong", [0, 1, 17, 50, 100])
def test_copies_of_images_give_the_interval_of_the_unique_ones(wrong):
    right = np.arange(100) >= wrong
    plain = wilson(100 - wrong, 100)
    shuffled = np.random.default_rng(0).permutation(400)
    copied = interval(np.repeat(right, 4)[shuffled], np.repeat(np.arange(100), 4)[shuffled])
    assert copied == pytest.approx((plain.ci_low, plain.ci_high))


@pytest.mark.parametrize("wrong", [0, 1, 17, 100])
def test_images_that_share_no_original_give_the_plain_interval(wrong):
    right = np.arange(100) >= wrong
    plain = wilson(100 - wrong, 100)
    assert effective_images(right, None) == 100
    assert interval(right, np.arange(100) * 7) == pytest.approx((plain.ci_low, plain.ci_high))


def test_views_that_go_partly_together_count_between_originals_and_views():
    rng = np.random.default_rng(0)
    origins = np.repeat(np.arange(300), 4)
    chance = np.repeat(rng.choice([0.6, 0.99], 300), 4)
    assert 300 < effective_images(rng.random(1200) < chance, origins) < 1150
    # Two views of an original that differ on purpose are no more than two images.
    assert effective_images(np.tile([True, False], 50), np.repeat(np.arange(50), 2)) == 100


def test_the_intervals_coverage_holds_for_correlated_views():
    rng, origins, held = np.random.default_rng(0), np.repeat(np.arange(200), 4), 0
    for _ in range(500):
        right = rng.random(800) < np.repeat(rng.choice([0.7, 1.0], 200), 4)  # 0.85 on average
        low, high = interval(right, origins)
        held += low <= 0.85 <= high
    assert 0.92 <= held / 500 <= 0.98


def test_accuracy_widens_its_interval_for_views_but_counts_them_all(tiny):
    config = SearchSpace.of(tiny).full()
    x = torch.randn(40, 1, 32, 32).repeat_interleave(3, 0)
    labels = np.repeat(logits(tiny, x[::3]).argmax(1).numpy(), 3)
    labels[:30] = (labels[:30] + 5) % 10
    views = accuracy(tiny, config, x, labels, np.repeat(np.arange(40), 3))
    assert (views.value, views.images) == (0.75, 120)
    assert (views.ci_low, views.ci_high) == pytest.approx((wilson(30, 40).ci_low, wilson(30, 40).ci_high))
    assert accuracy(tiny, config, x, labels) == wilson(90, 120)


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


def test_images_that_become_inputs_batch_by_batch_give_the_same_accuracy(tiny, monkeypatch):
    source, config, together = FewDigits(), SearchSpace.of(tiny).full(), []

    def watched(pixels, recipe):
        together.append(len(pixels))
        return normalise(pixels, recipe)

    monkeypatch.setattr(evaluate, "normalise", watched)
    monkeypatch.setattr(evaluate, "BATCH", 40)
    images, tiny_was = source.validation(), tiny.training
    inputs = normalise(images.pixels, source.preprocess)
    found = accuracy_on(tiny, config, images, source.preprocess)
    assert together == [40, 40, 16]
    assert found == accuracy(tiny, config, inputs, images.labels, images.origins)
    assert tiny.training == tiny_was
    right = logits(tiny, inputs).argmax(1).numpy()
    assert accuracy_on(tiny, config, type(images)(images.pixels, right), source.preprocess).value == 1.0
    with pytest.raises(NetworkError, match="0 correct of 0 images"):
        accuracy_on(tiny, config, images.first(0), source.preprocess)


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
