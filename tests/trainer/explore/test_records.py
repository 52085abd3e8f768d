import json

import pytest

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.records import Records

OWN = {"network": "a"}


def test_what_was_kept_is_there_after_a_restart(tmp_path):
    path = tmp_path / "deep" / "costs.jsonl"
    first = Records(path, OWN)
    assert first.get("x") is None
    first.put("x", [1.5, None])
    first.put("y", {"z": 2})
    again = Records(path, OWN)
    assert (again.get("x"), again.get("y"), len(again)) == ([1.5, None], {"z": 2}, 2)


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_kill_in_the_middle_of_a_line_loses_that_line_alone(tmp_path, cut):
    path = tmp_path / "costs.jsonl"
    records = Records(path, OWN)
    records.put("first", 1)
    records.put("second", 2)
    records.path.write_bytes(records.path.read_bytes()[:-cut])
    again = Records(path, OWN)
    assert again.get("first") == 1
    assert again.get("second") in ((2, None) if cut == 1 else (None,))
    again.put("third", 3)
    assert Records(path, OWN).get("third") == 3
    assert all(json.loads(line) for line in again.path.read_text().splitlines())


def test_values_of_another_identity_are_not_taken_and_not_lost(tmp_path):
    path = tmp_path / "costs.jsonl"
    Records(path, OWN).put("x", 1)
    other = Records(path, {"network": "b"})
    assert other.get("x") is None
    other.put("x", 2)
    assert (Records(path, OWN).get("x"), Records(path, {"network": "b"}).get("x")) == (1, 2)


@pytest.mark.parametrize("damage", [b"\x00\xff\n[1]\n{}\n", b'{"identity": {}}\n', b'{"key": "x"}\n', b'"x"\n'])
def test_damaged_lines_are_passed_over(tmp_path, damage):
    path = tmp_path / "costs.jsonl"
    records = Records(path, OWN)
    records.put("x", 1)
    head, line = records.path.read_bytes().splitlines(keepends=True)
    records.path.write_bytes(head + damage + line)
    assert Records(path, OWN).get("x") == 1
    records.path.write_bytes(damage + line)  # whose it is cannot be told
    again = Records(path, OWN)
    assert again.get("x") is None
    again.put("x", 2)
    assert Records(path, OWN).get("x") == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExploreError, match=r"cannot keep measurements in .*file/costs-\w+\.jsonl"):
        Records(tmp_path / "file" / "costs.jsonl", OWN)


def test_without_a_path_values_live_in_memory():
    records = Records(None, OWN)
    records.put("x", 1)
    assert records.get("x") == 1
