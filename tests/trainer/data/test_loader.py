import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.data.images import samples, write_folder, write_parquet
from wenet_trainer.data import loader, open_source
from wenet_trainer.data.base import Images
from wenet_trainer.data.digits import Digits
from wenet_trainer.data.generated import Generated
from wenet_trainer.data.loader import batches
from wenet_trainer.data.verify import verify
from wenet_trainer.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Killed:
    """A view whose reading kills the process that does it."""

    in_memory: bool = False

    def __len__(self) -> int:
        return 8

    def load(self, rows: object) -> Images:
        os._exit(9)

    def first(self, count: int) -> Images:
        raise AssertionError


@dataclass(frozen=True)
class Reader:
    """A view whose labels are the number of the process that read them."""

    in_memory: bool = False

    def __len__(self) -> int:
        return 8

    def load(self, rows: object) -> Images:
        return Images(np.zeros((1, 1, 4, 4), np.uint8), np.array([os.getpid()]))

    def first(self, count: int) -> Images:
        raise AssertionError


@dataclass(frozen=True)
class Unsendable:
    secret: object
    in_memory: bool = False

    def __len__(self) -> int:
        return 8

    def load(self, rows: object) -> Images:
        raise AssertionError

    def first(self, count: int) -> Images:
        raise AssertionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", {"train": samples(50), "val": samples(3), "test": samples(3)})


def view(path: Path, epoch: int = 0):
    return open_source(f"folder:{path}", 0, 32).train(epoch)


def same(one, two):
    return len(one) == len(two) and all(
        (a.pixels == b.pixels).all() and (a.labels == b.labels).all() for a, b in zip(one, two, strict=True)
    )


def test_batches_are_whole_and_in_the_views_order(folder):
    found = list(batches(view(folder), 16))
    assert [len(images) for images in found] == [16, 16, 16]
    everything = view(folder).first(48)
    assert (np.concatenate([images.pixels for images in found]) == everything.pixels).all()
    assert (np.concatenate([images.labels for images in found]) == everything.labels).all()
    assert [len(images) for images in batches(view(folder), 16, keep_last=True)] == [16, 16, 16, 2]
    assert list(batches(view(folder), 51)) == []


def test_the_sequence_is_the_same_whoever_decodes(folder):
    here = list(batches(view(folder), 16, keep_last=True))
    assert same(here, list(batches(view(folder), 16, workers=2, keep_last=True)))
    assert not same(here, list(batches(view(folder, 1), 16, keep_last=True)))


def test_reading_processes_leave_torchs_random_numbers_alone(folder):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    list(batches(view(folder), 16, workers=1))
    assert torch.equal(torch.rand(3), wanted)


def test_the_ranks_slices_make_up_the_batch(folder):
    whole = list(batches(view(folder), 12))
    ranks = [list(batches(view(folder), 12, rank=rank, world=3)) for rank in range(3)]
    for step, images in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert [len(part) for part in parts] == [4, 4, 4]
        assert (np.concatenate([part.pixels for part in parts]) == images.pixels).all()


def test_images_in_memory_are_cut_without_a_copy_or_a_process():
    images = Images(np.zeros((10, 1, 4, 4), np.uint8), np.arange(10))
    found = list(batches(images, 4, workers=2))
    assert [list(batch.labels) for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert np.shares_memory(found[0].pixels, images.pixels)


@pytest.mark.parametrize("source", [Generated(train_images=48), Digits()], ids=lambda source: type(source).__name__)
def test_sources_that_hold_their_images_in_memory_are_never_sent_to_other_processes(source, monkeypatch):
    def refuse(*_):
        raise AssertionError("the view was sent")

    monkeypatch.setattr(loader, "_elsewhere", refuse)
    for view in (source.train(1), source.train(1).first(40)):
        assert same(list(batches(view, 16, workers=2)), list(batches(view, 16)))
        assert verify(view, workers=2) == len(view)
    with pytest.raises(AssertionError, match="was sent"):
        list(batches(Reader(), 4, workers=2))


def test_a_damaged_image_ends_the_reading_with_its_name_and_no_traceback(folder):
    broken = folder / "train" / "cat" / "002.png"
    broken.write_bytes(broken.read_bytes()[:500])
    for workers in (0, 2):
        started = time.monotonic()
        with pytest.raises(DataError, match=r"train/cat/002.png is damaged or cut short") as error:
            list(batches(view(folder), 16, workers=workers, keep_last=True))
        assert "Traceback" not in str(error.value)
        assert time.monotonic() - started < 30


def test_a_reading_process_that_dies_is_reported_and_not_waited_for():
    started = time.monotonic()
    with pytest.raises(DataError, match="a reading process ended"):
        list(batches(Killed(), 4, workers=1))
    assert time.monotonic() - started < 60


def test_reading_processes_end_with_a_training_that_is_killed():
    script = (
        "import time\nfrom tests.trainer.data.test_loader import Reader\n"
        "from wenet_trainer.data.loader import batches\n"
        "found = batches(Reader(), 1, workers=1)\n"
        "print(int(next(found).labels[0]), flush=True)\n"
        "time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as training:
        assert training.stdout is not None
        reader = Path("/proc", training.stdout.readline().decode().strip())
        assert reader.exists()
        training.kill()
    deadline = time.monotonic() + 20
    while reader.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not reader.exists()


def test_a_view_that_cannot_travel_is_refused():
    with pytest.raises(DataError, match=r"cannot be sent to reading processes .*use --workers 0"):
        list(batches(Unsendable(lambda: 0), 4, workers=1))


def test_parquet_shards_are_read_by_other_processes_too(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "train.parquet", samples(30))
    stored = open_source(f"parquet:{tmp_path}", 0, 32).train(0)
    assert same(list(batches(stored, 8)), list(batches(stored, 8, workers=1)))


def test_requests_that_make_no_sense_are_refused():
    images = Images(np.zeros((10, 1, 4, 4), np.uint8), np.arange(10))
    with pytest.raises(DataError, match="cannot be shared evenly by 3 ranks"):
        list(batches(images, 4, world=3))
    with pytest.raises(DataError, match="cannot be shared evenly"):
        list(batches(images, 4, world=2, keep_last=True))
    with pytest.raises(DataError, match="rank 2 of 2 make no sense"):
        list(batches(images, 4, rank=2, world=2))


def test_verifying_counts_the_images_or_names_those_that_cannot_be_read(folder):
    assert verify(view(folder)) == 50
    for name in ("train/ant/000.png", "train/bee/001.png"):
        (folder / name).write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(DataError, match="2 of 50 images cannot be read") as error:
            verify(view(folder), workers=workers)
        assert "ant/000.png is no image" in str(error.value)
        assert "bee/001.png is no image" in str(error.value)
