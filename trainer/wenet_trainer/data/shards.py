"""Which shard files belong to which split: by the words in their names, as the public layouts have them."""

import re
from collections.abc import Mapping
from pathlib import Path

from wenet_trainer.errors import DataError

WORDS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def find_shards(path: Path, suffix: str) -> dict[str, list[Path]]:
    """Shards of each split, in the order of their names.

    `train-0001.tar`, `birds_val_3.tar`, `test/7.tar` and `data/train-00000-of-00002.parquet` all say their split; a
    single file, or shards of which none says so, are training images.

    Args:
        path: a directory, or one shard.
        suffix: ".tar" or ".parquet".

    Raises:
        DataError: no shard, one that is empty or there twice, or one whose name says no split or two.
    """
    if path.is_file():
        return {"train": [_filled(path)]}
    shards = sorted(shard for shard in path.rglob(f"*{suffix}") if not shard.name.startswith("."))
    if not shards:
        raise DataError(f"{path} holds no *{suffix} file: see docs/data.md for the layouts")
    said = {shard: _split_of(shard.relative_to(path), shard) for shard in shards}
    silent = [shard for shard, split in said.items() if split is None]
    if silent and len(silent) < len(shards):
        raise DataError(f"{silent[0]} does not say which split it belongs to, others do: rename it or take it out")
    found: dict[str, list[Path]] = {}
    seen: dict[tuple[int, int], Path] = {}
    for shard, split in said.items():
        found.setdefault(split or "train", []).append(_filled(shard))
        status = shard.stat()
        twin = seen.setdefault((status.st_dev, status.st_ino), shard)
        if twin != shard:
            raise DataError(f"{shard} and {twin} are one file, so its images would count twice: take one out")
    return found


def _split_of(relative: Path, shard: Path) -> str | None:
    words = re.split(r"[^a-z]+", relative.with_suffix("").as_posix().lower())
    said = {WORDS[word] for word in words if word in WORDS}
    if len(said) > 1:
        raise DataError(f"{shard} names more than one split ({', '.join(sorted(said))}): rename it")
    return said.pop() if said else None


def _filled(shard: Path) -> Path:
    try:
        size = shard.stat().st_size
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}): put it back or take it out") from None
    if size == 0:
        raise DataError(f"{shard} is empty: copy it again or take it out")
    return shard
