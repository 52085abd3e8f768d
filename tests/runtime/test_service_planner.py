"""One thread plans, the newest plan counts, and no failure ends it."""

import logging
import threading
from typing import List

import pytest

from tests.runtime.fakes import PATIENCE_S
from wenet_runtime.service.planner import Planner


class Held:
    """A piece of work that begins and does not end until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.thread = ""

    def __call__(self) -> None:
        self.thread = threading.current_thread().name
        self.begun.set()
        assert self.let_go.wait(PATIENCE_S), "the test never let it go"


def test_of_what_is_asked_for_while_a_plan_is_made_only_the_newest_is_made_and_after_it() -> None:
    planner, held, done = Planner(), Held(), threading.Event()
    made: List[str] = []
    planner.plan(held)
    assert held.begun.wait(PATIENCE_S)
    for name in ("old", "older than the newest", "newest"):
        planner.plan(lambda name=name: (made.append(name), done.set()))  # type: ignore[misc]
    assert made == []  # never two at once
    held.let_go.set()
    assert done.wait(PATIENCE_S)
    planner.close(PATIENCE_S)
    assert made == ["newest"]


def test_all_plans_are_made_on_the_same_thread() -> None:
    planner, first, second = Planner(), Held(), Held()
    for one in (first, second):
        one.let_go.set()
        planner.plan(one)
        assert one.begun.wait(PATIENCE_S)
    planner.close(PATIENCE_S)
    assert {first.thread, second.thread} == {"wenet-planner"}
    assert not [one for one in threading.enumerate() if one is planner._thread]


def test_a_plan_that_fails_is_logged_once_and_the_next_is_made(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        begun.set()
        raise ArithmeticError("no solution")

    planner = Planner()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            begun = threading.Event()
            planner.plan(fail)
            assert begun.wait(PATIENCE_S)
        last = Held()
        last.let_go.set()
        planner.plan(last)
        assert last.begun.wait(PATIENCE_S)
        planner.close(PATIENCE_S)
    assert [one.message for one in caplog.records] == [
        "a plan failed, the one before it stays: ArithmeticError: no solution"
    ]


def test_where_no_thread_can_be_started_plans_are_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made: List[int] = []
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(threading.Thread, "start", refuse)
        planner = Planner()
        for number in range(3):
            planner.plan(lambda number=number: made.append(number))  # type: ignore[misc]
        planner.close()
    assert made == []
    assert [one.message for one in caplog.records] == [
        "nothing is planned ahead, requests are served without: can't start new thread"
    ]


def test_after_closing_nothing_is_planned_and_what_waits_is_dropped() -> None:
    planner, held = Planner(), Held()
    made: List[str] = []
    planner.plan(held)
    assert held.begun.wait(PATIENCE_S)
    planner.plan(lambda: made.append("waited"))
    planner.close(0.0)  # does not wait for the present plan for longer than it is told
    planner.plan(lambda: made.append("later"))
    held.let_go.set()
    assert planner._thread is not None
    planner._thread.join(PATIENCE_S)
    assert not planner._thread.is_alive()
    assert made == []
