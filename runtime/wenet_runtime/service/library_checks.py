"""Checks of what engines and meters are made of, from what child processes answered."""

import platform
from typing import List, Mapping, Optional

from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check, parts, problem
from wenet_runtime.service.probes import Answer

PROVIDERS = {"ort-cuda": "CUDAExecutionProvider", "ort-tensorrt": "TensorrtExecutionProvider"}
NO_GPU = "no NVIDIA GPU is here"


def check_python() -> Check:
    """Its version, and what it runs on."""
    version, machine = platform.python_version(), platform.machine()
    return Check("Python", OK, f"{version} on {machine}", data={"version": version, "machine": machine})


def check_engine(name: str, answer: Answer) -> Check:
    """Whether the engine of the settings can be loaded."""
    if answer.failure:
        return problem("engine", FAIL, answer.failure)
    return Check("engine", OK, name, data={"name": name})


def check_cuda(answer: Answer, *, gpu: bool, engine: str) -> Check:
    """The Python binding of CUDA that the engine `trt` needs, and the GPU behind it.

    Args:
        answer: of the child.
        gpu: whether this machine has one by what its kernel says.
        engine: of the settings.
    """
    if answer.failure:
        return _missing("CUDA", answer.failure, gpu=gpu, needed=engine == "trt")
    told = answer.members
    found = f"{told['gpu']}, compute capability {told['compute_capability']}, by {told['binding']}"
    return Check("CUDA", OK, found, data=dict(told))


def check_tensorrt(answer: Answer, *, gpu: bool, engine: str) -> Check:
    """Whether TensorRT can be imported, and in which version; arguments as for `check_cuda`."""
    if answer.failure:
        failure = answer.failure
        if "No module named" in failure:
            failure += (
                f" in Python {platform.python_version()}: TensorRT's bindings come with JetPack for the system's own "
                "Python; for another one build them with deploy/jetson/build-trt-bindings.sh"
            )
        return _missing("TensorRT", failure, gpu=gpu, needed=engine == "trt")
    version = answer.members["version"]
    if not answer.members["supported"]:
        remedy = "the engine trt runs on TensorRT 8.2 to 10"
        return Check("TensorRT", FAIL if engine == "trt" else WARN, version, remedy, dict(answer.members))
    return Check("TensorRT", OK, version, data=dict(answer.members))


def _missing(name: str, failure: str, *, gpu: bool, needed: bool) -> Check:
    if needed:
        return problem(name, FAIL, failure)
    return problem(name, WARN, failure) if gpu else Check(name, SKIPPED, NO_GPU, data={"failure": failure})


def check_onnxruntime(answer: Answer, *, engine: str) -> Check:
    """Its version and providers, and whether the engine of the settings has its provider."""
    if answer.failure:
        found, remedy = parts(answer.failure)
        return Check("ONNX Runtime", FAIL, found, remedy or "`pip install onnxruntime`")
    version, providers = answer.members["version"], answer.members["providers"]
    found = f"{version}, {', '.join(str(one).replace('ExecutionProvider', '') for one in providers)}"
    wanted = PROVIDERS.get(engine)
    if wanted is not None and wanted not in providers:
        remedy = f"--engine {engine} needs {wanted}: install onnxruntime-gpu for this machine's CUDA, or choose another"
        return Check("ONNX Runtime", FAIL, found, remedy, dict(answer.members))
    return Check("ONNX Runtime", OK, found, data=dict(answer.members))


def check_meters(asked: str, answers: Mapping[str, Answer]) -> List[Check]:
    """The meter of the settings, what `auto` would take, and why it takes no other.

    Args:
        asked: of the settings.
        answers: by the meter's name: of `auto`, and of the one that was asked for if it measures anything.
    """
    auto = answers["auto"]
    passed_over = dict(auto.members.get("passed_over", {}))
    checks = [_meter(asked, answers)]
    checks += [Check(f"meter {name}", SKIPPED, " ".join(why.split())) for name, why in passed_over.items()]
    if asked != "jtop":
        optional = "optional and never chosen by itself: --meter jtop, for who runs jetson-stats (AGPL) already"
        checks.append(Check("meter jtop", SKIPPED, optional))
    return checks


def _meter(asked: str, answers: Mapping[str, Answer]) -> Check:
    if asked in answers:
        return _running(asked, answers[asked], auto=asked == "auto")
    found = _running(asked, answers["auto"], auto=True)
    if found.status != OK:
        return found
    text = f"{asked}, as it is set; --meter auto would take {found.found}"
    return Check("meter", OK, text, data={**found.data, "name": asked, "auto": found.data["name"]})


def _running(asked: str, answer: Answer, *, auto: bool) -> Check:
    if answer.failure:
        return problem("meter", WARN if auto and asked != "auto" else FAIL, answer.failure)
    told = answer.members
    data = {name: told[name] for name in ("name", "source", "watts", "state")}
    if told["name"] == "none":
        remedy = _first_remedy(told["passed_over"])
        return Check(
            "meter", WARN if remedy else SKIPPED, "nothing here measures energy, so it is unknown", remedy or "", data
        )
    found = told["name"] if told["name"] == told["source"] else f"{told['name']} ({told['source']})"
    if told["watts"] is not None:
        found += f", {told['watts']:.3g} W now"
    if told["state"]["status"] != "ok":
        wrong, remedy = parts(told["state"]["detail"])
        return Check("meter", WARN, f"{found}, {told['state']['status']}: {wrong}", remedy, data)
    return Check("meter", OK, found, data=data)


def _first_remedy(passed_over: Mapping[str, str]) -> Optional[str]:
    """What to do about the first meter that is here and only needs permission."""
    return next((parts(why)[1] for why in passed_over.values() if "permission" in why), None)
