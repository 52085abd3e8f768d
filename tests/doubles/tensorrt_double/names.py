"""The recorded lists of names, one JSON file a version, which stay outside of the repository."""

import json
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from tests.recorded import RECORDED

VERSIONS = ("8.2.1", "8.5.2", "8.6.1", "10.3.0", "10.13.3.9")
# In every version, though the older lists, made from binding sources, leave them out.
MODULE_NAMES = frozenset((
    "__version__", "float32", "float16", "int8", "int32", "bool", "nptype", "volume", "init_libnvinfer_plugins",
    "get_plugin_registry", "get_nv_onnx_parser_version", "get_builder_plugin_registry",
))  # fmt: skip


def list_path(version: str) -> Path:
    return RECORDED / "trt-api" / f"trt-{version}.json"


def missing(version: str) -> str:
    """Why a version's list cannot be read, or nothing."""
    path = list_path(version)
    return (
        ""
        if path.is_file()
        else f"no recorded list of TensorRT {version}'s names: set WENET_RECORDED_DATA to its folder"
    )


def read_names(version: str) -> Tuple[Dict[str, List[str]], Dict[str, str]]:
    """A version's classes with their members, and its module-level names with their types."""
    found: Mapping[str, object] = json.loads(list_path(version).read_text())
    classes = {key: [str(one) for one in value] for key, value in found.items() if isinstance(value, list)}
    return classes, {key: value for key, value in found.items() if isinstance(value, str)}


def all_names(version: str) -> "frozenset[str]":
    """Every name that occurs in a version, of whatever."""
    classes, module = read_names(version)
    members = {one for listed in classes.values() for one in listed}
    return frozenset(members | set(classes) | set(module) | MODULE_NAMES)


def numbers(version: str) -> Tuple[int, ...]:
    """A version as numbers, to compare."""
    return tuple(int(part) for part in version.split("."))
