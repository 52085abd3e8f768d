"""What doctor says of libraries and meters, from what children answered."""

from typing import Any, Dict, Optional

import pytest

from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check
from wenet_runtime.service.library_checks import (
    check_cuda,
    check_engine,
    check_meters,
    check_onnxruntime,
    check_python,
    check_tensorrt,
)
from wenet_runtime.service.probes import Answer

GPU = Answer({"binding": "pycuda", "gpu": "NVIDIA Tegra X1", "compute_capability": "5.3", "integrated": True})
NO_TRT = Answer(failure="No module named 'tensorrt'")
NO_CUDA = Answer(failure="no Python binding of CUDA works here: install pycuda")
ORT = Answer({"version": "1.19.2", "providers": ["CPUExecutionProvider"]})


def meter(name: str = "ina3221", watts: Optional[float] = 2.1, **more: Any) -> Answer:
    state = {"status": "ok", "detail": ""}
    source = "rail:POM_5V_IN" if name in ("ina3221", "tegrastats") else name
    return Answer({"name": name, "source": source, "watts": watts, "state": state, "passed_over": {}, **more})


def test_python_says_its_version_and_its_machine() -> None:
    assert check_python().status == OK
    assert " on " in check_python().found


@pytest.mark.parametrize(
    ("answer", "gpu", "engine", "status"),
    [
        (GPU, True, "trt", OK),
        (NO_CUDA, True, "trt", FAIL),
        (NO_CUDA, False, "trt", FAIL),
        (NO_CUDA, True, "ort", WARN),
        (NO_CUDA, False, "ort", SKIPPED),
    ],
)
def test_cuda_fails_only_who_needs_it_and_is_missed_only_where_a_gpu_is(
    answer: Answer, gpu: bool, engine: str, status: str
) -> None:
    found = check_cuda(answer, gpu=gpu, engine=engine)
    assert found.status == status
    if status == OK:
        assert found.found == "NVIDIA Tegra X1, compute capability 5.3, by pycuda"
    elif status == SKIPPED:
        assert found.found == "no NVIDIA GPU is here"
    else:
        assert found.remedy == "install pycuda"


def version(text: str, supported: bool) -> Answer:
    return Answer({"version": text, "supported": supported})


@pytest.mark.parametrize(
    ("answer", "gpu", "engine", "status"),
    [
        (version("8.2.1.8", True), True, "trt", OK),
        (version("11.4.0", False), True, "trt", FAIL),
        (version("11.4.0", False), True, "ort", WARN),
        (NO_TRT, True, "trt", FAIL),
        (NO_TRT, True, "ort", WARN),
        (NO_TRT, False, "ort", SKIPPED),
        (Answer(failure="it crashed (SIGSEGV)"), True, "ort", WARN),
    ],
)
def test_tensorrt_fails_only_who_needs_it(answer: Answer, gpu: bool, engine: str, status: str) -> None:
    assert check_tensorrt(answer, gpu=gpu, engine=engine).status == status


def test_where_tensorrt_s_bindings_come_from_is_said_when_they_are_missing() -> None:
    assert "build-trt-bindings.sh" in check_tensorrt(NO_TRT, gpu=True, engine="trt").remedy
    crashed = check_tensorrt(Answer(failure="it crashed (SIGSEGV)"), gpu=True, engine="trt")
    assert (crashed.found, crashed.remedy) == ("it crashed (SIGSEGV)", "")


@pytest.mark.parametrize(
    ("engine", "status"), [("ort", OK), ("trt", OK), ("ort-cuda", FAIL), ("ort-tensorrt", FAIL), ("auto", OK)]
)
def test_onnx_runtime_fails_an_engine_that_lacks_its_provider(engine: str, status: str) -> None:
    found = check_onnxruntime(ORT, engine=engine)
    assert (found.status, found.found) == (status, "1.19.2, CPU")


def test_onnx_runtime_with_its_providers_is_fine_and_without_it_nothing_runs() -> None:
    both = Answer({"version": "1.23", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]})
    assert check_onnxruntime(both, engine="ort-cuda") == Check(
        "ONNX Runtime", OK, "1.23, CUDA, CPU", data=dict(both.members)
    )
    found = check_onnxruntime(Answer(failure="No module named 'onnxruntime'"), engine="trt")
    assert (found.status, found.remedy) == (FAIL, "`pip install onnxruntime`")


def test_an_engine_that_cannot_be_loaded_fails() -> None:
    assert check_engine("ort", Answer({"class": "OrtBackend"})).status == OK
    assert check_engine("abacus", Answer(failure="unknown engine 'abacus': known are ort")).status == FAIL


def told(asked: str, **answers: Answer) -> Dict[str, Check]:
    return {one.name: one for one in check_meters(asked, answers)}


def test_the_meter_that_was_chosen_is_told_and_why_the_others_were_not() -> None:
    passed_over = {"ina3221": "permission: /sys/a may not be read:\nrun as root", "nvml": "no driver"}
    found = told("auto", auto=meter("tegrastats", passed_over=passed_over))
    assert (found["meter"].status, found["meter"].found) == (OK, "tegrastats (rail:POM_5V_IN), 2.1 W now")
    assert found["meter ina3221"] == Check("meter ina3221", SKIPPED, "permission: /sys/a may not be read: run as root")
    assert found["meter nvml"].found == "no driver"
    assert "optional" in found["meter jtop"].found


def test_without_permission_it_is_unknown_and_says_what_to_do() -> None:
    passed_over = {"tegrastats": "there is no program", "ina3221": "permission: a may not be read: run as root"}
    found = told("auto", auto=meter("none", None, passed_over=passed_over))["meter"]
    assert (found.status, found.remedy) == (WARN, "run as root")
    assert "so it is unknown" in found.found


def test_where_nothing_measures_there_is_nothing_to_do() -> None:
    found = told("auto", auto=meter("none", None, passed_over={"rapl": "no counter"}))["meter"]
    assert (found.status, found.remedy) == (SKIPPED, "")


def test_a_meter_that_was_asked_for_and_cannot_deliver_fails() -> None:
    found = told("ina3221", auto=meter("none", None), ina3221=Answer(failure="no sensor: choose another"))["meter"]
    assert (found.status, found.found, found.remedy) == (FAIL, "no sensor", "choose another")


def test_a_meter_that_was_asked_for_and_delivers_is_fine() -> None:
    assert told("rapl", auto=meter(), rapl=meter("rapl"))["meter"].found == "rapl, 2.1 W now"
    assert "meter jtop" not in told("jtop", auto=meter(), jtop=meter("jtop"))


@pytest.mark.parametrize("asked", ["none", "sim"])
def test_where_no_meter_was_asked_for_it_says_which_one_there_is(asked: str) -> None:
    found = told(asked, auto=meter())["meter"]
    assert found.status == OK
    assert found.found == f"{asked}, as it is set; --meter auto would take ina3221 (rail:POM_5V_IN), 2.1 W now"


def test_a_library_that_crashes_while_meters_are_tried_fails_only_who_wanted_one() -> None:
    crashed = Answer(failure="it crashed (SIGSEGV)")
    assert told("none", auto=crashed)["meter"].status == WARN
    assert told("auto", auto=crashed)["meter"].status == FAIL


def test_a_meter_that_is_stale_is_a_warning() -> None:
    state = {"status": "stale", "detail": "no line for 1 s: look at the board"}
    found = told("auto", auto=meter(watts=None, state=state))["meter"]
    assert (found.status, found.remedy) == (WARN, "look at the board")
    assert found.found == "ina3221 (rail:POM_5V_IN), stale: no line for 1 s"
