"""What a device is: everything its engines and figures depend on, and nothing that changes between two starts."""

import dataclasses
from pathlib import Path
from typing import Any, Dict

import pytest

from wenet_runtime.device import Device, this_device

DEVICE = Device("x86_64", "a processor", "avx", 4, "ort", "1.0", 1)
FLAGS = "model name\t: A processor\nflags\t\t: sse avx avx2\n"


@pytest.mark.parametrize(
    "other",
    [
        {"machine": "aarch64"},
        {"processor": "another"},
        {"features": "avx avx512"},
        {"cores": 2},
        {"engine": "sim"},
        {"engine_version": "1.1"},
        {"threads": 2},
        {"runtime_version": "9.9"},
    ],
)
def test_whatever_figures_depend_on_changes_the_fingerprint(other: Dict[str, Any]) -> None:
    assert dataclasses.replace(DEVICE, **other).fingerprint != DEVICE.fingerprint
    assert len(DEVICE.fingerprint) == 16


def test_this_device_is_described_the_same_twice() -> None:
    assert this_device("ort", "1", 1) == this_device("ort", "1", 1)
    assert this_device("ort", "1", 1).cores >= 1
    assert this_device("ort", "1", 1).processor


def test_a_device_without_a_processor_list_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: Path, *args: Any, **more: Any) -> str:
        raise OSError(2, "No such file")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert this_device("ort", "1", 1).processor


def described(monkeypatch: pytest.MonkeyPatch, text: str) -> Device:
    monkeypatch.setattr(Path, "read_text", lambda self, *args, **more: text)
    return this_device("ort", "1", 1)


def test_a_processor_that_hides_some_instructions_is_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = described(monkeypatch, FLAGS)
    assert whole.processor == "A processor"
    hidden = described(monkeypatch, FLAGS.replace(" avx2", ""))
    assert hidden.features != whole.features
    assert hidden.fingerprint != whole.fingerprint


def test_the_order_in_which_a_system_lists_instructions_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(monkeypatch, FLAGS) == described(monkeypatch, FLAGS.replace("sse avx avx2", "avx2 sse avx"))


def test_a_board_s_words_for_it_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    board = described(monkeypatch, "Features\t: fp asimd\nHardware\t: A board\n")
    assert board.processor == "A board"
    assert board.features != described(monkeypatch, "Features\t: fp\nHardware\t: A board\n").features
