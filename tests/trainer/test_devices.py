import pytest
import torch

from wenet_trainer.devices import open_device
from wenet_trainer.errors import TrainingError


def test_without_a_gpu_everything_runs_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_device("auto", 3) == open_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(TrainingError, match="no CUDA device was found: train with --device cpu"):
        open_device("cuda", 0)


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device("auto", 1) == torch.device("cuda", 1)
    assert open_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(TrainingError, match="has 2 GPUs and at least 3 processes"):
        open_device("auto", 2)
