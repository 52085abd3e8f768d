import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.supernets import write_test_bundle
from tests.trainer.bundles import changed, with_golden
from wenet_runtime.bundle import Bundle
from wenet_trainer.errors import ExportError
from wenet_trainer.standalone import INDEX, export_standalone
from wenet_trainer.standalone_model import TOLERANCE


@pytest.fixture
def bundle(tmp_path):
    write_test_bundle(tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_directory_holds_every_mode_twice_and_says_what_it_holds(bundle, tmp_path):
    files = export_standalone(bundle, tmp_path / "out", quiet=True)
    assert files == tuple(tmp_path / "out" / f"{mode}.onnx" for mode in ("m2", "m1", "m0"))
    triton = [f"triton/tiny_m{n}/{name}" for n in range(3) for name in ("1/model.onnx", "config.pbtxt", "labels.txt")]
    assert names(tmp_path / "out") == sorted(["README.md", INDEX, "m0.onnx", "m1.onnx", "m2.onnx", *triton])
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["bundle_sha256"] == bundle.sha256
    assert [entry["id"] for entry in index["modes"]] == ["m2", "m1", "m0"]
    for entry, mode in zip(index["modes"], bundle.modes, strict=True):
        data = (tmp_path / "out" / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert (tmp_path / "out/triton" / entry["triton_model"] / "1/model.onnx").read_bytes() == data
        assert entry["accuracy"] == dataclasses.asdict(mode.accuracy)
        assert (entry["macs"], entry["params"], entry["precision"]) == (mode.macs, mode.params, "fp32")
        assert entry["groups"] == mode.groups


def test_an_older_directory_is_replaced_whole(bundle, tmp_path):
    export_standalone(bundle, tmp_path / "out", quiet=True)
    write_test_bundle(tmp_path / "small", seed=1, levels=(4,))
    small = Bundle(tmp_path / "small")
    export_standalone(small, tmp_path / "out", quiet=True)
    assert {Path(name).parts[0] for name in names(tmp_path / "out")} == {"README.md", INDEX, "m0.onnx", "triton"}
    assert json.loads((tmp_path / "out" / INDEX).read_text())["bundle_sha256"] == small.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out", "small"]


def test_an_empty_directory_and_what_a_link_points_to_are_taken(bundle, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    for _ in range(2):
        export_standalone(bundle, tmp_path / "out", quiet=True)
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "disk/m0.onnx").is_file()


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"format": "another"}', None])
def test_a_directory_of_somebody_else_is_refused_and_left_alone(bundle, tmp_path, content):
    (tmp_path / "out").mkdir()
    name = "notes.txt" if content is None else INDEX
    (tmp_path / "out" / name).write_text(content or "mine")
    with pytest.raises(ExportError, match=r"out exists and holds no modes.json of .* not replaced: choose another"):
        export_standalone(bundle, tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / name).read_text() == (content or "mine")
    assert names(tmp_path / "out") == [name]


def test_a_file_in_the_way_a_place_below_a_file_and_one_around_the_bundle_are_refused(bundle, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="file exists"):
        export_standalone(bundle, tmp_path / "file", quiet=True)
    with pytest.raises(ExportError, match="cannot write"):
        export_standalone(bundle, tmp_path / "file/out", quiet=True)
    export_standalone(bundle, tmp_path / "out", quiet=True)
    inside = changed(bundle, tmp_path / "out/bundle")
    with pytest.raises(ExportError, match="lies inside"):
        export_standalone(inside, tmp_path / "out", quiet=True)
    assert Bundle(tmp_path / "out/bundle").sha256 == inside.sha256


@pytest.mark.parametrize("older", [False, True])
def test_a_mode_that_answers_otherwise_is_named_and_nothing_is_written(bundle, tmp_path, older):
    if older:
        export_standalone(bundle, tmp_path / "out", quiet=True)
    before = names(tmp_path / "out")

    def spoil(golden):
        golden["m1.logits"] = golden["m1.logits"] + 2 * TOLERANCE * np.abs(golden["m1.logits"]).max()

    wrong = with_golden(bundle, tmp_path / "wrong", spoil)
    with pytest.raises(ExportError, match=r"mode 'm1' cannot .* nothing was written: output 'logits' deviates"):
        export_standalone(wrong, tmp_path / "out", quiet=True)
    assert names(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", *(["out"] if older else []), "wrong"]


def test_without_hard_links_triton_gets_copies(bundle, tmp_path, monkeypatch):
    export_standalone(bundle, tmp_path / "linked", quiet=True)

    def refuse(path, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    export_standalone(bundle, tmp_path / "copied", quiet=True)
    assert names(tmp_path / "copied") == names(tmp_path / "linked")
    for folder, links in (("linked", 2), ("copied", 1)):
        model = tmp_path / folder / "triton/tiny_m0/1/model.onnx"
        assert model.stat().st_nlink == links
        assert model.read_bytes() == (tmp_path / folder / "m0.onnx").read_bytes()


@pytest.mark.parametrize("older", [False, True])
def test_a_kill_leaves_nothing_or_the_older_directory_and_the_next_run_works(bundle, tmp_path, older):
    if older:
        export_standalone(bundle, tmp_path / "out", quiet=True)
    before = names(tmp_path / "out")
    code = f"""
import os, signal
from pathlib import Path
import wenet_trainer.standalone as standalone
from wenet_runtime.bundle import Bundle
standalone.guide = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # all models are written, no index yet
standalone.export_standalone(Bundle(Path({str(bundle.path)!r})), Path({str(tmp_path / "out")!r}), quiet=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    assert names(tmp_path / "out") == before
    assert len(export_standalone(bundle, tmp_path / "out", quiet=True)) == 3


def test_an_interrupt_leaves_nothing(bundle, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("wenet_trainer.standalone.guide", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_standalone(bundle, tmp_path / "out", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
