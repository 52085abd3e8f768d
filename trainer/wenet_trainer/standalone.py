"""A bundle's modes for people who serve with something else: ONNX files and a Triton model repository.

The directory appears complete or not at all; `modes.json` says what is in it and that this command made it.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wenet_runtime.bundle import Bundle, Manifest, Mode
from wenet_runtime.files import swap_in, sync_directory, write_atomic
from wenet_trainer import triton
from wenet_trainer.errors import ExportError
from wenet_trainer.progress import tqdm
from wenet_trainer.standalone_guide import guide
from wenet_trainer.standalone_model import ModelWriter, facts

FORMAT = "wenet-standalone"
FORMAT_VERSION = 1
INDEX, README, TRITON = "modes.json", "README.md", "triton"


def export_standalone(bundle: Bundle, out: Path, *, quiet: bool = False) -> tuple[Path, ...]:
    """Write every mode of a bundle as an ONNX file, and a Triton model repository of them.

    An older directory of this kind is put aside and removed once the new one stands.

    Args:
        bundle: a verified bundle.
        out: the directory; it may be missing, empty, or one that this function wrote.
        quiet: no progress bar.

    Returns:
        The ONNX files, most accurate mode first.

    Raises:
        ExportError: `out` is something else, cannot be written, or a mode does not answer as the bundle says;
            what was at `out` before is still there then.
    """
    place = check_place(out)
    if place == bundle.path.resolve() or place in bundle.path.resolve().parents:
        raise ExportError(f"the bundle {bundle.path} lies inside {out}, which would be replaced: choose another")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            _write(bundle, staging, quiet)
            swap_in(staging, place)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    except OSError as error:
        raise ExportError(f"cannot write {out} ({error.strerror}): choose another --standalone") from error
    return tuple(place / _file(mode) for mode in bundle.modes)


def check_place(out: Path) -> Path:
    """Where the directory will stand, links followed. Raises `ExportError` for what must not be replaced."""
    try:
        place = out.resolve()
        taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    except OSError as error:
        raise ExportError(f"cannot look into {out} ({error.strerror}): choose another --standalone") from error
    if taken and not _is_ours(place):
        raise ExportError(
            f"{out} exists and holds no {INDEX} of `wenet-trainer export --standalone`, so it is not replaced: "
            "choose another --standalone or remove it"
        )
    return place


def _is_ours(place: Path) -> bool:
    try:
        index = json.loads((place / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(index, dict) and index.get("format") == FORMAT


def _file(mode: Mode) -> str:
    return f"{mode.id}.onnx"  # ids hold no separators: the manifest's check sees to it


def _write(bundle: Bundle, folder: Path, quiet: bool) -> None:
    """Everything, index last. Only one model is held in memory at a time."""
    manifest, writer = bundle.manifest, ModelWriter(bundle)
    entries = []
    for mode in tqdm(bundle.modes, desc="standalone", unit=" modes", disable=quiet):
        data = writer.model(mode)
        write_atomic(folder / _file(mode), data)
        _write_triton(bundle, mode, folder, data)
        entries.append(_entry(manifest, mode, data))
    write_atomic(folder / README, guide(manifest, bundle.modes).encode())
    index = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": manifest.model,
        "bundle_sha256": bundle.sha256,
        "inputs": [asdict(spec) for spec in manifest.inputs],
        "outputs": [asdict(spec) for spec in manifest.outputs],
        "preprocess": None if manifest.preprocess is None else asdict(manifest.preprocess),
        "labels": manifest.labels,
        "max_batch": manifest.max_batch,
        "modes": entries,
    }
    write_atomic(folder / INDEX, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    folder.chmod(0o755)
    for path in (folder / TRITON, *(folder / TRITON).rglob("*")):
        if path.is_dir():
            sync_directory(path)
    sync_directory(folder)


def _write_triton(bundle: Bundle, mode: Mode, folder: Path, data: bytes) -> None:
    manifest = bundle.manifest
    model = folder / TRITON / triton.model_name(manifest, mode)
    version = model / triton.VERSION
    version.mkdir(parents=True)
    try:
        (version / triton.MODEL).hardlink_to(folder / _file(mode))  # models are large
    except OSError:
        write_atomic(version / triton.MODEL, data)  # a file system without links
    write_atomic(model / triton.CONFIG, triton.config(manifest, mode, facts(bundle, mode)).encode())
    if manifest.labels:
        write_atomic(model / triton.LABELS, triton.label_file(manifest).encode())


def _entry(manifest: Manifest, mode: Mode, data: bytes) -> dict[str, Any]:
    return {
        "id": mode.id,
        "file": _file(mode),
        "sha256": hashlib.sha256(data).hexdigest(),
        "triton_model": triton.model_name(manifest, mode),
        "accuracy": asdict(mode.accuracy),
        "macs": mode.macs,
        "params": mode.params,
        "precision": mode.precision,
        "groups": dict(mode.groups),
    }
