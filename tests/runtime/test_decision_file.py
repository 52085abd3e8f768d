"""The file of decisions: grows by whole lines, rotates once, and is read however it was left."""

import errno
import fcntl
import io
import os
from pathlib import Path
from typing import List

import pytest

from wenet_runtime.decision import Decision, line_of
from wenet_runtime.decision_file import MAX_LINE, DecisionFile, read_log


def line(number: int) -> bytes:
    return line_of(Decision(number, 2.5, "r", 1, 0, "answered", "fits"))


def numbers(path: Path) -> List[int]:
    return [one.number for one in read_log(path)]


def test_lines_are_added_to_a_log_that_was_there(tmp_path: Path) -> None:
    for number in range(3):
        file = DecisionFile(tmp_path / "log", 10_000)
        file.write(line(number))
        file.close()
    assert numbers(tmp_path / "log") == [0, 1, 2]


def test_the_half_line_of_a_killed_daemon_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(line(0) + line(1)[:50])
    file = DecisionFile(tmp_path / "log", 10_000)
    file.write(line(2))
    file.close()
    reading = read_log(tmp_path / "log")
    assert [one.number for one in reading] == [0, 2]
    assert (reading.bad, reading.named, reading.unfinished) == (1, ["line 2 is no JSON"], False)


def test_at_its_size_it_becomes_the_older_part_and_two_parts_are_kept(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(0))
    file = DecisionFile(path, 3 * size)
    for number in range(8):
        file.write(line(number))
    file.close()
    assert (numbers(tmp_path / "log.1"), numbers(path)) == ([3, 4, 5], [6, 7])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.1"]
    for one in tmp_path.iterdir():
        assert one.stat().st_mode & 0o777 == 0o600


def test_what_is_larger_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    file = DecisionFile(tmp_path / "log", 1)
    file.write(line(0) + line(1))
    file.write(line(2))
    file.close()
    assert (numbers(tmp_path / "log.1"), numbers(tmp_path / "log")) == ([0, 1], [2])


def test_a_log_that_someone_removed_or_emptied_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = DecisionFile(path, 10_000)
    file.write(line(0))
    path.unlink()
    file.write(line(1))
    assert numbers(path) == [1]
    os.truncate(path, 0)
    file.write(line(2))
    file.close()
    assert numbers(path) == [2]


def test_a_log_that_someone_moved_goes_on_in_a_new_file_and_the_old_one_is_left_alone(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(0))
    file = DecisionFile(path, 3 * size)
    for number in range(3):
        file.write(line(number))
    path.rename(tmp_path / "log.yesterday")
    file.write(line(3))
    file.close()
    assert (numbers(tmp_path / "log.yesterday"), numbers(path)) == ([0, 1, 2], [3])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.yesterday"]


def test_a_new_file_that_someone_put_in_its_place_is_gone_on_with_and_not_renamed(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(0))
    file = DecisionFile(path, 3 * size)
    for number in range(3):
        file.write(line(number))
    path.rename(tmp_path / "log.yesterday")
    path.write_bytes(line(7))
    file.write(line(8))
    file.close()
    assert numbers(path) == [7, 8]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.yesterday"]


def test_a_link_that_someone_put_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = DecisionFile(path, 10_000)
    file.write(line(0))
    (tmp_path / "other").write_text("mine")
    path.unlink()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        file.write(line(1))
    assert (tmp_path / "other").read_text() == "mine"


def test_a_second_writer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(0))
    first, second = DecisionFile(path, 2 * size), DecisionFile(path, 2 * size)
    first.write(line(0))
    for number in range(1, 4):
        with pytest.raises(OSError, match="another program writes to it"):
            second.write(line(9))
        first.write(line(number))  # also what it has rotated to is its own
    first.close()
    second.write(line(9))
    second.close()
    assert (numbers(tmp_path / "log.1"), numbers(path)) == ([2, 3], [9])


def test_a_file_system_without_locks_has_a_log_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    file = DecisionFile(tmp_path / "log", 10_000)
    file.write(line(0))
    file.close()
    assert numbers(tmp_path / "log") == [0]


def test_a_disk_that_takes_a_part_at_a_time_gets_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DecisionFile(tmp_path / "log", 10_000)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    file.write(line(0))
    file.close()
    assert numbers(tmp_path / "log") == [0]


def test_bad_lines_are_counted_and_the_first_are_named() -> None:
    data = line(0) + b"junk\n\n" * 7 + b"x" * (3 * MAX_LINE) + b"\n" + line(1)
    reading = read_log(io.BytesIO(data))
    assert [one.number for one in reading] == [0, 1]
    assert reading.bad == 8
    assert reading.named == [f"line {number} is no JSON" for number in (2, 4, 6, 8, 10)]


def test_a_line_too_long_is_one_bad_line_even_at_the_end() -> None:
    reading = read_log(io.BytesIO(line(0) + b"x" * (2 * MAX_LINE + 5)))
    assert [one.number for one in reading] == [0]
    assert reading.named == [f"line 2 is longer than {MAX_LINE} bytes"]


def test_a_line_that_is_still_being_written_is_not_bad() -> None:
    for cut in range(1, len(line(1)) - 1):
        reading = read_log(io.BytesIO(line(0) + line(1)[:cut]))
        assert [one.number for one in reading] == [0]
        assert (reading.bad, reading.unfinished) == (0, True)
    whole = read_log(io.BytesIO(line(0) + line(1)[:-1]))  # only its end is missing
    assert [one.number for one in whole] == [0, 1]
    assert not whole.unfinished


def test_an_empty_log_has_nothing_and_nothing_bad(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    reading = read_log(tmp_path / "log")
    assert list(reading) == []
    assert (reading.bad, reading.unfinished) == (0, False)


def test_only_the_file_itself_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_log(tmp_path / "none"))
