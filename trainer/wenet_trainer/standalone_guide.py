"""The README that lies beside the standalone ONNX files: how one is run, what it is fed, what is lost."""

import json
from collections.abc import Sequence

from wenet_runtime.bundle import Manifest, Mode, Preprocess
from wenet_trainer import triton
from wenet_trainer.standalone_model import feeding


def guide(manifest: Manifest, modes: Sequence[Mode]) -> str:
    """The README as Markdown.

    Args:
        manifest: of the bundle.
        modes: most accurate first; the example loads the first.
    """
    rows = "\n".join(_row(mode) for mode in modes)
    return f"""# {manifest.model}: {len(modes)} operating modes as ordinary ONNX files

Each file is a network of its own (ONNX opset 13, any batch) and needs nothing of WeNet. Most accurate first:

| file | accuracy (95 % interval, images) | MMACs | parameters | precision |
|---|---|---|---|---|
{rows}

## Run one with ONNX Runtime

```python
{_code(manifest, modes[0])}
```

{feeding(manifest)} A file carries this and its figures itself: `session.get_modelmeta()`.{_bits(modes)}

## Serve them with Triton

`tritonserver --model-repository="$PWD/triton"` serves every mode as a model of its own, `{_example(manifest, modes)}`
and so on; the client names the one it wants. Dynamic batching is off: add `dynamic_batching {{ }}` to a
`{triton.CONFIG}` to turn it on. A model's file is the same as the mode's above, a hard link where the disk has them.

## What is lost without wenet-runtime

The choice per request: nobody picks the most accurate mode that keeps a latency or energy budget, and nobody
moves to a smaller one while the device is busy. Modes no longer share weights, so each takes its own memory.
No latency is known here, and nothing is tuned to the device that will run it.
"""


def _row(mode: Mode) -> str:
    accuracy = mode.accuracy
    return (
        f"| `{mode.id}.onnx` | {100 * accuracy.value:.1f} % ({100 * accuracy.ci_low:.1f}–{100 * accuracy.ci_high:.1f}, "
        f"{accuracy.images}) | {mode.macs / 1e6:.2f} | {mode.params:,} | {mode.precision} |"
    )


def _bits(modes: Sequence[Mode]) -> str:
    if not any(mode.precision == "int8" for mode in modes):
        return ""
    return (
        " The int8 files have weights of 7 bits, because x86 processors without VNNI overflow with 8; the accuracies "
        "are those of the bundle's modes, whose weights have 8 bits where the processor bears them."
    )


def _example(manifest: Manifest, modes: Sequence[Mode]) -> str:
    return triton.model_name(manifest, modes[0])


def _code(manifest: Manifest, mode: Mode) -> str:
    """Python that runs in the folder as it stands, on a blank input."""
    imports = ["import json", ""] if manifest.labels else []
    answer = manifest.outputs[0]
    sizes = ", ".join(str(size) for size in answer.shape[1:])
    lines = [
        *imports,
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{mode.id}.onnx", providers=["CPUExecutionProvider"])',
        *(_image(manifest.preprocess, manifest.inputs[0].name) if manifest.preprocess else _blank(manifest)),
        f"answers = session.run([{json.dumps(answer.name)}], inputs)[0]  # (batch, {sizes})",
    ]
    if manifest.labels:
        lines += [
            'labels = json.loads(session.get_modelmeta().custom_metadata_map["wenet_labels"])',
            "print([labels[best] for best in answers.argmax(axis=-1).flat])",
        ]
    else:
        lines.append("print(answers)")
    return "\n".join(lines)


def _image(recipe: Preprocess, name: str) -> list[str]:
    """How images become the input, as `feeding` says it."""
    channels = len(recipe.mean)
    return [
        f"# your images, decoded to {recipe.color} and resized: (batch, height, width, channels)",
        f"pixels = np.zeros((1, {recipe.height}, {recipe.width}, {channels}), np.uint8)",
        f"mean, std = np.float32({list(recipe.mean)}), np.float32({list(recipe.std)})",
        "scaled = (pixels.astype(np.float32) / 255 - mean) / std",
        f"inputs = {{{json.dumps(name)}: scaled.transpose(0, 3, 1, 2)}}",
    ]


def _blank(manifest: Manifest) -> list[str]:
    tensors = [
        f"{json.dumps(spec.name)}: np.zeros({(1, *spec.shape[1:])}, np.{spec.dtype})" for spec in manifest.inputs
    ]
    return [f"inputs = {{{', '.join(tensors)}}}"]
