import dataclasses
import json

import pytest

from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import wilson
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.frontier import find_frontier, spread, worthwhile
from wenet_trainer.explore.result import Latency, read_frontier, write_frontier
from wenet_trainer.network import make_network
from wenet_trainer.plots import plot_frontier
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import weight_enabled


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


def test_a_frontier_holds_every_step_and_pareto_modes_from_fast_to_accurate(checkpoint, tiny, tmp_path):
    found = find_frontier(
        checkpoint, tmp_path / "frontier.json", keep=3, search_images=64, draws=24, rounds=5, quiet=True
    )
    assert read_frontier(tmp_path / "frontier.json") == found
    assert len(found.drawn) == 24
    assert found.weights_sha256 == checkpoint.weights_sha256()
    assert found.notes == ()  # nothing is below a threshold of 0
    assert len(found.steps) == 12  # three knobs of five levels each, down to the smallest
    assert set(found.steps[-1].candidates[found.steps[-1].chosen].groups.values()) == {16}
    assert found.accuracy_evaluations == len(found.points()) == found.latency_measurements
    assert 2 <= len(found.modes) <= 3
    assert [mode.id for mode in found.modes] == [f"m{rank}" for rank in range(len(found.modes))]
    assert any(set(mode.groups.values()) == {1} for mode in found.modes)
    times = [mode.latency.p50_ms for mode in found.modes]
    assert times == sorted(times)
    for mode in found.modes:
        assert set(mode.groups) == set(weight_enabled(tiny))
        assert mode.accuracy.images == 96
        assert mode.accuracy.ci_low <= mode.accuracy.value <= mode.accuracy.ci_high
        assert mode.latency.p50_ms <= mode.latency.p95_ms <= mode.latency.p99_ms
        assert mode.found_by in ("paper", "uniform", "random")
    plot_frontier(found, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def table(monkeypatch):
    """Figures written down instead of measured: every level costs accuracy and saves time.

    Uniform configurations are a better bargain, so the search's result is off the front. A test may
    add to the accuracies on all validation images; which configurations they were asked for is kept.
    """

    class Table:
        def __init__(self):
            self.changes = {}
            self.final = []

        def levels(self, config):
            return sum(groups.bit_length() - 1 for groups in config.values())

        def accuracy(self, config):
            return 0.95 - 0.02 * self.levels(config) + 0.03 * (len(set(config.values())) == 1)

        def latency_ms(self, config):
            return 10 - 0.4 * self.levels(config) - (len(set(config.values())) == 1)

        def final_accuracy(self, config):
            self.final.append(config)
            return wilson(round(1000 * (self.accuracy(config) + self.changes.get(config, 0.0))), 1000)

        def final_latencies(self, configs, **_):
            return {name: Latency(*[self.latency_ms(config)] * 3, 1) for name, config in configs.items()}

    table = Table()
    monkeypatch.setattr(Bench, "search_accuracy", lambda _, config: table.accuracy(config))
    monkeypatch.setattr(Bench, "search_latency_ms", lambda _, config: table.latency_ms(config))
    monkeypatch.setattr(Bench, "final_accuracy", lambda _, config: table.final_accuracy(config))
    monkeypatch.setattr(Bench, "final_latencies", lambda _, configs, **kw: table.final_latencies(configs, **kw))
    return table


def explore_with(checkpoint, threshold, path):
    return find_frontier(checkpoint, path, threshold=threshold, search_images=32, draws=64, quiet=True)


def test_modes_below_the_threshold_are_not_kept_though_the_search_saw_them(checkpoint, table, tmp_path):
    found = explore_with(checkpoint, 0.8, tmp_path / "f.json")
    assert any(point.accuracy < 0.8 for point in found.uniforms)
    assert any(point.accuracy < 0.8 for point in found.drawn)
    assert found.steps[-1].candidates[found.steps[-1].chosen].accuracy < 0.8
    assert all(table.accuracy(config) >= 0.8 for config in table.final)
    assert len(found.modes) >= 3
    assert all(mode.accuracy.value >= 0.8 for mode in found.modes)
    assert found.notes == ()
    everything = explore_with(checkpoint, 0.0, tmp_path / "f.json")
    assert everything.modes[0].accuracy.value < 0.8  # so it is the threshold that kept them out


def test_the_searchs_result_is_measured_again_even_off_the_front(checkpoint, table, tmp_path):
    found = explore_with(checkpoint, 0.8, tmp_path / "f.json")
    result = found.result
    assert any(p.accuracy > result.accuracy and p.latency_ms < result.latency_ms for p in found.uniforms)
    assert GroupConfig(result.groups) in table.final


def test_a_finalist_that_all_images_put_below_the_threshold_is_dropped_with_a_note(checkpoint, table, tmp_path):
    found = explore_with(checkpoint, 0.8, tmp_path / "f.json")
    fastest, result = GroupConfig(found.modes[0].groups), GroupConfig(found.result.groups)
    table.changes = {fastest: -0.3, result: -0.2}
    again = explore_with(checkpoint, 0.8, tmp_path / "f.json")
    assert fastest not in [GroupConfig(mode.groups) for mode in again.modes]
    assert all(mode.accuracy.value >= 0.8 for mode in again.modes)
    notes = sorted(again.notes)
    assert len(notes) == 2
    assert notes[0].startswith("a finalist is below the threshold 0.8000 on all 1000 validation images (0.")
    assert notes[1].startswith("the search's result is below the threshold 0.8000 on all 1000")
    assert all(note.endswith(": not kept") for note in notes)


def test_the_full_network_stays_below_the_threshold_with_a_note(checkpoint, table, tiny, tmp_path):
    table.changes = {SearchSpace.of(tiny).full(): -0.5}
    found = explore_with(checkpoint, 0.8, tmp_path / "f.json")
    full = [mode for mode in found.modes if set(mode.groups.values()) == {1}]
    assert len(full) == 1
    assert full[0].accuracy.value < 0.8
    assert all(mode.accuracy.value >= 0.8 for mode in found.modes if mode is not full[0])
    (note,) = found.notes
    assert note.startswith("the full network is below the threshold 0.8000")
    assert "kept, because every figure refers to it" in note


def test_fewer_than_two_modes_or_an_unknown_search_are_refused(checkpoint, tmp_path):
    with pytest.raises(ExploreError, match="keep is 1"):
        find_frontier(checkpoint, tmp_path / "f.json", keep=1, quiet=True)
    with pytest.raises(ExploreError, match="unknown search 'luck': known are paper"):
        find_frontier(checkpoint, tmp_path / "f.json", search="luck", quiet=True)
    assert not (tmp_path / "f.json").exists()


def test_a_mode_hardly_faster_than_a_more_accurate_one_is_not_worthwhile():
    points = [(1.0, 0.7), (1.01, 0.9), (2.0, 0.95), (3.0, 0.94), (2.05, 0.96)]
    assert worthwhile(points) == [1, 4]


def test_spreading_drops_the_points_that_are_missed_least():
    front = [(1.0, 0.5), (2.0, 0.8), (2.1, 0.801), (5.0, 0.95)]
    assert spread(front, 3) == [0, 1, 3]
    assert spread(front, 4) == [0, 1, 2, 3]
    assert 2 in spread(front, 2, always=[0, 2])


def test_a_damaged_or_foreign_frontier_is_refused_by_name(checkpoint, tmp_path):
    path = tmp_path / "frontier.json"
    with pytest.raises(ExploreError, match=r"no frontier at .*frontier.json: make one with"):
        read_frontier(path)
    found = find_frontier(checkpoint, path, keep=2, search_images=32, draws=4, rounds=2, quiet=True)
    good = json.loads(path.read_text())
    for change, message in (
        ("{", "is not JSON"),
        ("[]", "is no wenet-frontier file"),
        (json.dumps({**good, "format_version": 2}), "format version 2"),
        (json.dumps({**good, "modes": 3}), "'modes'"),
    ):
        path.write_text(change)
        with pytest.raises(ExploreError, match=message):
            read_frontier(path)
    write_frontier(path, dataclasses.replace(found, seed=9))
    assert read_frontier(path).seed == 9


def test_a_peer_has_no_modes_to_explore(tmp_path):
    recipe = Recipe(data="generated", model="wenet_trainer.peers.networks:slimmable_small_resnet")
    peer = Checkpoint(recipe, 1, (), make_network(recipe).state_dict(), {})
    with pytest.raises(ExploreError, match="has no weight-enabled layers, so it has no modes to explore"):
        find_frontier(peer, tmp_path / "frontier.json", quiet=True)
