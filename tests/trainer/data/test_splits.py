import numpy as np
import pytest

from wenet_trainer.data.contents import Contents, Split
from wenet_trainer.data.splits import MOST, complete
from wenet_trainer.errors import DataError


class Nothing:
    def read(self, row: int) -> bytes:
        return b""

    def name(self, row: int) -> str:
        return str(row)


def split(labels) -> Split:
    return Split(Nothing(), np.arange(len(labels)), np.asarray(labels, np.int64))


def contents(classes=("ant", "bee", "cat"), **splits) -> Contents:
    return Contents("/birds", classes, {name: split(labels) for name, labels in splits.items()})


LABELS = [0] * 100 + [1] * 50 + [2] * 10


def test_missing_splits_are_cut_from_train_class_by_class():
    whole = complete(contents(train=LABELS), seed=3)
    rows = [set(whole.splits[name].rows) for name in ("train", "validation", "test")]
    assert sum(map(len, rows)) == 160
    assert rows[0] | rows[1] | rows[2] == set(range(160))  # with the sum: no image twice
    assert np.bincount(whole.splits["validation"].labels).tolist() == [10, 5, 1]
    assert np.bincount(whole.splits["test"].labels).tolist() == [10, 5, 1]
    for part in whole.splits.values():
        assert (part.labels == np.asarray(LABELS)[part.rows]).all()
    assert [note for note in whole.notes if "16 of 160 training images are set aside" in note] == list(whole.notes)
    assert len(whole.notes) == 2


def test_the_cut_follows_the_seed():
    def aside(seed):
        return complete(contents(train=LABELS), seed).splits["test"].rows.tolist()

    assert aside(1) == aside(1)
    assert aside(1) != aside(2)


def test_splits_that_are_there_are_kept_and_only_the_others_are_cut():
    whole = complete(contents(train=LABELS, validation=[2, 1, 0]), seed=0)
    assert len(whole.splits["validation"]) == 3
    assert len(whole.splits["test"]) == 16
    assert "has no test split" in whole.notes[0]
    untouched = complete(contents(train=LABELS, validation=[0, 1, 2], test=[0, 1, 2]), seed=0)
    assert len(untouched.splits["train"]) == 160
    assert untouched.notes == ()


def test_of_many_images_no_more_are_set_aside_than_a_test_needs():
    many = complete(contents(("ant", "bee"), train=[0, 1] * (10 * MOST)), seed=0)
    assert len(many.splits["test"]) == len(many.splits["validation"]) == MOST


def test_a_class_without_test_images_is_mentioned():
    whole = complete(contents(train=LABELS, validation=[0, 1, 2], test=[0, 2]), seed=0)
    assert whole.notes == ("the test split of /birds has no image of class 'bee'",)


def test_every_class_has_an_image_in_a_split_that_was_cut_even_past_the_limit(monkeypatch):
    monkeypatch.setattr("wenet_trainer.data.splits.MOST", 5)
    many = complete(contents(tuple(map(str, range(8))), train=list(range(8)) * 20), seed=0)
    assert sorted(many.splits["test"].labels) == list(range(8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"validation": [0, 1]}, "no training images .found: validation"),
        ({"train": []}, "no training images"),
        ({"train": [1] * 20}, r"one class only \('bee'\)"),
        ({"train": [0, 2] * 20}, r"no training image of class 'bee' \(labels run from 0 to 2\)"),
        ({"train": LABELS, "validation": []}, "the validation split of /birds is empty"),
        ({"train": LABELS, "validation": [0, 1]}, "validation split of /birds has no image of class 'cat'"),
        ({"train": [0, 1, 2, 2, 2] + [0, 1]}, "class 'ant' of /birds has 2 training images, too few to set 2 aside"),
    ],
)
def test_labels_that_make_no_sense_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        complete(contents(**given), seed=0)


def test_many_gaps_are_counted_not_all_named():
    with pytest.raises(DataError, match=r"classes '1', '2', .*'8' and 11 more"):
        complete(contents(tuple(map(str, range(21))), train=[0, 20] * 5), seed=0)
