"""The decision log: the latest in memory, all in a file, and a daemon that no disk can stop."""

import errno
import logging
import math
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.decision import Decision
from wenet_runtime.decision_file import DecisionFile
from wenet_runtime.decision_log import DecisionLog, read_log


def decision(number: int, **more: Any) -> Decision:
    members = {"time_s": 1.5, "request_id": f"r{number}", "rows": 1, "queued": 0, "outcome": "answered"}
    return Decision(**{**members, "number": number, "reason": "fits", **more})


def numbers(path: Path) -> List[int]:
    return [one.number for one in read_log(path)]


def test_the_latest_are_kept_in_memory_and_no_more() -> None:
    log = DecisionLog(capacity=3)
    for number in range(5):
        log.add(decision(number))
    assert [one.number for one in log.latest()] == [2, 3, 4]
    assert [one.number for one in log.latest(2)] == [3, 4]
    assert log.latest(0) == []
    assert [one.number for one in log.latest(99)] == [2, 3, 4]
    assert log.close()


def test_decisions_of_many_threads_are_numbered_once_each_and_all_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with DecisionLog(path=path, flush_s=0.001) as log:
        threads = [
            threading.Thread(target=lambda: [log.add(decision(log.next_number())) for _ in range(200)])
            for _ in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(PATIENCE_S)
    assert sorted(numbers(path)) == list(range(800))
    assert log.dropped == 0


def test_closing_writes_what_waits_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path=path, flush_s=3600)
    for number in range(100):
        log.add(decision(number))
    assert log.close()
    assert numbers(path) == list(range(100))
    log.add(decision(100))  # a request that ended after the close
    assert log.latest(1)[0].number == 100
    assert (numbers(path)[-1], log.dropped) == (99, 1)


def test_adding_never_waits_for_the_disk_and_what_is_dropped_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, released = threading.Event(), threading.Event()
    write = DecisionFile.write

    def slow(file: DecisionFile, data: bytes) -> None:
        writing.set()
        assert released.wait(PATIENCE_S)
        write(file, data)

    monkeypatch.setattr(DecisionFile, "write", slow)
    log = DecisionLog(path=tmp_path / "log", max_waiting=10, flush_s=0.001)
    log.add(decision(0))
    assert writing.wait(PATIENCE_S)
    for number in range(1, 26):
        log.add(decision(number))
    assert log.dropped == 15
    assert not log.close(timeout_s=0.01)
    released.set()
    assert log._thread is not None
    log._thread.join(PATIENCE_S)
    assert numbers(tmp_path / "log") == list(range(11))
    assert len(log.latest()) == 26


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it never became so"
        time.sleep(0.001)


def test_a_full_disk_stops_the_file_with_one_error_until_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, tried = tmp_path / "log", []

    def full(descriptor: int, data: Any) -> int:
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    log = DecisionLog(path=path, flush_s=0.001, retry_s=0.001)
    number = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        while len(tried) < 3:  # also when it is tried again
            log.add(decision(number))
            number += 1
            time.sleep(0.002)
        until(lambda: log.dropped == number)
        assert log.failure == "No space left on device"
    assert len(log.latest()) == number
    while log.failure is not None:
        log.add(decision(number))
        number += 1
        time.sleep(0.002)
    log.add(decision(number))
    assert not log.close()  # some were lost
    written = numbers(path)
    assert written[-1] == number
    assert len(written) + log.dropped == number + 1
    errors = [one.message for one in caplog.records if one.levelno == logging.ERROR]
    assert errors == [
        f"decisions cannot be written to {path}: No space left on device; serving goes on, and the file is tried again"
    ]


def test_while_a_file_that_failed_is_left_alone_decisions_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DecisionLog(path=tmp_path / "none" / "log", flush_s=0.001)
    (tmp_path / "none").mkdir()
    for number in range(4):
        log.add(decision(number))
    assert log.dropped == 4
    assert log.failure == "No such file or directory"
    assert not log.close()
    assert not (tmp_path / "none" / "log").exists()


def test_of_two_daemons_the_second_one_s_file_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = DecisionLog(path=path, flush_s=0.001)
    second = DecisionLog(path=path, flush_s=0.001, retry_s=0.001)
    assert first.failure is None
    assert second.failure == "another program writes to it: give each server a file of its own"
    second.add(decision(0))
    first.add(decision(1))
    assert first.close()
    until(lambda: second._taking)
    second.add(decision(2))
    assert not second.close()
    assert (second.failure, second.dropped) == (None, 1)
    assert numbers(path) == [1, 2]


@pytest.mark.parametrize("kind", ["no-folder", "folder", "pipe", "link"])
def test_a_path_that_cannot_be_a_log_is_said_at_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "none" / "log" if kind == "no-folder" else tmp_path / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_text("mine")
        path.symlink_to(tmp_path / "other")
    log = DecisionLog(path=path, flush_s=0.001, retry_s=0.001)
    assert log.failure is not None
    assert str(tmp_path) not in log.failure  # it is shown to clients
    time.sleep(0.02)  # it is tried again and again
    log.add(decision(0))
    assert not log.close()
    assert len(log.latest()) == 1
    errors = [one.message for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith(f"decisions cannot be written to {path}: {log.failure}; ")
    assert kind != "link" or (tmp_path / "other").read_text() == "mine"


def test_a_decision_that_json_cannot_hold_is_left_out_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    with DecisionLog(path=path) as log:
        log.add(decision(0))
        log.add(decision(1, reason=object()))
        log.add(decision(2, left_ms=math.inf, cap_mj=math.nan))
    assert numbers(path) == [0, 2]
    assert log.dropped == 1
    assert "decision 1 cannot be written" in caplog.text


def test_the_file_is_its_owner_s_and_one_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    for path, before in ((tmp_path / "new", None), (tmp_path / "old", 0o644)):
        if before is not None:
            path.write_text("")
            path.chmod(before)
        with DecisionLog(path=path) as log:
            log.add(decision(0))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("limits", [{"capacity": 0}, {"max_bytes": 0}, {"max_waiting": -1}])
def test_a_limit_below_one_is_refused(limits: Any) -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        DecisionLog(**limits)
