import numpy as np
import pytest

from wenet_runtime.layer_table import read_table
from wenet_runtime.meters.none import NoMeter
from wenet_trainer.explore import bench as module
from wenet_trainer.explore.bench import Bench
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe


class Watts:
    """A meter of 2 W."""

    source = "rail:test"

    def energy_mj(self, start_s, end_s):
        return 2000 * (end_s - start_s)

    def power(self):
        return None

    def close(self):
        pass


@pytest.fixture
def opened(tiny, tmp_path):
    supernet, image = describe(tiny, (1, 32, 32)), np.zeros((1, 1, 32, 32), np.float32)

    def opened(meter=None, weights=""):
        return Bench(supernet, image, tmp_path, meter or NoMeter(), threads=1, seed=0, weights=weights)

    return opened


def test_a_configuration_is_measured_once_also_after_a_restart(opened, tiny, monkeypatch):
    bench, config = opened(), SearchSpace.of(tiny).uniform(4)
    cost = bench.cost(config)
    assert cost.latency_ms > 0
    assert cost.energy_mj is None
    bench.close()
    monkeypatch.setattr(module, "sample", None)  # so that measuring again fails
    again = opened()
    assert again.cost(config) == bench.cost(config) == cost
    assert again.measurements == 1
    with pytest.raises(TypeError):
        again.cost(SearchSpace.of(tiny).uniform(2))
    again.close()


def test_what_was_sampled_before_a_kill_is_not_sampled_again(opened, tiny, monkeypatch):
    bench = opened()
    engines = {"a": bench.open(SearchSpace.of(tiny).full()), "b": bench.open(SearchSpace.of(tiny).smallest())}
    first = bench.samples(engines, 30, lambda done, total: None)
    assert {name: len(values) for name, values in first.items()} == {"a": 30, "b": 30}
    more = []

    def sample(engines, *_, rounds, **__):
        more.append(rounds)
        return {name: np.zeros(rounds) for name in engines}

    monkeypatch.setattr(module, "sample", sample)
    again = opened().samples(engines, 50, lambda done, total: None)
    assert more == [20, 10]  # 20 were there; the 10 that followed were a shorter piece than now
    assert (again["a"][:20] == first["a"][:20]).all()
    for engine in engines.values():
        engine.close()
    bench.close()


def test_other_engines_weights_or_meters_are_measured_anew(opened, tiny, monkeypatch):
    calls = []

    def sample(engines, *_, rounds, **__):
        calls.append(list(engines))
        return {name: np.zeros(rounds) for name in engines}

    monkeypatch.setattr(module, "sample", sample)
    engine = {"1×3 fp32": None}
    opened().samples(engine, 5, lambda *_: None)
    opened().samples(engine, 5, lambda *_: None)
    assert len(calls) == 1
    opened().samples({"1×2 2×1 fp32": None}, 5, lambda *_: None)  # as many as before, but another network
    opened(meter=Watts()).samples(engine, 5, lambda *_: None)
    opened(weights="trained further").samples(engine, 5, lambda *_: None)
    assert calls[1:] == [["1×2 2×1 fp32"], ["1×3 fp32"], ["1×3 fp32"]]


def test_energy_is_asked_of_a_meter_that_answers_and_of_no_other(opened, tiny):
    full = SearchSpace.of(tiny).full()
    for meter, wanted in ((NoMeter(), type(None)), (Watts(), float)):
        bench = opened(meter=meter)
        engine = bench.open(full)
        assert type(bench.energies_mj({"full": engine}, 3)["full"]) is wanted
        engine.close()
        bench.close()


def test_answers_are_taken_once_for_each_network_and_its_images(opened):
    right, taken = np.arange(21) % 3 > 0, []

    def take():
        taken.append(right)
        return right

    for _ in range(2):  # the second time after a restart
        bench = opened()
        for name in ("int8 a", "int8 b"):
            found = bench.answers(name, 21, take)
            assert found.dtype == np.bool_
            assert np.array_equal(found, right)
        bench.close()
    assert len(taken) == 2
    opened(weights="trained further").answers("int8 a", 21, take)
    assert len(taken) == 3


def test_its_table_lies_where_it_says_and_predicts_what_it_measured(opened, tiny, monkeypatch):
    monkeypatch.setattr(module, "profile_layers", _few_rows(module.profile_layers))
    bench = opened()
    table = bench.table(lambda done, total: None)
    assert read_table(bench.table_path) == table
    assert table.latency_ms(SearchSpace.of(tiny).full()) > 0
    assert len(table.rows) == 8
    bench.close()


def _few_rows(profile_layers):
    def few(*given, **named):
        # A crowded machine looks like one whose clocks changed: nobody waits until it is as it was.
        return profile_layers(*given, **named, most_rows=8, rounds=2, pause=lambda seconds: None)

    return few
