"""The TensorRT engine touches no name that a version it claims does not have, unless it asked for it first."""

import ast
from pathlib import Path
from typing import Dict, FrozenSet, List, Mapping

import numpy as np
import pytest

from tests.doubles.contract import Contract
from tests.doubles.tensorrt_double.names import VERSIONS, all_names, missing
from tests.runtime.trt_rig import rigged
from wenet_runtime.bundle import Bundle

RUNTIME = Path(__file__).resolve().parents[2] / "runtime" / "wenet_runtime"
LISTED = ("8.0.1", "8.2.1", "8.4.1", "8.5.2", "8.6.1", "10.0.1", "10.3.0", "10.13.3.9", "11.4.0.106")

# Names that the engine uses and that not every claimed version has: the first and the last that do. Each is reached
# only after a question that its version answers.
BINDINGS = dict.fromkeys(
    (
        *("num_bindings", "get_binding_name", "binding_is_input", "get_binding_dtype", "get_binding_shape"),
        *("set_binding_shape", "execute_async_v2", "max_workspace_size"),
    ),
    ("8.2.1", "8.6.1"),
)
NAMED_TENSORS = dict.fromkeys(
    (
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape"),
        *("TensorIOMode", "set_input_shape", "set_tensor_address", "execute_async_v3"),
        *("set_memory_pool_limit", "MemoryPoolType", "WORKSPACE"),
    ),
    ("8.5.2", "10.13.3.9"),
)
DEVICE_MEMORY = dict.fromkeys(("USER_MANAGED", "set_device_memory", "device_memory_size_v2"), ("10.3.0", "10.13.3.9"))
GUARDED: Mapping[str, FrozenSet[str]] = {
    name: frozenset(VERSIONS[VERSIONS.index(first) : VERSIONS.index(last) + 1])
    for name, (first, last) in {**BINDINGS, **NAMED_TENSORS, **DEVICE_MEMORY}.items()
}
# Names of ours, or of Python's, that some version of TensorRT has too, and what they are here.
OWN: Mapping[str, str] = {
    "append": "a list's",
    "pop": "a set's",
    "read": "a passage's, the journal's",
    "write": "a passage's, the journal's",
    "enqueue": "a context's of ours",
    "free": "memory's of ours",
    "tensorrt": "a version in an origin",
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    reasons = [missing(version) for version in LISTED if missing(version)]
    if reasons:
        pytest.skip(reasons[0])
    known = frozenset().union(*(all_names(version) for version in LISTED))
    return Contract({version: all_names(version) for version in VERSIONS}, known, OWN)


def sources() -> Dict[str, str]:
    return {path.name: path.read_text() for path in sorted((RUNTIME / "engines").glob("trt*.py"))}


def elsewhere() -> "list[str]":
    return [path.read_text() for path in sorted(RUNTIME.rglob("*.py")) if path.name not in sources()]


def strings(texts: Mapping[str, str]) -> "set[str]":
    """Every string in the code: names that it asks for."""
    nodes = [node for text in texts.values() for node in ast.walk(ast.parse(text))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_name_is_reached_in_a_version_that_lacks_it(contract: Contract) -> None:
    assert sources(), "there is no TensorRT engine to check"
    assert [str(one) for one in contract.check(sources(), elsewhere())] == []


def test_the_names_that_are_not_everywhere_are_these(contract: Contract) -> None:
    contract.check(sources(), elsewhere())
    found = {name: contract.versions(name) for name in contract.used if contract.versions(name) != contract.all}
    assert found == dict(GUARDED)
    assert contract.own_used == set(OWN)


def said(contract: Contract, text: str, **more: str) -> List[str]:
    return [str(one) for one in contract.check({"made_up.py": text, **more})]


NAMED = "class Named:\n    def _run(self, c):\n        c.execute_async_v3(0)\n"
ASKED = "def limit(config):\n    if hasattr(config, 'set_memory_pool_limit'):\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def f(config):\n    config.max_workspace_size = 1\n", "max_workspace_size"),
        ("def f(engine):\n    return engine.num_io_tensors\n", "num_io_tensors"),
        (ASKED + "        config.max_workspace_size = 1\n", "max_workspace_size"),
        (ASKED + "        pass\n    config.set_memory_pool_limit(0, 1)\n", "set_memory_pool_limit"),
        (ASKED + "        return 1\n    return config.set_memory_pool_limit(0, 1)\n", "set_memory_pool_limit"),
        ("def f(e):\n    return hasattr(e, 'num_io_tensors') or e.get_tensor_name(0)\n", "get_tensor_name"),
        ("def f(e):\n    return e.num_bindings if hasattr(e, 'num_io_tensors') else 0\n", "num_bindings"),
        ("def f(e):\n    name = 'num_bindings'\n    return getattr(e, name)\n", "num_bindings"),
        ("def f(e):\n    return getattr(e, 'num_bindings')\n", "num_bindings"),
        ("def f(e, name):\n    return getattr(e, name)\n", "a name that is not known"),
        ("def f(e, n):\n    return [getattr(e, n) for n in n if hasattr(n, e)]\n", "a name that is not known"),
        ("def f(trt):\n    return trt.IMadeUpEngine\n", "IMadeUpEngine"),
        ("def f(trt):\n    return trt.append\n", "append"),
        (NAMED + "def f(e):\n    Named()\n", "execute_async_v3"),
        (
            "def asks(e):\n    return hasattr(e, 'num_io_tensors') or True\ndef f(e):\n"
            "    if asks(e):\n        e.num_io_tensors\n",
            "num_io_tensors",
        ),
    ],
)
def test_what_is_not_asked_for_is_found(contract: Contract, text: str, name: str) -> None:
    found = said(contract, text)
    assert found
    assert name in found[0]


@pytest.mark.parametrize(
    "text",
    [
        ASKED + "        config.set_memory_pool_limit(0, 1)\n    else:\n        config.max_workspace_size = 1\n",
        ASKED + "        return config.set_memory_pool_limit(0, 1)\n    config.max_workspace_size = 1\n",
        "def f(e):\n    if not hasattr(e, 'num_io_tensors'):\n"
        "        return e.num_bindings\n    return e.num_io_tensors\n",
        "def f(e):\n    return hasattr(e, 'num_io_tensors') and e.get_tensor_name(0)\n",
        "def f(trt):\n    s = getattr(trt, 'ExecutionContextAllocationStrategy', None)\n"
        "    return None if s is None else s.USER_MANAGED\n",
        "def f(e, n):\n    return [getattr(e, one) for one in n if hasattr(e, one)]\n",
        NAMED + "def asks(e):\n    return hasattr(e, 'num_io_tensors')\n"
        "def f(e):\n    if asks(e):\n        return Named()\n    return None\n",
    ],
)
def test_what_is_asked_for_passes(contract: Contract, text: str) -> None:
    assert said(contract, text) == []


def test_a_class_that_somebody_else_mentions_is_reached_in_every_version(contract: Contract) -> None:
    guarded = "def f(e):\n    if hasattr(e, 'num_io_tensors'):\n        Named()\n"
    assert contract.check({"made_up.py": NAMED + guarded}) == []
    assert contract.check({"made_up.py": NAMED + guarded}, ["Named()"]) != []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_run_touches_is_what_the_code_says(
    contract: Contract, monkeypatch: pytest.MonkeyPatch, bundle: Bundle, version: str
) -> None:
    contract.check(sources(), elsewhere())
    with rigged(monkeypatch, bundle, version) as rig:
        engine = rig.engine()
        engine.infer({"input": np.zeros((3, *rig.bundle.manifest.inputs[0].shape[1:]), np.float32)})
        engine.close()
        touched = rig.double.touched
    print(f"TensorRT {version}: {', '.join(sorted(f'{cls}.{name}' for cls, name in touched))}")
    assert {name for _, name in touched} <= {*contract.used, *strings(sources()), "__version__"}
    assert (
        "IExecutionContext",
        "execute_async_v3" if "execute_async_v3" in all_names(version) else "execute_async_v2",
    ) in touched
