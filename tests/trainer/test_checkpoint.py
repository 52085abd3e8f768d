import errno

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from wenet_trainer.checkpoint import FILE, Checkpoint, read_checkpoint, write_checkpoint
from wenet_trainer.errors import CheckpointError
from wenet_trainer.models import build
from wenet_trainer.recipe import Recipe


@pytest.fixture
def path(tmp_path):
    net = build("tiny")
    state = {"exp_avg.conv.weight": torch.randn(32, 32, 3, 3), "step.conv.weight": torch.tensor(3.0)}
    checkpoint = Checkpoint(Recipe(model="tiny"), 2, ({"loss_full": 0.5},), net.state_dict(), state)
    write_checkpoint(tmp_path / FILE, checkpoint)
    return tmp_path / FILE


def test_a_checkpoint_rebuilds_the_network(path):
    found = read_checkpoint(path.parent)
    assert (found.epochs_done, found.history, found.recipe.model) == (2, ({"loss_full": 0.5},), "tiny")
    rebuilt = found.network().state_dict()
    assert all(torch.equal(rebuilt[name], value) for name, value in found.weights.items())
    assert found.optimizer["step.conv.weight"] == 3.0


def test_the_weights_hash_survives_the_file_and_changes_with_one_value(path):
    found = read_checkpoint(path)
    assert found.weights_sha256() == read_checkpoint(path).weights_sha256()
    assert Checkpoint(found.recipe, 9, (), found.network().state_dict(), {}).weights_sha256() == found.weights_sha256()
    weights = {name: value.clone() for name, value in found.weights.items()}
    weights["head.bias"][3] += 1e-3
    assert Checkpoint(found.recipe, 2, (), weights, {}).weights_sha256() != found.weights_sha256()


@pytest.mark.parametrize("length", [0, 7, 100, -100])
def test_a_truncated_file_is_refused_by_name(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=f"{FILE} is damaged or no safetensors file"):
        read_checkpoint(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors is a safetensors file, but no wenet-checkpoint"):
        read_checkpoint(tmp_path / "other.safetensors")


def test_an_unknown_version_and_a_damaged_header_are_refused(tmp_path):
    for version, message in (("9", "format version '9'"), ("1", "format version '1'"), ("2", "damaged header")):
        metadata = {"format": "wenet-checkpoint", "format_version": version, "state": "{}"}
        save_file({"x": np.zeros(3, np.float32)}, tmp_path / FILE, metadata)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match="wenet-trainer train --out"):
        read_checkpoint(tmp_path)


def test_weights_of_another_model_are_refused(path):
    found = read_checkpoint(path)
    other = Checkpoint(Recipe(model="digits_resnet"), 2, (), found.weights, {})
    with pytest.raises(CheckpointError, match="do not fit model 'digits_resnet'"):
        other.network()


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left on device.* before is intact; make room"):
        write_checkpoint(path, Checkpoint(Recipe(model="tiny"), 3, (), {}, {}))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("name", "out"), [("run-0.5", "run-0.5"), ("run/checkpoint.safetensors", "run")])
def test_a_run_that_is_not_there_is_named_as_such(tmp_path, name, out):
    with pytest.raises(CheckpointError, match=rf"make one with `wenet-trainer train --out {tmp_path / out}`"):
        read_checkpoint(tmp_path / name)
