"""The table of data sources: name → import string. A new source is one file and one line here."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path

from wenet_runtime.registry import load
from wenet_trainer.data.base import Source
from wenet_trainer.data.stored import SIZE, Stored
from wenet_trainer.errors import DataError

SOURCES: Mapping[str, str] = {
    "digits": "wenet_trainer.data.digits:Digits",
    "generated": "wenet_trainer.data.generated:Generated",
}

# Where images lie in files, a name is one of these, a colon and a path.
FILES: Mapping[str, str] = {
    "folder": "wenet_trainer.data.folder:read_folder",
    "parquet": "wenet_trainer.data.parquet:read_parquet",
    "webdataset": "wenet_trainer.data.webdataset:read_webdataset",
}


def open_source(name: str, seed: int, image_size: int = 0) -> Source:
    """The data source of that name, its splits fixed by `seed`.

    Args:
        name: a name of `SOURCES`, one of `FILES` with a path (`folder:/data/birds`), or `package.module:Class`.
        seed: fixes splits and orders.
        image_size: width and height of the network's input in pixels; 0 for what the source usually has.

    Raises:
        DataError: there is no such source or path, its files make no sense, or it has one size only.
    """
    kind, _, path = name.partition(":")
    if kind in FILES:
        if not path:
            raise DataError(f"'{name}' does not say where the images are: write {kind}:PATH")
        read = load(FILES, kind, kind="data source", error=DataError)
        return Stored.open(read, Path(path), seed=seed, size=image_size or SIZE)
    known = {**SOURCES, **{f"{prefix}:PATH": target for prefix, target in FILES.items()}}
    create = load(known, name, kind="data source", error=DataError)
    if image_size and "size" not in signature(create).parameters:
        raise DataError(f"the data source '{name}' has images of one size: leave the image size out")
    source: Source = create(seed=seed, size=image_size) if image_size else create(seed=seed)
    return source


def full_name(name: str) -> str:
    """The name with its path made absolute, so that it means the same from another directory."""
    kind, _, path = name.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if kind in FILES and path else name
