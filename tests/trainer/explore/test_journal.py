import json
import random

import numpy as np
import pytest

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.journal import Journal, packed, unpacked
from wenet_trainer.space import GroupConfig

LAYERS, IMAGES, IDENTITY = ("a", "b", "c"), 21, {"weights": "abc", "data": "digits"}


def opened(path, identity=IDENTITY, images=IMAGES):
    return Journal(path, LAYERS, images, identity)


def some(count, seed=0):
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    configs = [GroupConfig({"c": 1, "a": number + 1, "b": draw.choice((1, 2, 4))}) for number in range(count)]
    return {config: rng.random(IMAGES) < 0.5 for config in configs}


def same(one, other):
    return one.keys() == other.keys() and all((one[config] == other[config]).all() for config in one)


def test_what_was_added_is_read_again_bit_by_bit(tmp_path):
    path, answers = tmp_path / "folder" / "answers.jsonl", some(5)
    journal = opened(path)
    assert journal.read() == {}
    for config, right in answers.items():
        journal.add({config: right})
    again = opened(path)
    assert same(again.read(), answers)
    assert all(right.dtype == np.bool_ for right in again.read().values())
    assert again.set_aside is None


def test_a_kill_at_any_byte_loses_at_most_the_line_that_was_being_written(tmp_path):
    path, answers = tmp_path / "answers.jsonl", some(3)
    opened(path).add(answers)
    content = path.read_bytes()
    head = content.index(b"\n") + 1
    for length in range(head, len(content) + 1):
        path.write_bytes(content[:length])
        journal = opened(path)
        whole = content[head:length].count(b"\n")
        assert same(journal.read(), dict(list(answers.items())[:whole]))
        journal.add(dict(list(answers.items())[whole:]))
        assert same(opened(path).read(), answers)


def test_an_empty_file_is_a_new_journal(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.touch()
    opened(path).add(some(2))
    assert same(opened(path).read(), some(2))


@pytest.mark.parametrize(("identity", "images"), [({**IDENTITY, "weights": "xyz"}, IMAGES), (IDENTITY, 22)])
def test_answers_of_other_weights_or_images_are_set_aside_and_kept(tmp_path, identity, images):
    path = tmp_path / "answers.jsonl"
    opened(path).add(some(2))
    for number in (1, 2):
        content = path.read_bytes()
        other = opened(path, *((identity, images) if number == 1 else (IDENTITY, IMAGES)))
        assert other.read() == {}
        assert other.set_aside == tmp_path / f"answers.jsonl.old-{number}"
        assert other.set_aside.read_bytes() == content


def test_a_damaged_line_is_evaluated_again_and_the_others_are_not(tmp_path):
    path, answers = tmp_path / "answers.jsonl", some(5)
    opened(path).add(answers)
    lines = path.read_bytes().splitlines()
    lines[1] = b"\x00" * 40
    lines[2] = json.dumps({"groups": [1, 2], "right": "AAAA"}).encode()
    lines[3] = json.dumps({"groups": [1, 2, 4], "right": "?"}).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert same(opened(path).read(), dict(list(answers.items())[3:]))


@pytest.mark.parametrize("content", [b"hello\nworld\n", b'{"format": "something"}\n', b"[1]\n", b"\xff\xfe"])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(ExploreError, match="is no journal of accuracies"):
        opened(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 21])
def test_packed_answers_are_unpacked_as_they_were_and_another_number_is_refused(count):
    right = np.random.default_rng(count).random(count) < 0.5
    found = unpacked(packed(right), count)
    assert found.dtype == np.bool_
    assert np.array_equal(found, right)
    with pytest.raises(ValueError, match="answers where"):
        unpacked(packed(right), count + 8)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExploreError, match=r"cannot keep accuracies in .*file/answers.jsonl"):
        opened(tmp_path / "file" / "answers.jsonl")
