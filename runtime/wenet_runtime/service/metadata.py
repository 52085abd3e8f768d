"""What the server and its model are, as Open Inference Protocol's metadata says it."""

from typing import Any, Dict, Iterable, List

from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle, TensorSpec

EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "statistics", "wenet_budget")
PLATFORM = "wenet_onnx"


def server_metadata() -> Dict[str, Any]:
    """The body of GET /v2."""
    return {"name": "wenet-runtime", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(bundle: Bundle) -> Dict[str, Any]:
    """The body of GET /v2/models/{model}: a version is a mode, and all have the same inputs and outputs."""
    manifest = bundle.manifest
    return {
        "name": manifest.model,
        "versions": [mode.id for mode in bundle.modes],
        "platform": PLATFORM,
        "inputs": _tensors(manifest.inputs),
        "outputs": _tensors(manifest.outputs),
    }


def _tensors(specs: Iterable[TensorSpec]) -> List[Dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]
