"""Modes on disk: shared numbers once, mapped and not copied. Damage is tested where it is mended, in `test_builder`."""

from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from wenet_runtime.engines.base import Artifact
from wenet_runtime.mode_store import ModeStore, write_modes

IDENTITY = {"engine": "none"}


def written(folder: Path, artifacts: Dict[str, Artifact]) -> ModeStore:
    write_modes(folder, iter(artifacts.items()), identity=IDENTITY)
    return ModeStore(folder, identity=IDENTITY, modes=list(artifacts))


def place(value: Any) -> int:
    address: int = value.__array_interface__["data"][0]
    return address


def test_a_mode_comes_back_as_it_was(tmp_path: Path) -> None:
    numbers = {
        "weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "whole": np.array([-1, 7], np.int64),
        "small": np.array([3], np.int8),
        "none": np.empty((0, 4), np.float32),
        "truth": np.array([True, False]),
        "scalar": np.array(2.5),
    }
    found = written(tmp_path, {"m0": Artifact(b"model", numbers)}).artifact("m0")
    assert found.model == b"model"
    assert set(found.numbers) == set(numbers)
    for name, value in numbers.items():
        assert found.numbers[name].dtype == value.dtype
        assert found.numbers[name].shape == value.shape
        assert np.array_equal(found.numbers[name], value)


def test_what_modes_share_lies_in_one_place(tmp_path: Path) -> None:
    shared, own = np.arange(1000, dtype=np.float32), np.ones(1000, np.float32)
    artifacts = {
        "m0": Artifact(b"0", {"a": shared, "b": own}),
        "m1": Artifact(b"1", {"c": shared.copy(), "d": own + 1}),
    }
    store = written(tmp_path, artifacts)
    first, second = store.artifact("m0").numbers, store.artifact("m1").numbers
    assert place(first["a"]) == place(second["c"])
    assert place(first["b"]) != place(second["d"])
    assert (tmp_path / "modes.bin").stat().st_size == pytest.approx(3 * shared.nbytes, abs=3 * 64)


def test_reading_a_mode_twice_gives_the_same_memory_and_nobody_can_write_to_it(tmp_path: Path) -> None:
    store = written(tmp_path, {"m0": Artifact(b"0", {"a": np.arange(1000, dtype=np.float32)})})
    first, second = (store.artifact("m0").numbers["a"] for _ in range(2))
    assert place(first) == place(second)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_modes_without_numbers_need_no_blob(tmp_path: Path) -> None:
    assert written(tmp_path, {"m0": Artifact(b"engine", {})}).artifact("m0").model == b"engine"


def test_modes_are_written_as_they_come(tmp_path: Path) -> None:
    seen: List[int] = []

    def artifacts() -> Any:
        for number in range(3):
            seen.append(len(list(tmp_path.glob("m*.model"))))
            yield f"m{number}", Artifact(b"x", {})

    write_modes(tmp_path, artifacts(), identity=IDENTITY)
    assert seen == [0, 1, 2]
    assert (tmp_path / "index.json").exists()


def mapped_kb(value: Any) -> int:
    """How much of the mapping that an array lies in is in this process's memory, kB."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(one, 16) for one in words[0].split("-"))
            inside = start <= place(value) < end
        elif inside and words[0] == "Rss:":
            return int(words[1])
    raise AssertionError("it lies in no mapping")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is in memory")
def test_a_mode_that_is_released_takes_no_memory_until_it_is_read_again(tmp_path: Path) -> None:
    size = 1 << 20
    shared, own = np.arange(size, dtype=np.float32), {name: np.full(size, 7, np.float32) for name in ("m0", "m1")}
    own["m1"][0] = 8
    store = written(tmp_path, {name: Artifact(b"", {"a": shared, "b": own[name]}) for name in own})
    numbers = {name: store.artifact(name).numbers for name in own}
    for one in numbers.values():
        assert one["a"].sum() + one["b"].sum() > 0  # touched
    assert mapped_kb(numbers["m0"]["a"]) >= 3 * 4096
    store.release("m0", ["m1"])
    assert 2 * 4096 <= mapped_kb(numbers["m0"]["a"]) < 2 * 4096 + 256  # what m1 shares is kept
    assert np.array_equal(numbers["m0"]["b"], own["m0"])
    assert np.array_equal(numbers["m0"]["a"], shared)
    assert mapped_kb(numbers["m0"]["a"]) >= 3 * 4096
