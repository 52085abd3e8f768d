import json

import torch
from safetensors import safe_open

from wenet_trainer.failure import save_batch


def test_a_failed_batch_can_be_looked_at(tmp_path):
    inputs, labels = torch.randn(3, 1, 4, 4), torch.tensor([2, 0, 1])
    path = tmp_path / "run" / "failed-batch-1.safetensors"
    assert save_batch(tmp_path / "run", 1, inputs, labels, [{"conv": 4}]) == f"saved in {path}"
    with safe_open(str(path), framework="pt") as file:
        assert torch.equal(file.get_tensor("inputs"), inputs)
        assert torch.equal(file.get_tensor("labels"), labels)
        assert json.loads(file.metadata()["configs"]) == [{"conv": 4}]


def test_a_batch_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    where = save_batch(tmp_path / "file", 0, torch.zeros(1), torch.zeros(1), [])
    assert where.startswith("not saved (")
