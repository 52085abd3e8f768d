"""Bundles that were damaged, or made to get out of their directory: refused with `BundleError`, never with another.

What passes because its hashes were written anew is built, where `EngineError` may refuse it too.
"""

import hashlib
import json
import os
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.fuzz.daemon import Outcome
from wenet_runtime.bundle import GOLDEN, MANIFEST, TOPOLOGY, WEIGHTS, Bundle
from wenet_runtime.canary import golden_inputs
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import WeNetError
from wenet_runtime.materialize import Supernet, lower

# How a case must end: refused on opening, or wherever it is found out; what is only odd may pass.
REFUSED, ANYHOW = "refused", "anyhow"
JUNK: "tuple[Any, ...]" = (
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, "", "x", "\ud800", "../x", [], {}, [[]], [None], [-1],
    [2**62, 2**62], {"": ""}, "a" * 10_000, "NaN",
)  # fmt: skip
NAMES = (
    "../outside", "../../etc/passwd", "/etc/passwd", "modes/../../outside", "./weights.safetensors", "", ".", "..",
    "a\0b", "a\\..\\b", "modes", "modes/", "//etc/passwd", "C:\\x", "a" * 300, "x/" * 3000 + "x", "\ud800", "\n",
    "~/x", "weights.safetensors/", "weights.safetensors/x", "file:///etc/passwd",
)  # fmt: skip


def _manifest(path: Path) -> Any:
    return json.loads((path / MANIFEST).read_text(encoding="utf-8"))


def _write(path: Path, manifest: Any) -> None:
    (path / MANIFEST).write_bytes(json.dumps(manifest).encode("utf-8", "surrogatepass"))


def _replaced(path: Path, name: str, data: bytes) -> None:
    """A file's content, and its size and hash in the manifest."""
    (path / name).write_bytes(data)
    manifest = _manifest(path)
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _write(path, manifest)


def _a_file(rng: random.Random, path: Path) -> str:
    return str(rng.choice(sorted(_manifest(path)["files"])))


def _name(rng: random.Random, path: Path) -> str:
    manifest = _manifest(path)
    (path.parent / "outside").write_bytes(b"x")
    name = rng.choice(NAMES)
    entry = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    manifest["files"][name] = rng.choice((entry, next(iter(manifest["files"].values()))))
    _write(path, manifest)
    return REFUSED


def _link(rng: random.Random, path: Path) -> str:
    name = _a_file(rng, path)
    away = path.parent / "away"
    shutil.move(str(path / name), str(away))
    if rng.random() < 0.5:
        (path / name).symlink_to(away)
    else:
        os.link(str(away), str(path / name))
    return REFUSED


def _linked_folder(rng: random.Random, path: Path) -> str:
    away = path.parent / "away"
    if rng.random() < 0.5 or not (path / "modes").is_dir():
        (path / MANIFEST).rename(away)
        (path / MANIFEST).symlink_to(away)
    else:
        shutil.move(str(path / "modes"), str(away))
        (path / "modes").symlink_to(away)
    return REFUSED


def _no_plain_file(rng: random.Random, path: Path) -> str:
    name = rng.choice((_a_file(rng, path), MANIFEST))
    (path / name).unlink()
    how = rng.random()
    if how < 0.4:
        os.mkfifo(str(path / name))
    elif how < 0.7:
        (path / name).mkdir()
    return REFUSED


def _another_hash(rng: random.Random, path: Path) -> str:
    name = _a_file(rng, path)
    data = bytearray((path / name).read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (path / name).write_bytes(bytes(data[: rng.choice((len(data), len(data) - 1))]))
    return REFUSED


def _odd_entry(rng: random.Random, path: Path) -> str:
    manifest = _manifest(path)
    manifest["files"][_a_file(rng, path)][rng.choice(("size", "sha256"))] = rng.choice(JUNK)
    _write(path, manifest)
    return REFUSED


def _odd_member(rng: random.Random, path: Path) -> str:
    """Any member of the manifest is something else."""
    manifest = _manifest(path)
    for _ in range(rng.randint(1, 2)):
        holder = manifest
        for _ in range(rng.randint(0, 5)):
            inner = holder[rng.choice(sorted(holder))] if isinstance(holder, dict) else rng.choice(holder)
            if not isinstance(inner, (dict, list)) or not inner:
                break
            holder = inner
        at = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if rng.random() < 0.2:
            del holder[at]
        else:
            holder[at] = rng.choice(JUNK)
        if not holder:
            break
    _write(path, manifest)
    return ANYHOW


def _odd_manifest(rng: random.Random, path: Path) -> str:
    data = (path / MANIFEST).read_bytes()
    at = rng.randrange(len(data))
    made: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: data[:at],
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 50_000,
        lambda: b"\xff\xfe" + data,
        lambda: data + b"x",
        lambda: rng.randbytes(500),
        lambda: b"null",
        lambda: data.replace(b":", b": 1" + b"0" * 5000 + b",", 1),
        lambda: data + b" " * (17 << 20),
    )
    (path / MANIFEST).write_bytes(rng.choice(made)())
    return REFUSED


def _changed_manifest(rng: random.Random, path: Path) -> str:
    data = bytearray((path / MANIFEST).read_bytes())
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    (path / MANIFEST).write_bytes(bytes(data))
    return ANYHOW


def _odd_tensors(rng: random.Random, path: Path) -> str:
    """A safetensors file that is cut, or says of itself what is not so, and that its hash belongs to."""
    name = rng.choice([one for one in sorted(_manifest(path)["files"]) if one.endswith(".safetensors")])
    data = (path / name).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    how = rng.random()
    if how < 0.2:
        _replaced(path, name, data[: rng.randrange(len(data))])
    elif how < 0.35:
        said = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))
        _replaced(path, name, struct.pack("<Q", said) + data[8:])
    elif how < 0.5:
        _replaced(path, name, data[:8] + rng.choice((b"[" * length, rng.randbytes(length), b" " * length)) + body)
    else:
        one = head[rng.choice([tensor for tensor in sorted(head) if tensor != "__metadata__"])]
        one[rng.choice(("dtype", "shape", "data_offsets"))] = rng.choice(
            (*JUNK, "F64", "BF16", "I8", [0, 4], [4, 0], [0, 2**62], [-4, 4], [1], [2**32, 2**32])
        )
        text = json.dumps(head).encode("utf-8", "surrogatepass")
        _replaced(path, name, struct.pack("<Q", len(text)) + text + body)
    return ANYHOW


def _odd_topology(rng: random.Random, path: Path) -> str:
    data = (path / TOPOLOGY).read_bytes()
    model = onnx.load_from_string(data)
    how = rng.choice(("external", "custom", "cut", "bytes", "shape", "cycle", "names", "attribute"))
    if how == "external":
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = "x", onnx.TensorProto.FLOAT
        tensor.dims.extend([1])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = tensor.external_data.add()
        place.key, place.value = "location", rng.choice(("../../etc/passwd", "/etc/passwd", "weights.safetensors"))
    elif how == "custom":
        rng.choice(model.graph.node).op_type = rng.choice(("MyOp", "If", "Loop", "Scan", ""))
        rng.choice(model.graph.node).domain = rng.choice(("evil.example", "ai.onnx.contrib", "com.microsoft"))
    elif how == "shape":
        for size in model.graph.input[0].type.tensor_type.shape.dim:
            size.dim_value = rng.choice((-1, 0, 2**62))
    elif how == "cycle":
        node = rng.choice(model.graph.node)
        node.input[0] = rng.choice(rng.choice(model.graph.node).output)
    elif how == "names":
        rng.choice(model.graph.node).output[0] = rng.choice(("", "logits", "input", "x" * 10_000))
    elif how == "attribute":
        for attribute in rng.choice(model.graph.node).attribute:
            del attribute.ints[:]
            attribute.ints.extend(rng.choice(([], [0], [-1, -1], [2**62] * 4)))
            attribute.i = rng.choice((-1, 0, 2**62))
    changed = bytearray(model.SerializeToString())
    if how == "cut":
        changed = changed[: rng.randrange(len(changed))]
    elif how == "bytes":
        for _ in range(rng.randint(1, 10)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    _replaced(path, TOPOLOGY, bytes(changed))
    return ANYHOW


def _swapped(rng: random.Random, path: Path) -> str:
    """Files that are right, in each other's place."""
    names = rng.sample((TOPOLOGY, WEIGHTS, GOLDEN), 2)
    first, second = ((path / name).read_bytes() for name in names)
    _replaced(path, names[0], second)
    _replaced(path, names[1], first)
    return ANYHOW


MAKERS: "tuple[Callable[[random.Random, Path], str], ...]" = (
    _name, _link, _linked_folder, _no_plain_file, _another_hash, _odd_entry, _odd_member, _odd_manifest,
    _changed_manifest, _odd_tensors, _odd_topology, _swapped, _odd_member, _odd_tensors, _odd_topology, _name,
)  # fmt: skip


def damaged(right: Path, folder: Path, number: int, seed: int = 0) -> "tuple[Path, str, str]":
    """The bundle of a number: its place, what was done to it, and how opening it must end."""
    maker = MAKERS[number % len(MAKERS)]
    path = Path(shutil.copytree(str(right), str(folder / "bundle")))
    return path, maker.__name__.strip("_").replace("_", " "), maker(random.Random(f"{seed}/{number}"), path)


def use(path: Path) -> None:
    """Open a bundle, and build and run each of its modes. Raises what that raises."""
    bundle = Bundle(path)
    supernet = Supernet.of(bundle)
    inputs = golden_inputs(bundle, rows=1)
    backend = OrtBackend()
    for mode in bundle.modes:
        artifact = backend.build(lower(supernet, mode.groups, bundle.statistics(mode)), mode.id)
        engine = backend.load(mode, lambda artifact=artifact: artifact)  # type: ignore[misc]
        try:
            engine.infer(inputs)
        finally:
            engine.close()


def fuzz(right: Path, folder: Path, count: int, seed: int = 0) -> Outcome:
    """Try `count` damaged copies of a right bundle."""
    outcome = Outcome()
    start_s = time.monotonic()
    for number in range(count):
        here = folder / str(number)
        here.mkdir()
        path, kind, end = damaged(right, here, number, seed)
        outcome.cases += 1
        outcome.kinds[kind] += 1
        try:
            use(path)
        except WeNetError:
            outcome.statuses[1] += 1
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome.failed(f"bundle {number} ({kind}): {type(error).__name__}: {str(error)[:200]}")
        else:
            outcome.statuses[0] += 1
            if end == REFUSED:
                outcome.failed(f"bundle {number} ({kind}) was taken")
        shutil.rmtree(str(here))
    outcome.took_s = time.monotonic() - start_s
    return outcome
