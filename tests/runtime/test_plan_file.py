"""A plan is kept per device; whatever does not fit is ignored with a warning and measured again."""

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from wenet_runtime.device import this_device
from wenet_runtime.errors import EngineError
from wenet_runtime.plan import Figures
from wenet_runtime.plan_file import plan_path, read_figures, write_figures

DEVICE = this_device("ort", "1", 1)
FIGURES = Figures({"0123456789abcdef": {"1.1.16": 0.5, "4": 2.0}}, 50_000.0)


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    path = plan_path(tmp_path, DEVICE)
    write_figures(path, DEVICE, FIGURES)
    assert read_figures(path, DEVICE) == FIGURES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_plan_there_are_no_figures(tmp_path: Path) -> None:
    assert read_figures(plan_path(tmp_path, DEVICE), DEVICE) == Figures()


@pytest.mark.parametrize(
    "change",
    [
        {"engine_version": "2"},
        {"processor": "another"},
        {"features": "less"},
        {"threads": 4},
    ],
)
def test_another_device_has_another_plan_and_does_not_take_this_one(change: Dict[str, Any], tmp_path: Path) -> None:
    other = dataclasses.replace(DEVICE, **change)
    assert plan_path(tmp_path, other) != plan_path(tmp_path, DEVICE)
    path = plan_path(tmp_path, DEVICE)
    write_figures(path, DEVICE, FIGURES)
    with pytest.warns(UserWarning, match="another device"):
        assert read_figures(path, other) == Figures()


def damaged(change: Callable[[Dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        members = json.loads(data)
        change(members)
        return json.dumps(members).encode()

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\xff\xfe",
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: b" " * (17 << 20),
        damaged(lambda members: members.update(version=2)),
        damaged(lambda members: members.update(peak=-1)),
        damaged(lambda members: members.update(peak="fast")),
        damaged(lambda members: members.update(peak=10**400)),
        damaged(lambda members: members.update(peak=float("inf"))),
        damaged(lambda members: members.update(times_ms=[])),
        damaged(lambda members: members["times_ms"].update({"../../etc": {}})),
        damaged(lambda members: members["times_ms"].update({"0" * 16: {"1": float("nan")}})),
        damaged(lambda members: members["times_ms"].update({"0" * 16: {"1": True}})),
        damaged(lambda members: members["times_ms"].update({"0" * 16: {"-1": 1.0}})),
        damaged(lambda members: members["times_ms"].update({"0" * 16: [1]})),
        damaged(lambda members: members.pop("times_ms")),
    ],
)
def test_a_damaged_plan_is_ignored_with_a_warning(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = plan_path(tmp_path, DEVICE)
    write_figures(path, DEVICE, FIGURES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="measuring again"):
        assert read_figures(path, DEVICE) == Figures()


def test_a_cache_that_cannot_be_written_says_which_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where a folder should be")
    with pytest.raises(EngineError, match="--cache-dir"):
        write_figures(plan_path(tmp_path, DEVICE), DEVICE, FIGURES)
