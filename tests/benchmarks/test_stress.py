import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.stress import CPU, MEMORY, Stress, Stressor, Switch, alternating

ROOT = Path(__file__).resolve().parents[2]


def _gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within so many seconds; a dead one that nobody has asked for counts as ended."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def _more(stress: Stress, before: list[float], position: int, seconds: float = 5.0) -> bool:
    """Whether a process gets processor time within so many seconds."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if stress.cpu_s()[position] > before[position]:
            return True
        time.sleep(0.02)
    return False


def _rests(stress: Stress, seconds: float = 10.0) -> bool:
    """Whether no process gets processor time any more, within so many seconds: a chunk may still be under way."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        before = stress.cpu_s()
        time.sleep(0.2)
        if stress.cpu_s() == before:
            return True
    return False


def test_stress_works_only_while_it_is_switched_on_and_only_where_it_is():
    with Stress([Stressor(CPU), Stressor(MEMORY, polite=True)]) as stress:
        assert _rests(stress)
        rest = stress.cpu_s()
        stress.switch({0})
        assert _more(stress, rest, 0)
        assert stress.cpu_s()[1] == rest[1]
        stress.switch({1})
        assert _more(stress, stress.cpu_s(), 1)
        stress.switch(set())
        assert _rests(stress)


def test_leaving_ends_the_processes_also_while_they_work():
    with Stress([Stressor(CPU), Stressor(MEMORY)]) as stress:
        stress.switch({0, 1})
        pids = stress.pids
    assert all(_gone(pid) for pid in pids)


def test_an_error_inside_ends_them_too():
    stress = Stress([Stressor(CPU)])

    def fail() -> None:
        with stress:
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _gone(stress.pids[0])


def test_a_killed_parent_leaves_no_stress_behind():
    script = (
        "import time\n"
        "from benchmarks.stress import CPU, MEMORY, Stress, Stressor\n"
        "stress = Stress([Stressor(CPU), Stressor(MEMORY)])\n"
        "stress.switch({0, 1})\n"
        "print(*stress.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(parent.pid, signal.SIGKILL)
    assert all(_gone(pid) for pid in pids)


def test_a_stressor_has_the_core_and_the_politeness_that_it_was_given():
    core = max(os.sched_getaffinity(0))
    with Stress([Stressor(CPU, core), Stressor(MEMORY, polite=True)]) as stress:
        assert os.sched_getaffinity(stress.pids[0]) == {core}
        assert [os.sched_getscheduler(pid) for pid in stress.pids] == [os.SCHED_OTHER, os.SCHED_IDLE]


def test_an_unknown_kind_is_no_stress(capfd):
    with pytest.raises(RuntimeError, match="did not start"):
        Stress([Stressor("noise")])
    assert "KeyError" in capfd.readouterr().err


def test_a_schedule_alternates_kinds_and_ends_with_rest():
    on, other, off = frozenset({0}), frozenset({1}), frozenset()
    assert alternating(10, 30, [on, other], first=True) == [
        Switch(0, on), Switch(10, off), Switch(20, other), Switch(30, off),
    ]  # fmt: skip
    assert alternating(10, 20, [on, other], first=False) == [Switch(0, off), Switch(10, on), Switch(20, off)]


def test_following_a_schedule_says_how_late_it_was():
    with Stress([Stressor(CPU)]) as stress:
        start_s = time.monotonic()
        late = stress.follow([Switch(0.0, frozenset({0})), Switch(0.1, frozenset())], start_s)
        assert time.monotonic() - start_s >= 0.1
        assert len(late) == 2
        assert min(late) >= 0
