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
    path.write_bytes(path.read_bytes()[:-cut])
    again = Records(path, OWN)
    assert again.get("first") == 1
    assert again.get("second") in ((2, None) if cut == 1 else (None,))
    again.put("third", 3)
    assert Records(path, OWN).get("third") == 3
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_values_of_another_identity_are_not_taken(tmp_path):
    path = tmp_path / "costs.jsonl"
    Records(path, OWN).put("x", 1)
    assert Records(path, {"network": "b"}).get("x") is None


def test_a_file_of_something_else_is_replaced(tmp_path):
    path = tmp_path / "costs.jsonl"
    path.write_bytes(b"\x00\xff\n[1]\n{}\n")
    records = Records(path, OWN)
    records.put("x", 1)
    assert Records(path, OWN).get("x") == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExploreError, match=r"cannot keep measurements in .*file/costs\.jsonl"):
        Records(tmp_path / "file" / "costs.jsonl", OWN)


def test_without_a_path_values_live_in_memory():
    records = Records(None, OWN)
    records.put("x", 1)
    assert records.get("x") == 1
