import sys

import pytest

from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.errors import TrainingError
from wenet_trainer.logs import FOLDER, row, watcher
from wenet_trainer.options import Options
from wenet_trainer.recipe import Recipe

RECORD = {
    "loss_full": 1.25, "loss_smallest": 2.5, "images_per_s": 321.7, "accuracy_1": 0.875, "accuracy_16": 0.5,
    "seconds": 9.0,
}  # fmt: skip
CHECKPOINT = Checkpoint(Recipe(epochs=4), 2, ({}, RECORD), {}, {})


def test_an_epoch_is_one_row_with_every_mode():
    assert row(CHECKPOINT) == ("epoch 2/4: loss 1.250 full, 2.500 smallest, 1/1 87.5 %, 1/16 50.0 %, 322 images/s")


def test_every_epoch_is_said(tmp_path):
    said = []
    with watcher(tmp_path, Options(), said.append) as watch:
        watch(CHECKPOINT)
    assert said == [row(CHECKPOINT)]
    assert not (tmp_path / FOLDER).exists()


def test_tensorboard_gets_every_number_of_the_record(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    with watcher(tmp_path, Options(tensorboard=True), lambda line: None) as watch:
        watch(CHECKPOINT)
    events = accumulator.EventAccumulator(str(tmp_path / FOLDER))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(RECORD)
    (event,) = events.Scalars("accuracy_16")
    assert (event.step, event.value) == (2, 0.5)


def test_without_tensorboard_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'wenet-trainer\[tensorboard\]'"):
        with watcher(tmp_path, Options(tensorboard=True), lambda line: None):
            pass
