"""Which modes must not serve is kept for what was built, and for nothing that is built later."""

from pathlib import Path

import pytest

from wenet_runtime.refused_file import FILE, MAX_BYTES, read_refused, write_refused

REASONS = {"m1": "it deviates"}


def test_reasons_are_read_as_they_were_written_by_their_owner_only(tmp_path: Path) -> None:
    write_refused(tmp_path, REASONS, built="a")
    assert read_refused(tmp_path, built="a") == REASONS
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_reasons_are_not_those_of_what_is_built_later(tmp_path: Path) -> None:
    write_refused(tmp_path, REASONS, built="a")
    assert read_refused(tmp_path, built="b") == {}


def test_without_reasons_nothing_lies_there(tmp_path: Path) -> None:
    write_refused(tmp_path, {}, built="a")
    write_refused(tmp_path, REASONS, built="a")
    write_refused(tmp_path, {}, built="a")
    assert list(tmp_path.iterdir()) == []
    assert read_refused(tmp_path, built="a") == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"built": "a"}', '{"built": "a", "refused": 1}', '{"refused": {}}', "[" * 9999]
)
def test_a_damaged_file_is_told_and_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.warns(UserWarning, match="run `wenet-runtime build --verify` again"):
        assert read_refused(tmp_path, built="a") == {}


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.warns(UserWarning, match="larger than"):
        read_refused(tmp_path, built="a")
