import builtins
import os

import numpy as np
import pytest

from tests.trainer.data.images import CLASSES, samples, write_parquet
from wenet_trainer.data.parquet import QUIET, read_parquet
from wenet_trainer.data.splits import complete
from wenet_trainer.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_names_of_the_classes_come_from_the_shards_or_the_labels(tmp_path):
    named = read_parquet(write_parquet(tmp_path / "a.parquet", samples(6)))
    assert named.classes == CLASSES
    numbered = read_parquet(write_parquet(tmp_path / "b.parquet", samples(6), named=False))
    assert numbered.classes == ("0", "1", "2")
    words = read_parquet(write_parquet(tmp_path / "c.parquet", samples(4), ["owl", "jay", "jay", "owl"], named=False))
    assert words.classes == ("jay", "owl")
    assert words.splits["train"].labels.tolist() == [1, 0, 0, 1]


def test_a_row_is_named_by_its_shard_and_its_place_there(tmp_path):
    found = samples(7)
    write_parquet(tmp_path / "train-0.parquet", found[:3])
    write_parquet(tmp_path / "train-1.parquet", found[3:])
    store = read_parquet(tmp_path).splits["train"].store
    assert store.name(2) == f"{tmp_path / 'train-0.parquet'}, row 2"
    assert store.name(3) == f"{tmp_path / 'train-1.parquet'}, row 0"
    assert [store.read(row) for row in range(7)] == [data for data, _ in found]


def test_a_shard_that_changed_is_read_again(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(3))
    assert len(read_parquet(tmp_path).splits["train"]) == 3
    write_parquet(tmp_path / "train.parquet", samples(6, start=50))
    split = read_parquet(tmp_path).splits["train"]
    assert [split.store.read(row) for row in range(6)] == [data for data, _ in samples(6, start=50)]


def test_a_test_split_without_labels_is_left_out_and_that_is_said(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(30))
    write_parquet(tmp_path / "test.parquet", samples(3), [-1, -1, -1])
    whole = complete(read_parquet(tmp_path), seed=0)
    assert len(whole.splits["test"]) == 3  # cut from train
    assert "has no labels (all are -1): it is left out" in whole.notes[0]


def test_gaps_in_the_labels_are_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(20), [0, 3] * 10, named=False)
    with pytest.raises(DataError, match="no training image of classes '1', '2'"):
        complete(read_parquet(tmp_path), seed=0)
    write_parquet(tmp_path / "train.parquet", samples(20), [0, 2] * 10)
    with pytest.raises(DataError, match="no training image of class 'bee'"):
        complete(read_parquet(tmp_path), seed=0)


def test_a_split_that_names_the_classes_in_another_order_is_renumbered(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(6))
    write_parquet(tmp_path / "validation.parquet", samples(3), [0, 1, 2], names=("cat", "ant", "bee"))
    write_parquet(tmp_path / "test.parquet", samples(2), [1, 0], names=("bee", "ant"))
    contents = read_parquet(tmp_path)
    assert contents.classes == CLASSES
    assert contents.splits["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert contents.splits["validation"].labels.tolist() == [2, 0, 1]
    assert contents.splits["test"].labels.tolist() == [0, 1]
    assert contents.notes == ()
    for wrong in (-1, 2):
        write_parquet(tmp_path / "test.parquet", samples(2), [1, wrong], names=("bee", "ant"))
        with pytest.raises(DataError, match=f"test.parquet, row 1 has label {wrong}, which is none of the 3 classes"):
            read_parquet(tmp_path)


def test_a_split_with_a_class_of_its_own_is_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(6))
    write_parquet(tmp_path / "validation.parquet", samples(3), names=("ant", "bee", "dog"))
    with pytest.raises(DataError, match=r"validation.parquet names class 'dog', which the training images do not have"):
        read_parquet(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_names_in_one_split_and_numbers_in_another_are_refused(named, tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(6), named=named)
    write_parquet(tmp_path / "validation.parquet", samples(3), ["ant", "bee", "cat"], named=False)
    with pytest.raises(DataError, match=r"validation.parquet has names as labels, .*train.parquet has numbers"):
        read_parquet(tmp_path)


def test_numbers_of_which_only_some_are_named_are_kept_and_that_is_said(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(6))
    write_parquet(tmp_path / "validation.parquet", samples(3), named=False)
    contents = read_parquet(tmp_path)
    assert contents.splits["validation"].labels.tolist() == [0, 1, 2]
    assert "only some splits" in contents.notes[0]
    write_parquet(tmp_path / "train.parquet", samples(6), named=False)
    write_parquet(tmp_path / "validation.parquet", samples(3), names=("cat", "ant", "bee"))
    contents = read_parquet(tmp_path)
    assert contents.classes == ("0", "1", "2")
    assert contents.splits["validation"].labels.tolist() == [0, 1, 2]
    assert "only some splits" in contents.notes[0]


@pytest.mark.parametrize(
    "other",
    [{"names": ("cat", "bee", "ant")}, {"named": False}, {"labels": ["ant", "bee", "cat"], "named": False}],
    ids=["order", "unnamed", "texts"],
)
def test_shards_of_a_split_whose_labels_mean_different_things_are_refused(other, tmp_path):
    write_parquet(tmp_path / "train-0.parquet", samples(3))
    write_parquet(tmp_path / "train-1.parquet", samples(3), **other)
    with pytest.raises(DataError, match=r"the labels of .*train-1.parquet mean something else than those of .*train-0"):
        read_parquet(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1], "train.parquet, row 1 has no label"),
        ([0, -1, 1], "train.parquet, row 1 has label -1, which is none of the 2 classes"),
        ([0, 5_000_000, 1], "train.parquet, row 1 has label 5000000, but there are only 3 images"),
        ([0, 2**62, 1], f"row 1 has label {2**62}, but there are only 3 images"),
        ([0.5, 1.0, 2.0], "the labels of .*train.parquet are double"),
    ],
)
def test_labels_that_are_none_are_named(labels, message, tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(3), labels, named=False)
    with pytest.raises(DataError, match=message):
        read_parquet(tmp_path)


def test_a_label_that_training_does_not_know_is_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", samples(4), ["owl", "jay", "jay", "owl"], named=False)
    write_parquet(tmp_path / "validation.parquet", samples(2), ["owl", "tit"], named=False)
    with pytest.raises(DataError, match=r"validation.parquet, row 1 has label tit"):
        read_parquet(tmp_path)


def test_files_that_are_damaged_or_have_other_columns_are_named(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    shard = write_parquet(tmp_path / "train.parquet", samples(9))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"train.parquet is no readable Parquet file"):
        read_parquet(tmp_path)
    shard.write_bytes(whole[:4] + bytes(3000) + whole[3004:])
    with pytest.raises(DataError, match=r"the Parquet files beside .*train.parquet cannot be read"):
        read_parquet(tmp_path)
    shard.write_bytes(b"")
    with pytest.raises(DataError, match=r"train.parquet is empty"):
        read_parquet(tmp_path)
    parquet.write_table(pa.table({"picture": [b"x"], "label": [0]}), shard)
    with pytest.raises(DataError, match=r"train.parquet has columns picture, label, none of which is image or img"):
        read_parquet(tmp_path)
    write_parquet(tmp_path / "train.parquet", samples(2))
    parquet.write_table(pa.table({"img": [b"x"], "label": [0]}), tmp_path / "train-2.parquet")
    with pytest.raises(DataError, match="call their columns differently"):
        read_parquet(tmp_path)


def test_plain_binary_columns_are_read_and_paths_are_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"img": [b"one", b"two"], "labels": [0, 1]}), tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet").splits["train"].store.read(1) == b"two"
    cells = pa.array(
        [{"bytes": None, "path": "/etc/passwd"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    parquet.write_table(pa.table({"image": cells, "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet, row 0 holds no bytes"):
        read_parquet(tmp_path / "b.parquet").splits["train"].store.read(0)


def test_the_library_is_told_to_stay_offline_unless_the_user_said_otherwise(tmp_path, monkeypatch):
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    read_parquet(write_parquet(tmp_path / "train.parquet", samples(3)))
    assert {name: os.environ[name] for name in QUIET} == {**QUIET, "HF_HUB_OFFLINE": "0"}


def test_a_missing_library_is_named_with_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError("No module named 'pyarrow'")
        return real(name, *rest)

    shard = write_parquet(tmp_path / "train.parquet", samples(3))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs the package datasets .*pip install 'wenet-trainer\[data\]'"):
        read_parquet(shard)


def test_labels_come_as_class_indices(tmp_path):
    assert read_parquet(write_parquet(tmp_path / "a.parquet", samples(3))).splits["train"].labels.dtype == np.int64
