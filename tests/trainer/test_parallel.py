"""Two processes over gloo against one process that does both halves: the same sub-networks, the same gradients."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.few_digits import FEW
from tests.trainer.two_workers import STEPS, steps
from wenet_trainer.checkpoint import FILE, read_checkpoint
from wenet_trainer.errors import TrainingError
from wenet_trainer.models import build
from wenet_trainer.parallel import Workers
from wenet_trainer.recipe import Recipe
from wenet_trainer.train import train

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [*TORCHRUN, str(ROOT / "tests/trainer/two_workers.py"), str(out)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_every_process_trains_the_same_sub_networks(two):
    first, second = (json.loads((two / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["sampled"] == second["sampled"]
    assert len({json.dumps(one, sort_keys=True) for step in first["sampled"] for one in step}) > STEPS
    assert first["losses"] == second["losses"]  # of the whole batch, not of a half


def test_gradients_equal_one_process_that_runs_both_halves_with_their_own_statistics(two):
    torch.manual_seed(0)
    net = build("tiny").train()
    gradients, sampled, losses = steps(net, [Workers(0, 2), Workers(1, 2)], None)
    for rank in (0, 1):
        found = load_file(str(two / f"rank{rank}.safetensors"))
        for index, sums in enumerate(gradients):
            assert {name for name in found if name.startswith(f"{index}.")} == {f"{index}.{name}" for name in sums}
            for name, value in sums.items():
                torch.testing.assert_close(found[f"{index}.{name}"], value, rtol=1e-4, atol=1e-6)
        kept = json.loads((two / f"rank{rank}.json").read_text())
        assert kept["sampled"] == sampled
        assert kept["losses"] == [pytest.approx(one, rel=1e-5) for one in losses]


def test_a_whole_batch_in_one_process_is_another_thing(two):
    """Its batch norms see all images at once: the control of the test above."""
    torch.manual_seed(0)
    gradients, _, _ = steps(build("tiny").train(), [Workers(0, 1)], None)
    found = load_file(str(two / "rank0.safetensors"))
    name = "stem.weight"
    assert float((found[f"0.{name}"] - gradients[0][name]).norm() / gradients[0][name].norm()) > 0.05


def test_running_statistics_are_the_average_over_the_processes(two):
    first, second = (load_file(str(two / f"rank{rank}.safetensors")) for rank in (0, 1))
    buffers = [name for name in first if name.startswith("buffer.")]
    assert buffers
    assert all(torch.equal(first[name], second[name]) for name in buffers)


def test_a_killed_process_costs_no_more_than_the_unfinished_epoch(tmp_path):
    """One of two processes is killed after the first epoch; the same command goes on to the same weights."""
    recipe = Recipe(data=FEW, model="tiny", epochs=3, batch=32, learning_rate=5e-3, teacher="ema")
    command = [
        *TORCHRUN, "-m", "wenet_trainer", "train", "--data", FEW, "--model", "tiny", "--epochs", "3",
        "--learning-rate", "5e-3", "--teacher", "ema", "--validate-images", "32", "--out",
    ]  # fmt: skip
    straight = subprocess.run(
        [*command, str(tmp_path / "straight")],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert straight.returncode == 0, straight.stderr
    torn = tmp_path / "torn"
    with subprocess.Popen(
        [*command, str(torn)], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 120
        while not (torn / FILE).exists() and time.monotonic() < until:
            time.sleep(0.02)
        victims = [pid for pid in _descendants(process.pid) if "LOCAL_RANK=1" in _environment(pid)]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.wait(timeout=100)
    assert victims
    assert process.returncode != 0
    assert 1 <= read_checkpoint(torn).epochs_done < 3
    again = subprocess.run(
        [*command, str(torn)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert again.returncode == 0, again.stderr
    one, other = read_checkpoint(tmp_path / "straight"), read_checkpoint(torn)
    assert one.recipe == other.recipe == recipe
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr("wenet_trainer.train.workers", lambda _device: nullcontext(Workers(0, 3)))
    with pytest.raises(TrainingError, match="32 images cannot be shared by 3 processes: choose a --batch"):
        train(Recipe(data=FEW, model="tiny"), tmp_path, quiet=True)


def test_one_image_for_each_process_is_refused(tmp_path, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr("wenet_trainer.train.workers", lambda _device: nullcontext(Workers(0, 4)))
    with pytest.raises(TrainingError, match=r"leaves each of 4 processes fewer than two.* a --batch of at least 8"):
        train(Recipe(data=FEW, model="tiny", batch=4), tmp_path, quiet=True)


def _descendants(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
