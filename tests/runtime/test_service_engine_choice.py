"""`--engine auto` measures once per device, engines and bundle, and keeps the choice."""

import json
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from tests.supernets import write_test_bundle
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.auto import CANDIDATES, Selection
from wenet_runtime.engines.base import Artifact, Backend
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.service.engine_choice import choice_path, chosen_engine


class Engines:
    """Engines that all are ONNX Runtime under other names."""

    def __init__(self, bundle: Bundle, *, missing: str = "", version: str = "1") -> None:
        self.bundle = bundle
        self.missing = missing
        self.version = version
        self.built: List[str] = []

    def make(self, name: str) -> Backend:
        if name == self.missing:
            raise EngineError(f"{name} is not installed")
        backend = OrtBackend()
        backend.name, backend.version = name, self.version
        return backend

    def artifact(self, backend: Backend, mode: Mode) -> Artifact:
        self.built.append(backend.name)
        graph = lower(Supernet.of(self.bundle), mode.groups, self.bundle.statistics(mode))
        return backend.build(graph, mode.id)

    def choose(self, path: Path, threads: int = 1, plan_id: str = "tuned") -> Selection:
        return chosen_engine(path, self.bundle, self.make, self.artifact, threads=threads, plan_id=plan_id, rounds=2)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_test_bundle(tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def path(bundle: Bundle, tmp_path: Path) -> Path:
    return choice_path(tmp_path / "cache", bundle)


def test_every_engine_is_measured_once_and_the_choice_kept(bundle: Bundle, path: Path) -> None:
    engines = Engines(bundle)
    first = engines.choose(path)
    assert first.engine in CANDIDATES
    assert set(first.mean_ms) == set(CANDIDATES) == set(engines.built)
    engines.built.clear()
    assert engines.choose(path) == first
    assert engines.built == []


def test_an_engine_that_is_not_installed_is_left_out_with_its_reason(bundle: Bundle, path: Path) -> None:
    found = Engines(bundle, missing="openvino").choose(path)
    assert found.engine == "ort"
    assert found.left_out == {"openvino": "openvino is not installed"}
    assert "not installed" in str(found)


@pytest.mark.parametrize("change", [{"version": "2"}, {"missing": "openvino"}])
def test_other_engines_are_measured_again(change: Dict[str, str], bundle: Bundle, path: Path) -> None:
    Engines(bundle).choose(path)
    with pytest.warns(UserWarning, match="other engines"):
        Engines(bundle, **change).choose(path)


def test_a_choice_belongs_to_its_threads_and_to_how_modes_are_emitted(bundle: Bundle, path: Path) -> None:
    engines = Engines(bundle)
    engines.choose(path)
    with pytest.warns(UserWarning, match="measuring again"):
        engines.choose(path, threads=2)
    with pytest.warns(UserWarning, match="measuring again"):
        engines.choose(path, threads=2, plan_id="rule")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:40],
        lambda data: b"\xff",
        lambda data: b"[]",
        lambda data: json.dumps({**json.loads(data), "engine": "../../bin/sh"}).encode(),
        lambda data: json.dumps({**json.loads(data), "more": 1}).encode(),
        lambda data: json.dumps({**json.loads(data), "mean_ms": [1]}).encode(),
    ],
)
def test_a_damaged_choice_is_made_again_with_a_warning(
    damage: Callable[[bytes], Any], bundle: Bundle, path: Path
) -> None:
    engines = Engines(bundle)
    engines.choose(path)
    path.write_bytes(damage(path.read_bytes()))
    engines.built.clear()
    with pytest.warns(UserWarning, match="measuring again"):
        assert engines.choose(path).engine in CANDIDATES
    assert engines.built


def test_a_cache_that_cannot_be_written_says_which_setting_to_change(bundle: Bundle, path: Path) -> None:
    path.parent.parent.write_text("a file where a folder should be")
    with pytest.raises(EngineError, match="--cache-dir"):
        Engines(bundle).choose(path)
