"""Engines: what loads a mode and runs it. One file a variant; nothing is imported until chosen."""

from typing import Mapping

ENGINES: Mapping[str, str] = {
    "ort": "wenet_runtime.engines.ort:OrtBackend",
    "trt": "wenet_runtime.engines.trt:TrtBackend",
    "ort-cuda": "wenet_runtime.engines.ort_cuda:OrtCudaBackend",
    "ort-tensorrt": "wenet_runtime.engines.ort_tensorrt:OrtTensorrtBackend",
    "openvino": "wenet_runtime.engines.openvino:OpenVinoBackend",
    "sim": "wenet_runtime.engines.sim:SimBackend",
}

# Those that compute on a GPU.
ON_GPU = frozenset(("trt", "ort-cuda", "ort-tensorrt"))
