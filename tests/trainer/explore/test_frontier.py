import dataclasses
import json

import pytest

from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.frontier import find_frontier, spread, worthwhile
from wenet_trainer.explore.result import read_frontier, write_frontier
from wenet_trainer.recipe import Recipe
from wenet_trainer.report import plot_frontier
from wenet_trainer.supernet import weight_enabled


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


def test_a_frontier_holds_every_step_and_pareto_modes_from_fast_to_accurate(checkpoint, tiny, tmp_path):
    found = find_frontier(checkpoint, tmp_path / "frontier.json", keep=3, search_images=64, rounds=5, quiet=True)
    assert read_frontier(tmp_path / "frontier.json") == found
    assert len(found.drawn) == 24
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
    found = find_frontier(checkpoint, path, keep=2, search_images=32, rounds=2, quiet=True)
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
