import os
import shutil

import numpy as np
import pytest

from tests.trainer.data.images import encode, pixels, samples, write_folder
from wenet_trainer.data.folder import read_folder
from wenet_trainer.errors import DataError


def names(contents, split="train"):
    found = contents.splits[split]
    return [found.store.name(int(row)) for row in found.rows]


def test_classes_are_numbered_in_the_order_of_their_names(tmp_path):
    contents = read_folder(write_folder(tmp_path, {"train": samples(6), "val": samples(3)}))
    assert contents.classes == ("ant", "bee", "cat")
    assert sorted(contents.splits) == ["train", "validation"]
    assert contents.splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert names(contents)[2] == str(tmp_path / "train" / "bee" / "001.png")


def test_without_split_directories_all_images_are_training_images(tmp_path):
    contents = read_folder(write_folder(tmp_path, {"": samples(6)}))
    assert list(contents.splits) == ["train"]
    assert len(contents.splits["train"]) == 6


def test_images_in_deeper_directories_and_behind_links_are_found_and_other_files_are_not(tmp_path):
    write_folder(tmp_path, {"train": samples(6)})
    deep = tmp_path / "train" / "ant" / "more" / "again"
    deep.mkdir(parents=True)
    (deep / "Ünïcode.JPG").write_bytes(encode(pixels(50), "JPEG"))
    (deep / "loop").symlink_to(tmp_path / "train" / "ant")
    for other in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (deep / other).write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "z.png").write_bytes(encode(pixels(51)))
    (tmp_path / "train" / "bee" / "linked").symlink_to(elsewhere)
    found = [name.removeprefix(str(tmp_path / "train")) for name in names(read_folder(tmp_path))]
    assert found == [
        "/ant/000.png", "/ant/003.png", "/ant/more/again/Ünïcode.JPG",
        "/bee/001.png", "/bee/004.png", "/bee/linked/z.png",
        "/cat/002.png", "/cat/005.png",
    ]  # fmt: skip
    store = read_folder(tmp_path).splits["train"].store
    assert store.read(2) == encode(pixels(50), "JPEG")


def link(path, target):
    if path.exists():
        shutil.rmtree(path)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "train" / "dog").mkdir(), "class directory .*train/dog holds no image"),
        (lambda p: (p / "val" / "dog").mkdir(), "val has class 'dog', which the training images do not have"),
        (lambda p: (p / "val" / "bee").rename(p / "bee"), "val has no class 'bee', which the training images have"),
        (lambda p: (p / "validation").mkdir(), "'val' and 'validation', which mean the same split"),
        (lambda p: (p / "train").rename(p / "other"), "has val but no train directory"),
        (lambda p: (p / "val" / "bee" / "001.png").write_bytes(b""), "val/bee/001.png is empty"),
        (lambda p: (p / "val" / "bee" / "x.jpg").symlink_to("nowhere"), r"val/bee/x.jpg cannot be read \(No such file"),
        (lambda p: (p / "train" / "dog").symlink_to("nowhere"), r"train/dog cannot be read \(No such file"),
        (lambda p: link(p / "val", p / "train"), "val/ant and .*train/ant are one directory, but different splits"),
        (lambda p: link(p / "val" / "bee", p / "train" / "bee"), "bee and .*bee are one directory"),
        (lambda p: link(p / "val" / "cat" / "more", p / "train" / "cat"), "cat/more and .*train/cat are one directory"),
    ],
)
def test_directories_that_make_no_sense_are_named(change, message, tmp_path):
    write_folder(tmp_path, {"train": samples(6), "val": samples(3)})
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_a_directory_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path, {"train": samples(6)})
    closed = tmp_path / "train" / "bee" / "closed"
    closed.mkdir()
    scan = os.scandir

    def scandir(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"bee/closed cannot be read \(Permission denied\)"):
        read_folder(tmp_path)


def test_directories_beside_the_splits_are_named_in_a_note(tmp_path):
    write_folder(tmp_path, {"train": samples(6), "val": samples(3)})
    assert read_folder(tmp_path).notes == ()
    (tmp_path / "car").mkdir()
    assert read_folder(tmp_path).notes == (
        f"{tmp_path} has train, val, which are splits: 'car' beside them is passed over",
    )
    (tmp_path / "plane").mkdir()
    assert "'car' and 1 more beside them are passed over" in read_folder(tmp_path).notes[0]


def test_a_class_called_train_is_not_taken_for_a_split_in_silence(tmp_path):
    for name in ("train", "car", "plane"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(encode(pixels(0)))
    with pytest.raises(DataError, match="unless 'train' is a class itself: then move all classes into one directory"):
        read_folder(tmp_path)


def test_a_file_or_a_directory_without_classes_is_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(encode(pixels(0)))
    with pytest.raises(DataError, match="is no directory"):
        read_folder(tmp_path / "1.png")
    with pytest.raises(DataError, match="holds no class directories"):
        read_folder(tmp_path)


def test_labels_are_class_indices(tmp_path):
    assert read_folder(write_folder(tmp_path, {"train": samples(3)})).splits["train"].labels.dtype == np.int64
