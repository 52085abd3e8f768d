"""A child that is read by line: whole lines only, bounded, and gone when it is ended."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from tests.runtime.child_watch import children, descriptors, until
from wenet_runtime.meters.line_child import LONGEST_LINE, LineChild


@pytest.fixture
def begun() -> Iterator[List[LineChild]]:
    """Children that are ended whatever happens."""
    all_of_them: List[LineChild] = []
    yield all_of_them
    for child in all_of_them:
        child.end()


def shell(begun: List[LineChild], script: str) -> LineChild:
    child = LineChild(("/bin/sh", "-c", script))
    begun.append(child)
    return child


def everything(child: LineChild) -> List[str]:
    """All lines to the end."""
    found: List[str] = []
    while True:
        lines: Optional[List[str]] = child.lines(60.0)
        if lines is None:
            return found
        found += lines


def test_lines_come_whole_and_in_order(begun: List[LineChild]) -> None:
    assert everything(shell(begun, "echo one; printf 'tw'; sleep 0.1; echo o; echo three")) == ["one", "two", "three"]


def test_a_last_line_without_an_end_is_left_out(begun: List[LineChild]) -> None:
    assert everything(shell(begun, "echo one; printf 'VDD_IN 1405/140'")) == ["one"]


def test_what_a_child_complains_of_is_read_along(begun: List[LineChild]) -> None:
    assert everything(shell(begun, "echo 'no permission' >&2")) == ["no permission"]


def test_bytes_that_are_no_text_are_still_a_line(begun: List[LineChild]) -> None:
    assert [len(line) for line in everything(shell(begun, r"printf '\377\000x\n'"))] == [3]


def test_a_pipe_that_cannot_be_read_is_one_that_ended(begun: List[LineChild], monkeypatch: pytest.MonkeyPatch) -> None:
    child = shell(begun, "echo one; sleep 600")

    def broken(descriptor: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("wenet_runtime.meters.line_child.os.read", broken)
        assert child.lines(60.0) is None


def test_waiting_for_a_silent_child_has_an_end(begun: List[LineChild]) -> None:
    child = shell(begun, "sleep 600")
    assert child.lines(0.01) == []


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_read(begun: List[LineChild]) -> None:
    long = f"head -c {10 * LONGEST_LINE} /dev/zero; echo"
    assert everything(shell(begun, f"echo one; {long}; echo two; {long}; echo three")) == ["one", "two", "three"]


def test_so_is_one_that_comes_at_once(begun: List[LineChild], tmp_path: Path) -> None:
    longest = "x" * LONGEST_LINE
    (tmp_path / "lines").write_text(f"{longest}\n{longest}x\ntwo\n")
    assert everything(shell(begun, f"cat {tmp_path}/lines")) == [longest, "two"]


def test_a_line_that_never_ends_is_not_kept(begun: List[LineChild]) -> None:
    child = shell(begun, "exec cat /dev/zero")
    for _ in range(100):
        assert child.lines(60.0) == []
        assert len(child._begun) <= LONGEST_LINE


def test_a_child_that_will_not_go_is_ended_by_force_and_leaves_nothing() -> None:
    before = descriptors()
    child = LineChild(("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    assert child.lines(60.0) == ["ready"]
    assert child.end() == -9
    assert child.pid not in dict(children())
    assert descriptors() == before


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -SEGV $$", -11)])
def test_how_it_ended_by_itself_is_told(script: str, code: int) -> None:
    child = LineChild(("/bin/sh", "-c", script))
    assert child.lines(60.0) is None
    assert until(lambda: dict(children()).get(child.pid) == "Z")
    assert child.end() == code


def test_one_that_runs_is_asked_to_end() -> None:
    child = LineChild(("/bin/sh", "-c", "echo ready; exec sleep 600"))
    assert child.lines(60.0) == ["ready"]
    assert child.end() == -15


def test_it_does_not_share_the_terminal_interrupt(begun: List[LineChild]) -> None:
    assert os.getsid(shell(begun, "sleep 600").pid) != os.getsid(0)


def test_what_is_no_program_cannot_be_started(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError):
        LineChild((str(tmp_path / "nothing"),))
    assert descriptors() == before


def test_a_child_left_behind_by_a_killed_parent_ends_when_it_next_prints() -> None:
    parent = (
        "import os, signal\n"
        "from wenet_runtime.meters.line_child import LineChild\n"
        "child = LineChild(('/bin/sh', '-c', 'while echo line; do sleep 0.05; done'))\n"
        "assert child.lines(60.0)\n"
        "os.write(1, str(child.pid).encode())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -9
    pid = int(done.stdout)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody waits for it
        except OSError:
            return True

    assert until(gone)
