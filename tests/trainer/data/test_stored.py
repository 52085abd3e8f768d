"""What every layout of files has in common: the same images in, the same images out."""

import socket

import numpy as np
import pytest

from tests.trainer.data.images import CLASSES, pixels, samples, tar_members, write_folder, write_parquet, write_tar
from wenet_trainer.data import full_name, open_source
from wenet_trainer.data.base import input_shape
from wenet_trainer.data.decode import Decoder
from wenet_trainer.data.folder import read_folder
from wenet_trainer.data.stored import Stored
from wenet_trainer.errors import DataError

LAYOUTS = ("folder", "parquet", "webdataset")
COUNTS = {"train": 45, "validation": 9, "test": 6}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(layout, path):
    """The same images in any layout; image i of a split is `pixels(start + i)`."""
    starts = {"train": 0, "validation": 100, "test": 200}
    found = {name: samples(count, starts[name]) for name, count in COUNTS.items()}
    if layout == "folder":
        write_folder(path, found)
    for name, all_of_it in found.items():
        for part in range(2):
            some = all_of_it[part::2]
            if layout == "parquet":
                write_parquet(path / "data" / f"{name}-0000{part}-of-00002.parquet", some)
            elif layout == "webdataset":
                write_tar(path / f"birds-{name}-{part}.tar", tar_members(some, as_json=part == 1))
    if layout == "webdataset":
        (path / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    return f"{layout}:{path}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_comes_out_once_with_its_label_and_pixels(layout, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    source = open_source(write(layout, tmp_path / "set"), 0, 48)
    assert source.labels == CLASSES
    assert input_shape(source) == (3, 48, 48)
    for name, view, start in (("train", source.train(0), 0), ("test", source.test(), 200)):
        images = view.load(range(len(view)))
        assert len(images) == COUNTS[name]
        decode = Decoder(55, draft=True) if name == "train" else Decoder(48)
        wanted = {decode(data, "x").tobytes(): label for data, label in samples(COUNTS[name], start)}
        found = {image.tobytes(): int(label) for image, label in zip(images.pixels, images.labels, strict=True)}
        assert found == wanted
    assert source.notes == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_orders_follow_from_the_seed_and_the_epoch(layout, tmp_path):
    name = write(layout, tmp_path / "set")
    one, two, other = (open_source(name, seed, 32) for seed in (0, 0, 1))
    assert (one.train(3).first(45).pixels == two.train(3).first(45).pixels).all()
    orders = {tuple(view.split.rows) for view in (one.train(0), one.train(1), one.train(1_000_000), other.train(0))}
    assert len(orders) == 4
    assert (one.test().split.rows == two.test().split.rows).all()
    assert len(set(one.validation().first(6).labels)) > 1  # classes are mixed


def test_views_read_any_rows_in_the_order_asked_for(tmp_path):
    view = open_source(write("folder", tmp_path / "set"), 0, 32).test()
    everything = view.first(100)
    assert len(everything) == 6
    assert (view.load([4, 1]).pixels == everything.pixels[[4, 1]]).all()
    assert (view.load(slice(2, 4)).labels == everything.labels[2:4]).all()


def test_grey_sources_have_one_channel(tmp_path):
    write("folder", tmp_path)
    source = Stored.open(read_folder, tmp_path, seed=0, size=32, color="L")
    assert input_shape(source) == (1, 32, 32)
    assert source.train(0).first(2).pixels.shape == (2, 1, 37, 37)


def test_without_a_size_images_are_224_px_and_training_images_leave_room_to_crop(tmp_path):
    source = open_source(write("folder", tmp_path), 0)
    assert source.validation().first(1).pixels.shape == (1, 3, 224, 224)
    assert source.train(0).first(1).pixels.shape == (1, 3, 256, 256)


def test_missing_splits_are_cut_and_the_source_says_so(tmp_path):
    source = open_source(f"folder:{write_folder(tmp_path, {'': samples(60)})}", 0, 32)
    assert [len(view) for view in (source.train(0), source.validation(), source.test())] == [48, 6, 6]
    assert len(source.notes) == 2


def test_a_damaged_image_is_named_when_it_is_read(tmp_path):
    name = write("folder", tmp_path)
    broken = tmp_path / "train" / "bee" / "001.png"
    broken.write_bytes(broken.read_bytes()[:500])
    source = open_source(name, 0, 32)
    with pytest.raises(DataError, match=r"train/bee/001.png is damaged or cut short"):
        source.train(0).first(45)
    (tmp_path / "test" / "ant" / "000.png").unlink()
    with pytest.raises(DataError, match=r"test/ant/000.png cannot be read .No such file"):
        source.test().first(6)


def test_names_that_lead_nowhere_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no /no/such/place"):
        open_source("folder:/no/such/place", 0)
    with pytest.raises(DataError, match="does not say where the images are"):
        open_source("parquet:", 0)
    with pytest.raises(DataError, match=r"nown are digits, .*folder:PATH, parquet:PATH, webdataset:PATH"):
        open_source("folders", 0)
    with pytest.raises(DataError, match="image size 5000 is out of range"):
        open_source(write("folder", tmp_path), 0, 5000)
    with pytest.raises(DataError, match="'digits' has images of one size"):
        open_source("digits", 0, 64)
    with pytest.raises(DataError, match="unknown colour 'CMYK'"):
        Stored.open(read_folder, tmp_path, seed=0, color="CMYK")


def test_a_full_name_means_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert full_name("folder:birds") == f"folder:{tmp_path / 'birds'}"
    assert full_name("digits") == "digits"
    assert full_name("my.package:Source") == "my.package:Source"


def test_pictures_of_different_values_differ():
    assert (np.asarray(pixels(0)) != pixels(1)).any()
