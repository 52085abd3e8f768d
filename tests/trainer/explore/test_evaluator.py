"""Answers are evaluated once, kept, and shared by processes; that they are right is shown in test_shared_prefix."""

import json
import os
import subprocess
import sys
from itertools import chain, count
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.conftest import lively
from tests.trainer.explore.two_evaluators import calls, evaluator
from wenet_trainer.data.base import Images
from wenet_trainer.errors import ExploreError, NetworkError
from wenet_trainer.evaluate import accuracy_on, recalibrated
from wenet_trainer.explore.evaluator import AT_LEAST, SECONDS, Evaluator
from wenet_trainer.explore.shared_prefix import SharedPrefix
from wenet_trainer.parallel import Workers
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import weight_enabled

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def evaluated(monkeypatch):
    """The configurations that a network is really run with, piece by piece."""
    pieces = []

    def watched(self, configs, *rest):
        pieces.append(list(configs))
        return right(self, configs, *rest)

    right = SharedPrefix.right
    monkeypatch.setattr(SharedPrefix, "right", watched)
    return pieces


def draws():
    return [config for call in calls() for config in call]


def test_accuracies_are_those_of_each_configuration_alone(tiny):
    found = evaluator(Workers(), None)
    for config, value in zip(draws(), found.accuracies(draws()), strict=True):
        with recalibrated(tiny, config, found._calibration):
            assert accuracy_on(tiny, config, found._images, found._preprocess).value == value


def test_a_configuration_is_evaluated_once_in_whatever_order_it_is_asked_for(evaluated):
    found, configs = evaluator(Workers(), None), draws()
    first = found.right(configs)
    again = found.right([*reversed(configs), configs[0]])
    assert all((one == other).all() for one, other in zip(first, [*reversed(again[:-1])], strict=True))
    assert sorted(map(hash, list(chain.from_iterable(evaluated)))) == sorted(map(hash, set(configs)))
    assert found.evaluations == len(set(configs))
    with pytest.raises(ValueError, match="read-only"):
        first[0][0] = True


def test_groups_that_a_layer_does_not_allow_are_the_ones_it_clips_them_to(evaluated):
    found, space = evaluator(Workers(), None), SearchSpace.of(lively("tiny"))
    found.right([space.smallest(), GroupConfig(dict.fromkeys(space.allowed, 4096))])
    assert evaluated == [[space.smallest()]]
    with pytest.raises(NetworkError, match="names unknown"):
        found.right([GroupConfig({"other": 1})])


def test_neighbours_agree_as_long_as_possible(evaluated):
    found = evaluator(Workers(), None)
    found.right(draws())
    order, rows = found.cuts.order, list(chain.from_iterable(evaluated))
    assert [[config[name] for name in order] for config in rows] == sorted(
        [config[name] for name in order] for config in set(draws())
    )


def test_a_restart_evaluates_nothing_again_and_a_kill_loses_only_what_was_not_written(tmp_path, evaluated):
    path, configs = tmp_path / "answers.jsonl", draws()
    expected = evaluator(Workers(), None).right(configs)
    evaluated.clear()
    first = evaluator(Workers(), path)
    first.right(configs[:6])
    content = path.read_bytes()
    path.write_bytes(content[:-5])  # killed while it wrote the last of them
    lost = list(chain.from_iterable(evaluated))[-1:]
    evaluated.clear()
    second = evaluator(Workers(), path)
    assert second.evaluations == len(set(configs[:6])) - 1
    found = second.right(configs)
    assert set(chain.from_iterable(evaluated)) == set(configs) - set(configs[:6]) | set(lost)
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_answers_of_other_weights_are_set_aside(tmp_path, evaluated):
    path = tmp_path / "answers.jsonl"
    evaluator(Workers(), path).right(draws()[:2])
    other = evaluator(Workers(), path, "other weights")
    assert other.set_aside == tmp_path / "answers.jsonl.old-1"
    assert other.evaluations == 0


def test_quick_configurations_are_written_many_at_a_time_and_slow_ones_few(tmp_path, evaluated):
    for seconds, pieces in ((0.0, [AT_LEAST, 10]), (100 * SECONDS, [AT_LEAST, AT_LEAST, 2])):
        evaluated.clear()
        clock = count(0.0, seconds)
        found = evaluator(Workers(), tmp_path / f"{seconds}.jsonl", clock=lambda clock=clock: next(clock))
        found.right(draws())
        assert [len(piece) for piece in evaluated] == pieces


def test_the_network_is_left_as_it_was(tiny):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    found = evaluator(Workers(), None)
    found._net = tiny.train()
    found.right(draws()[:3])
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert all(module.training for module in tiny.modules())
    assert {layer.active_groups for layer in weight_enabled(tiny).values()} == {1}


def test_progress_sums_to_the_configurations_that_were_evaluated():
    found, seen = evaluator(Workers(), None), []
    found._progress = seen.append
    found.right(draws())
    assert sum(seen) == pytest.approx(len(set(draws())))
    found.right(draws())
    assert sum(seen) == pytest.approx(len(set(draws())))


def test_no_images_are_refused(tiny):
    none = Images(np.zeros((0, 1, 32, 32), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(ExploreError, match="0 images and 4 calibration images"):
        Evaluator(tiny, none, None, torch.zeros(4, 1, 32, 32))


def test_two_processes_share_the_work_and_get_the_answers_of_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "tests/trainer/explore/two_evaluators.py"), str(tmp_path)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = evaluator(Workers(), None)
    expected = [np.stack(alone.right(configs)) for configs in calls()]
    for rank in (0, 1):
        with np.load(tmp_path / f"rank{rank}.npz") as file:
            assert all((file[name] == one).all() for name, one in zip(file.files, expected, strict=True))
        members = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert members["evaluated"] == members["resumed"] == alone.evaluations
    assert "disagree" in members["refused"]  # the second rank's configurations were not the first's
    resumed = evaluator(Workers(), tmp_path / "answers.jsonl")
    assert all((np.stack(resumed.right(one)) == bits).all() for one, bits in zip(calls(), expected, strict=True))
