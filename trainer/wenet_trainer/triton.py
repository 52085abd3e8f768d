"""A Triton model repository's texts: one Triton model per mode, because Triton chooses none by a budget."""

import re
from collections.abc import Mapping

from wenet_runtime.bundle import Manifest, Mode, TensorSpec

CONFIG, LABELS, MODEL, VERSION = "config.pbtxt", "labels.txt", "model.onnx", "1"


def model_name(manifest: Manifest, mode: Mode) -> str:
    """`<model>_<mode id>`: names the directory and stands in addresses, so all but letters, digits and - is _."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', manifest.model)}_{mode.id}"


def config(manifest: Manifest, mode: Mode, facts: Mapping[str, str]) -> str:
    """The model's `config.pbtxt`: Triton's ModelConfig as protobuf text.

    No scheduler is named, so a request is one inference; `dynamic_batching { }` would collect several.

    Args:
        manifest: of the bundle. Dims are its shapes without the batch, which comes first in the file.
        mode: the mode.
        facts: about the mode, by name; Triton shows them as the model's parameters.
    """
    labels = LABELS if manifest.labels else None
    outputs = [_tensor(spec, labels if at == 0 else None) for at, spec in enumerate(manifest.outputs)]
    parameters = [
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in facts.items()
    ]
    lines = [
        f"name: {_quoted(model_name(manifest, mode))}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {manifest.max_batch}",
        f"input [\n{_joined([_tensor(spec) for spec in manifest.inputs])}\n]",
        f"output [\n{_joined(outputs)}\n]",
        *parameters,
    ]
    return "\n".join(lines) + "\n"


def label_file(manifest: Manifest) -> str:
    """`labels.txt`: one line per class, in the order of the first output."""
    return "".join(" ".join(label.splitlines()) + "\n" for label in manifest.labels)


def _tensor(spec: TensorSpec, labels: str | None = None) -> str:
    lines = [
        f"    name: {_quoted(spec.name)}",
        f"    data_type: TYPE_{spec.datatype}",  # Triton and the Open Inference Protocol share these names
        f"    dims: [ {', '.join(str(size) for size in spec.shape[1:])} ]",
    ]
    if labels is not None:
        lines.append(f"    label_filename: {_quoted(labels)}")
    return "  {\n" + "\n".join(lines) + "\n  }"


def _joined(tensors: list[str]) -> str:
    return ",\n".join(tensors)


def _quoted(text: str) -> str:
    """A string of protobuf text: every byte that is not printable ASCII as three octal digits."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in escaped.encode()) + '"'
