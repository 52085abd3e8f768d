"""Small images in files, in every layout, for the tests."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("ant", "bee", "cat")
Samples = Sequence[tuple[bytes, int]]


def pixels(value: int, size: tuple[int, int] = (40, 30)) -> NDArray[np.uint8]:
    """A picture (height, width, 3) that no other value has."""
    return np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def encode(image: Image.Image | NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind)
    return file.getvalue()


def samples(count: int, start: int = 0, classes: int = len(CLASSES)) -> Samples:
    """PNG files and labels; the labels take turns."""
    return [(encode(pixels(start + index)), index % classes) for index in range(count)]


def write_folder(path: Path, splits: Mapping[str, Samples]) -> Path:
    """`path`/<split>/<class>/<number>.png; a split called "" is left out of the path."""
    for split, found in splits.items():
        for index, (data, label) in enumerate(found):
            folder = path / split / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:03d}.png").write_bytes(data)
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def tar_members(found: Samples, *, as_json: bool = False) -> list[tuple[str, bytes]]:
    members = []
    for index, (data, label) in enumerate(found):
        text = json.dumps({"label": label}) if as_json else str(label)
        members += [(f"{index:03d}.png", data), (f"{index:03d}.{'json' if as_json else 'cls'}", text.encode())]
    return members


def write_parquet(
    path: Path,
    found: Samples,
    labels: Sequence[object] | None = None,
    *,
    named: bool = True,
    names: Sequence[str] = CLASSES,
) -> Path:
    """A shard as Hugging Face data sets have it, by pyarrow alone; with names of the classes if `named`."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": data, "path": None} for data, _ in found]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [label for _, label in found] if labels is None else list(labels)
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(values)})
    if named:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path)
    return path
