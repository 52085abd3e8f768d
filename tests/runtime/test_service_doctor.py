"""Every check in order, with the questions that go to libraries: on a Nano as root and without permission, an Orin,
and this machine."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import pytest

from tests.runtime import board_roots
from tests.runtime.sysfs_trees import write
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check, worst
from wenet_runtime.service.doctor import examine
from wenet_runtime.service.probes import Answer
from wenet_runtime.settings import Settings

NAMES = [
    *("board", "L4T", "JetPack", "power setting", "clocks", "Python", "engine", "ONNX Runtime", "CUDA", "TensorRT"),
    *("meter", "rails", "bundle", "engines", "cache", "token file", "port"),
]
REFUSED = "permission: /sys/x may not be read by this user: run as root"
CHIP = {"gpu": "a GPU", "compute_capability": "5.3", "binding": "pycuda", "integrated": True}


class Asked:
    """Answers as a board's children would; notes what they were asked."""

    def __init__(
        self, *, gpu: bool = True, meter: str = "ina3221", passed_over: Optional[Dict[str, str]] = None
    ) -> None:
        self.questions: Dict[str, List[str]] = {}
        self._gpu, self._meter, self._passed_over = gpu, meter, passed_over or {}

    def __call__(self, questions: Mapping[str, Sequence[str]]) -> Dict[str, Answer]:
        self.questions = {name: list(words) for name, words in questions.items()}
        none = Answer(failure="No module named 'it'")
        meter = {"name": self._meter, "source": self._meter, "watts": None, "passed_over": self._passed_over}
        answers = {
            "onnxruntime": Answer({"version": "1.19.2", "providers": ["CPUExecutionProvider"]}),
            "engine": Answer({"class": "Backend"}),
            "cuda": Answer(CHIP) if self._gpu else none,
            "tensorrt": Answer({"version": "8.2.1.8", "supported": True}) if self._gpu else none,
        }
        state = {"status": "ok", "detail": ""}
        return {name: answers.get(name, Answer({**meter, "state": state})) for name in questions}


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(**{"cache_dir": tmp_path / "cache", "port": 0, **more})


def examined(given: Settings, root: Path, ask: Any) -> Dict[str, Check]:
    found = examine(given, root=root, environ={}, ask=ask)
    assert [one.name for one in found if not one.name.startswith("meter ")] == NAMES
    return {one.name: one for one in found}


def test_a_nano_as_root_has_nothing_that_fails(tmp_path: Path, bundle: Bundle) -> None:
    ask = Asked()
    given = settings(tmp_path, engine="trt", meter="auto", power_rail="POM_5V_IN", bundle=bundle.path)
    found = examined(given, board_roots.nano(tmp_path / "root"), ask)
    statuses = {name: found[name].status for name in NAMES}
    assert {name for name, status in statuses.items() if status == WARN} == {"clocks"}
    assert {name for name, status in statuses.items() if status == SKIPPED} == {"token file", "port"}
    assert worst(list(found.values())) == WARN
    assert ask.questions["engine"] == ["engine", "trt"]
    assert ask.questions["meter auto"] == ["meter", "auto", "on-gpu", "POM_5V_IN", str(tmp_path / "root" / "sys")]
    assert set(ask.questions) == {"onnxruntime", "cuda", "tensorrt", "engine", "meter auto"}


def test_a_nano_without_permission_says_twice_what_to_do_and_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wenet_runtime.meters.sysfs.read_file", refused)
    ask = Asked(meter="none", passed_over={"ina3221": REFUSED, "tegrastats": "permission: no rails: run as root"})
    found = examined(settings(tmp_path, meter="auto"), board_roots.nano(tmp_path / "root"), ask)
    assert (found["meter"].status, found["meter"].remedy) == (WARN, "run as root")
    assert found["rails"].status == WARN
    assert "chmod o+r" in found["rails"].remedy
    assert found["meter ina3221"].found == REFUSED
    assert worst(list(found.values())) == WARN


def test_an_orin_with_pinned_clocks_is_fine(tmp_path: Path) -> None:
    given = settings(tmp_path, engine="trt", meter="auto")
    found = examined(given, board_roots.orin_nano(tmp_path / "root"), Asked())
    assert worst(list(found.values())) == OK
    assert found["rails"].found.startswith("VDD_IN 4836 mW")


def test_a_machine_without_gpu_or_jetson_misses_nothing(tmp_path: Path) -> None:
    ask = Asked(gpu=False, meter="none", passed_over={"rapl": "no counter"})
    found = examined(settings(tmp_path), tmp_path / "root", ask)
    assert worst(list(found.values())) == OK
    assert {found[name].status for name in ("CUDA", "TensorRT", "L4T", "rails", "meter")} == {SKIPPED}


@pytest.mark.parametrize("kind", ["desktop", "nano"])
def test_a_machine_with_a_gpu_misses_its_libraries(kind: str, tmp_path: Path) -> None:
    if kind == "desktop":
        write(tmp_path / "root/proc/driver/nvidia/version", "NVRM version: 1")
    else:
        board_roots.nano(tmp_path / "root")
    found = examined(settings(tmp_path), tmp_path / "root", Asked(gpu=False))
    assert (found["CUDA"].status, found["TensorRT"].status) == (WARN, WARN)


def test_what_is_asked_for_and_missing_fails(tmp_path: Path) -> None:
    found = examined(settings(tmp_path, engine="trt", host="0.0.0.0"), tmp_path / "root", Asked(gpu=False))
    assert {name for name in NAMES if found[name].status == FAIL} == {"CUDA", "TensorRT", "token file"}


@pytest.mark.parametrize(
    ("meter", "asked"),
    [
        ("none", {"meter auto"}),
        ("sim", {"meter auto"}),
        ("rapl", {"meter auto", "meter rapl"}),
        ("auto", {"meter auto"}),
    ],
)
def test_a_meter_by_name_is_tried_beside_auto(meter: str, asked: Any, tmp_path: Path) -> None:
    ask = Asked()
    examined(settings(tmp_path, meter=meter), tmp_path / "root", ask)
    assert {name for name in ask.questions if name.startswith("meter")} == asked


def test_only_a_bundle_that_was_named_or_lies_where_one_is_looked_for_is_missed(
    tmp_path: Path, own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert examined(settings(tmp_path), tmp_path / "root", Asked())["bundle"].status == SKIPPED
    assert examined(settings(tmp_path, bundle="nowhere"), tmp_path / "root", Asked())["bundle"].status == FAIL
    monkeypatch.chdir(own_bundle.parent)
    assert examined(settings(tmp_path), tmp_path / "root", Asked())["bundle"].status == OK


def test_auto_is_an_engine_of_this_processor(tmp_path: Path) -> None:
    ask = Asked()
    examined(settings(tmp_path, engine="auto"), tmp_path / "root", ask)
    assert ask.questions["engine"] == ["engine", "ort"]


def test_this_machine_can_be_examined_with_its_own_libraries(tmp_path: Path) -> None:
    found = {one.name: one for one in examine(settings(tmp_path))}
    assert (found["ONNX Runtime"].status, found["engine"].status) == (OK, OK)
    assert "CPU" in found["ONNX Runtime"].found
