import numpy as np
import pytest

from tests.trainer.few_digits import FewDigits
from wenet_trainer import evaluate
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.explore.bench import Bench, calibration


@pytest.fixture
def bench(tiny):
    bench = Bench(tiny, FewDigits(), search_images=64, rounds=5)
    yield bench
    bench.close()


def test_a_configuration_is_evaluated_once(bench):
    seen = []
    bench.observe = lambda: seen.append(1)
    config = bench.space.uniform(4)
    assert bench.search_accuracy(config) == bench.search_accuracy(config)
    assert bench.search_latency_ms(config) == bench.search_latency_ms(config)
    assert (bench.accuracy_evaluations, bench.latency_measurements, len(seen)) == (1, 1, 1)


def test_the_interval_of_the_accuracy_knows_which_views_share_a_digit(bench):
    views = bench._validation
    config = bench.space.full()
    alone = bench.final_accuracy(config)
    bench._validation = Images(*(np.repeat(part, 3, 0) for part in (views.pixels, views.labels, views.origins)))
    copied = bench.final_accuracy(config)
    assert (copied.value, copied.images) == (alone.value, 3 * alone.images)
    assert (copied.ci_low, copied.ci_high) == pytest.approx((alone.ci_low, alone.ci_high))


def test_validation_images_become_inputs_a_batch_at_a_time(bench, monkeypatch):
    together = []

    def watched(pixels, recipe):
        together.append(len(pixels))
        return normalise(pixels, recipe)

    monkeypatch.setattr(evaluate, "normalise", watched)
    monkeypatch.setattr(evaluate, "BATCH", 32)
    bench.final_accuracy(bench.space.full())
    bench.search_accuracy(bench.space.full())
    assert together == [32, 32, 32, 32, 32]  # 96 images, then 64


def test_evaluating_leaves_the_networks_statistics_alone(bench):
    before = {name: value.clone() for name, value in bench.net.state_dict().items()}
    bench.final_accuracy(bench.space.smallest())
    assert all((value == before[name]).all() for name, value in bench.net.state_dict().items())


def test_calibration_shows_views_that_no_training_epoch_shows():
    source = FewDigits()
    assert calibration(source).shape == (128, 1, 32, 32)
    assert (source.train(1_000_000).pixels != source.train(0).pixels).any()
