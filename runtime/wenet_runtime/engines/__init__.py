"""Engines: what loads a mode and runs it. One file a variant; nothing is imported until chosen."""

from typing import Mapping

ENGINES: Mapping[str, str] = {
    "ort": "wenet_runtime.engines.ort:OrtBackend",
    "sim": "wenet_runtime.engines.sim:SimBackend",
}
