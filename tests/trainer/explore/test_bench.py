import pytest

from tests.trainer.few_digits import FewDigits
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


def test_evaluating_leaves_the_networks_statistics_alone(bench):
    before = {name: value.clone() for name, value in bench.net.state_dict().items()}
    bench.final_accuracy(bench.space.smallest())
    assert all((value == before[name]).all() for name, value in bench.net.state_dict().items())


def test_calibration_shows_views_that_no_training_epoch_shows():
    source = FewDigits()
    assert calibration(source).shape == (128, 1, 32, 32)
    assert (source.train(1_000_000).pixels != source.train(0).pixels).any()
