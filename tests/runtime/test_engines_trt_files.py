"""What TensorRT made is kept whole or not at all, for one device and its owner alone, within a limit."""

import dataclasses
import json
import os
import stat
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from wenet_runtime.engines.trt_files import ABANDONED_S, PLAN, Header, Journal, Origin, Recipe
from wenet_runtime.errors import EngineError

ORIGIN = Origin("8.2.1.8", "NVIDIA Tegra X1", "5.3", "32.7.1")
RECIPE = Recipe(fp16=True, int8=False, fp32_layers=("head",), workspace_bytes=1 << 20, most_rows=8)
HEADER = Header("ab" * 32, ORIGIN, RECIPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "trt"


class TestJournal:
    def test_what_is_written_is_read_by_the_next_process(self, folder: Path) -> None:
        Journal(folder).write("one.plan", b"content")
        found = Journal(folder).read("one.plan")
        assert found is not None
        assert found.tobytes() == b"content"
        assert Journal(folder).read("other.plan") is None

    def test_an_empty_content_is_a_content(self, folder: Path) -> None:
        Journal(folder).write("one.plan", b"")
        found = Journal(folder).read("one.plan")
        assert found is not None
        assert found.size == 0

    def test_only_the_owner_reads_it(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o755)
        Journal(folder).write("one.plan", b"content")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "one.plan").stat().st_mode) == 0o600

    def test_what_a_killed_process_began_to_write_goes_and_what_another_writes_now_stays(self, folder: Path) -> None:
        Journal(folder).write("one.plan", b"content")
        for name, age_s in ((".one.plan.aa", 2 * ABANDONED_S), (".two.plan.bb", 1.0)):
            (folder / name).write_bytes(b"part")
            os.utime(str(folder / name), (time.time() - age_s,) * 2)
        os.utime(str(folder / "one.plan"), (1.0, 1.0))  # whole, however old
        Journal(folder)
        assert sorted(path.name for path in folder.iterdir()) == [".two.plan.bb", "one.plan"]

    @pytest.mark.parametrize("damage", ["shorter", "longer", "changed", "other", "empty", "half a head", "its size"])
    def test_a_damaged_file_is_removed_with_a_warning(self, folder: Path, damage: str) -> None:
        Journal(folder).write("one.plan", b"content" * 100)
        path = folder / "one.plan"
        content = bytearray(path.read_bytes())
        if damage == "changed":
            content[-1] ^= 1
        if damage == "other":
            content[0] ^= 1
        if damage == "its size":
            content[8] ^= 1
        path.write_bytes(
            {
                "shorter": content[:-1],
                "longer": content + b"x",
                "empty": b"",
                "half a head": content[:20],
            }.get(damage, content)
        )
        with pytest.warns(UserWarning, match=r"one\.plan cannot be used"):
            assert Journal(folder).read("one.plan") is None
        assert not path.exists()
        assert Journal(folder).read("one.plan") is None

    def test_the_engines_that_were_used_longest_ago_go_first(self, folder: Path) -> None:
        journal = Journal(folder, limit_bytes=3000)
        for age, name in enumerate("abc"):
            journal.write(name + PLAN, bytes(900))
            os.utime(str(folder / (name + PLAN)), (1000 + age, 1000 + age))
        assert journal.read("a" + PLAN) is not None  # used again, so the youngest now
        journal.write("d" + PLAN, bytes(900))
        assert sorted(path.name for path in folder.iterdir()) == ["a.plan", "c.plan", "d.plan"]

    def test_an_engine_larger_than_the_limit_is_kept_alone(self, folder: Path) -> None:
        journal = Journal(folder, limit_bytes=1000)
        journal.write("a" + PLAN, bytes(900))
        journal.write("b" + PLAN, bytes(5000))
        assert [path.name for path in folder.iterdir()] == ["b.plan"]

    def test_timing_caches_do_not_count(self, folder: Path) -> None:
        journal = Journal(folder, limit_bytes=1000)
        journal.write("a.timing", bytes(5000))
        journal.write("a" + PLAN, bytes(500))
        journal.write("b.timing", bytes(5000))
        assert journal.read("a" + PLAN) is not None
        assert journal.read("a.timing") is not None

    def test_without_a_folder_nothing_is_kept(self, tmp_path: Path) -> None:
        Journal(None).write("one.plan", b"content")
        assert Journal(None).read("one.plan") is None
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(EngineError, match="choose another --cache-dir"):
            Journal(tmp_path / "cache" / "trt")

    def test_a_file_that_cannot_be_written_is_an_error_that_says_what_to_do(self, folder: Path) -> None:
        journal = Journal(folder)
        folder.rmdir()
        with pytest.raises(EngineError, match="choose another --cache-dir"):
            journal.write("one.plan", b"content")


class TestHeader:
    def test_it_is_read_as_it_was_written(self) -> None:
        assert Header.from_bytes(HEADER.to_bytes()) == HEADER

    @pytest.mark.parametrize(
        "changed",
        [
            {"onnx_sha256": "cd" * 32},
            *({"origin": {name: "x"}} for name in ("tensorrt", "gpu", "compute_capability", "l4t")),
            {"recipe": {"fp16": False}},
            {"recipe": {"int8": True}},
            {"recipe": {"fp32_layers": ()}},
            {"recipe": {"workspace_bytes": 1}},
            {"recipe": {"most_rows": 4}},
        ],
    )
    def test_the_key_depends_on_all_of_it(self, changed: Dict[str, Any]) -> None:
        parts: Dict[str, Any] = {"origin": ORIGIN, "recipe": RECIPE}
        given = {
            name: dataclasses.replace(parts[name], **value) if name in parts else value
            for name, value in changed.items()
        }
        other = dataclasses.replace(HEADER, **given)
        assert other.key != HEADER.key
        assert (other.origin.key != ORIGIN.key) == ("origin" in changed)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff\xfe",
            b"8.2.1.8",
            b"[]",
            b"null",
            b"{}",
            b"[" * 100_000,
            json.dumps({**json.loads(HEADER.to_bytes()), "format": 2}).encode(),
            json.dumps({**json.loads(HEADER.to_bytes()), "origin": {"gpu": "x"}}).encode(),
            json.dumps({**json.loads(HEADER.to_bytes()), "recipe": {}}).encode(),
            json.dumps(
                {**json.loads(HEADER.to_bytes()), "recipe": {**dataclasses.asdict(RECIPE), "most_rows": 0}}
            ).encode(),
        ],
    )
    def test_what_is_no_header_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError):
            Header.from_bytes(data)


def test_numbers_are_written_as_bytes(folder: Path) -> None:
    Journal(folder).write("one.plan", np.arange(10, dtype=np.uint8))
    found = Journal(folder).read("one.plan")
    assert found is not None
    assert found.tolist() == list(range(10))
