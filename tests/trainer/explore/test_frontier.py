import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.explore import paper_board, two_frontiers
from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore import evaluator, finalists, frontier, subject
from wenet_trainer.explore.exploring import Exploring
from wenet_trainer.explore.frontier import find_frontier
from wenet_trainer.explore.precision import Variant
from wenet_trainer.explore.problem import Cost, Limits
from wenet_trainer.explore.result import read_frontier, write_frontier
from wenet_trainer.explore.routes import Route
from wenet_trainer.explore.shared_prefix import SharedPrefix
from wenet_trainer.network import make_network
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import GroupConfig
from wenet_trainer.supernet import weight_enabled

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


@pytest.fixture
def device(monkeypatch, tiny):
    latency = paper_board.install(monkeypatch, tiny)
    route = Route("board", lambda config: Cost(latency.of(config)), latency)
    monkeypatch.setattr(frontier, "_routes", lambda *_: [route])
    return latency


def timeless(found):
    return dataclasses.replace(found, search_seconds=0.0)


def explored(checkpoint, folder, **asked):
    settings = Exploring(**{"evaluations": 30, "rounds": 50, **asked})
    return find_frontier(checkpoint, folder / "frontier.json", settings, quiet=True)


def test_modes_go_from_fast_to_accurate_and_everything_seen_is_written_down(checkpoint, device, tiny, tmp_path):
    found = explored(checkpoint, tmp_path, modes=3)
    assert read_frontier(tmp_path / "frontier.json") == found
    assert found.weights_sha256 == checkpoint.weights_sha256()
    assert found.accuracy_evaluations == len(found.points) <= 30
    assert len({frozenset(point.groups.items()) for point in found.points}) == len(found.points)
    assert (found.search_images, found.final_images) == (32, 64)
    assert found.tables == ("board",)
    assert 0 <= found.hypervolume < 1
    assert [mode.id for mode in found.modes] == [f"m{rank}" for rank in range(len(found.modes))]
    assert any(set(mode.groups.values()) == {1} for mode in found.modes)
    times = [mode.latency.p50_ms for mode in found.modes]
    assert times == sorted(times)
    accuracies = [mode.accuracy.value for mode in found.modes if set(mode.groups.values()) != {1}]
    assert accuracies == sorted(accuracies)
    for mode in found.modes:
        assert set(mode.groups) == set(weight_enabled(tiny))
        assert mode.accuracy.images == 64
        assert mode.predicted_ms == {"board": device.of(mode.groups)}
        assert mode.latency.p50_ms == pytest.approx(device.of(mode.groups), rel=1e-3)


def test_the_same_seed_gives_the_same_frontier(checkpoint, device, tmp_path):
    one, again = (explored(checkpoint, tmp_path / name, seed=3) for name in "ab")
    other = explored(checkpoint, tmp_path / "c", seed=4)
    assert timeless(one) == timeless(again)
    assert [point.groups for point in one.points] != [point.groups for point in other.points]


def test_a_killed_exploration_goes_on_and_evaluates_nothing_twice(checkpoint, device, tmp_path, monkeypatch):
    whole = explored(checkpoint, tmp_path / "whole")
    evaluated = []
    killed_at = {2}  # the third call
    right = SharedPrefix.right

    def counted(self, configs, *rest):
        if len(evaluated) in killed_at:
            killed_at.clear()
            raise KeyboardInterrupt
        evaluated.append(list(configs))
        return right(self, configs, *rest)

    monkeypatch.setattr(SharedPrefix, "right", counted)
    with pytest.raises(KeyboardInterrupt):
        explored(checkpoint, tmp_path / "killed")
    assert not (tmp_path / "killed" / "frontier.json").exists()
    before = {config for configs in evaluated for config in configs}
    again = explored(checkpoint, tmp_path / "killed")
    searched = [config for configs in evaluated for config in configs if config in before]
    finals = {GroupConfig(one.groups) for one in (*whole.modes, *whole.dropped)}
    assert before
    # Once for the search, and once more on other images for what is measured whole.
    assert all(searched.count(config) == 1 + (config in finals) for config in before)
    assert timeless(again) == timeless(whole)


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_a_kill_loses_no_more_than_was_being_evaluated(checkpoint, device, tmp_path, monkeypatch, pieces):
    evaluated, right = [], SharedPrefix.right

    def counted(self, configs, *rest):
        if len(evaluated) == pieces:
            raise KeyboardInterrupt
        evaluated.append(list(configs))
        return right(self, configs, *rest)

    monkeypatch.setattr(SharedPrefix, "right", counted)
    monkeypatch.setattr(evaluator, "SECONDS", 0.0)  # as where configurations are slow
    with pytest.raises(KeyboardInterrupt):
        explored(checkpoint, tmp_path)
    journals = (tmp_path / "explore").glob("accuracies-*.jsonl")
    assert sum(len(path.read_bytes().splitlines()) - 1 for path in journals) == sum(map(len, evaluated))
    assert max(map(len, evaluated)) <= evaluator.AT_LEAST


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_accuracies_in_other_precisions_are_not_taken_again_after_a_kill(
    checkpoint, device, tmp_path, monkeypatch, killed_at
):
    taken, kill = [], []

    def right(engine, images, preprocess):
        if len(taken) in kill:
            kill.clear()
            raise KeyboardInterrupt
        taken.append(frozenset(engine.config.items()))
        return np.random.default_rng(sum(engine.config.values())).random(len(images)) < 0.5

    monkeypatch.setattr(finalists.precision, "precisions_of", lambda _: ("int8",))
    monkeypatch.setattr(subject, "prepare", lambda *given: Variant(given[2], given[3], {}))
    monkeypatch.setattr(subject, "right", right)
    monkeypatch.setattr(subject.Subject, "_open", lambda _, variant: paper_board.Stand(variant.groups))
    whole = explored(checkpoint, tmp_path / "whole")
    alone = list(taken)
    assert {one.precision for one in (*whole.modes, *whole.dropped)} == {"fp32", "int8"}
    taken.clear()
    kill.append(killed_at)
    with pytest.raises(KeyboardInterrupt):
        explored(checkpoint, tmp_path / "killed")
    again = explored(checkpoint, tmp_path / "killed")
    assert taken == alone
    assert len(set(taken)) == len(taken) > 2
    assert timeless(again) == timeless(whole)
    explored(checkpoint, tmp_path / "killed", modes=2)  # even a third exploration of the same finalists
    assert taken == alone


def test_two_processes_find_the_frontier_of_one_and_the_first_alone_measures_and_writes(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "tests/trainer/explore/two_frontiers.py"), str(together)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = timeless(two_frontiers.explored(alone))
    found = read_frontier(together / "frontier.json")
    assert timeless(found) == wanted
    first, second = (json.loads((together / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["points"] == second["points"] == [dataclasses.asdict(one) for one in wanted.points]
    assert (first["modes"], second["modes"]) == (len(wanted.modes), 0)
    assert min(first["evaluated"], second["evaluated"]) > 0.3 * wanted.accuracy_evaluations
    finals = len(wanted.modes) + len(wanted.dropped)
    assert first["evaluated"] + second["evaluated"] == wanted.accuracy_evaluations + finals


def test_algorithm_2_walks_down_to_its_threshold(checkpoint, device, tmp_path):
    found = explored(checkpoint, tmp_path, method="paper")
    assert found.method == "paper"
    assert any(set(point.groups.values()) == {16} for point in found.points)  # a threshold of 0 ends at the smallest


def test_limits_that_no_mode_keeps_are_refused_and_nothing_is_written(checkpoint, device, tmp_path):
    with pytest.raises(ExploreError, match=r"keeps to the latency limit 0.001 ms: the cheapest needs 18 ms"):
        explored(checkpoint, tmp_path, limits=Limits(max_ms=1e-3))
    with pytest.raises(ExploreError, match=r"full network's accuracy, 0\.\d+, is below --min-accuracy 1\.0000"):
        explored(checkpoint, tmp_path, limits=Limits(min_accuracy=1.0))
    assert not (tmp_path / "frontier.json").exists()


def test_a_limit_of_energy_that_nothing_tells_about_is_refused(checkpoint, device, tmp_path):
    with pytest.raises(ExploreError, match="nothing tells the energy of board: give --meter"):
        explored(checkpoint, tmp_path, limits=Limits(max_mj=5.0))


def test_settings_that_cannot_be_meant_are_refused(checkpoint, tmp_path):
    with pytest.raises(ExploreError, match="--modes is 1"):
        Exploring(modes=1)
    with pytest.raises(ExploreError, match="--evaluations is 0"):
        Exploring(evaluations=0)
    with pytest.raises(ExploreError, match="--measured"):
        Exploring(measured=True, tables=(tmp_path / "nano.json",))
    with pytest.raises(ExploreError, match="unknown search 'luck': known are "):
        explored(checkpoint, tmp_path, method="luck")


def test_a_damaged_or_foreign_frontier_is_refused_by_name(checkpoint, device, tmp_path):
    path = tmp_path / "frontier.json"
    with pytest.raises(ExploreError, match=r"no frontier at .*frontier.json: make one with"):
        read_frontier(path)
    found = explored(checkpoint, tmp_path)
    good = json.loads(path.read_text())
    for change, message in (
        ("{", "is not JSON"),
        ("[]", "is no wenet-frontier file"),
        (json.dumps({**good, "format_version": 1}), "format version 1"),
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


def test_a_terminal_is_told_modes_and_why_others_were_dropped(checkpoint, device, tmp_path):
    found = explored(checkpoint, tmp_path)
    text = "\n".join(found.lines())
    assert all(f"{mode.id}: " in text for mode in found.modes)
    assert text.count("dropped: ") == len(found.dropped)
    assert all(one.why in text for one in found.dropped)
    assert f"{found.accuracy_evaluations} accuracies evaluated" in text
