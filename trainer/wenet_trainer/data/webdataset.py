"""Images in tar shards as WebDataset writes them: members `<key>.jpg` and `<key>.cls` (or .json) side by side.

The shards are indexed once and then read in any order where they lie; the libraries would either stream them, which
gives no epoch an order of its own, or copy them whole.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.data.contents import Contents, Names, Split, number_classes
from wenet_trainer.data.decode import SUFFIXES
from wenet_trainer.data.shards import find_shards
from wenet_trainer.errors import DataError

LABELS = "labels.txt"
_LABEL_MEMBERS = ("cls", "json")
_JSON_NAMES = ("label", "cls")
_MAX_LABEL_BYTES = 1 << 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class TarStore:
    """Members of uncompressed tar files.

    Attributes:
        shards: paths of the files.
        shard, offset, size: (N,) int64 each: where an image's bytes lie.
        keys: what its members are called, without the ending.
    """

    shards: tuple[str, ...]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    keys: Names

    def read(self, row: int) -> bytes:
        """The bytes of one member."""
        try:
            with Path(self.shards[self.shard[row]]).open("rb") as file:
                file.seek(int(self.offset[row]))
                return file.read(int(self.size[row]))
        except OSError as error:
            raise DataError(f"{self.name(row)} cannot be read ({error.strerror}): put it back or start again") from None

    def name(self, row: int) -> str:
        """The shard and the key."""
        return f"{self.shards[self.shard[row]]}, image '{self.keys[row]}'"


@dataclass(frozen=True)
class _Sample:
    key: str
    offset: int
    size: int
    label: int


def read_webdataset(path: Path) -> Contents:
    """Index the tar shards at `path`. Their names say the split, see `find_shards`.

    A file `labels.txt` in the directory, one line per class, names the classes; else they are called by number.

    Raises:
        DataError: a shard that is compressed, damaged or cut short, or a sample without its one image or its label.
    """
    splits = {name: _read_split(shards) for name, shards in find_shards(path, ".tar").items()}
    names = path / LABELS
    if not names.is_file():
        return Contents(str(path), number_classes((split.store, split.labels) for split in splits.values()), splits)
    try:
        classes = tuple(names.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{names} cannot be read as UTF-8 text ({error}): write it again, a class a line") from None
    highest = max(int(split.labels.max()) for split in splits.values())
    if highest >= len(classes):
        raise DataError(f"{names} names {len(classes)} classes, but label {highest} occurs: add the missing lines")
    return Contents(str(path), classes, splits)


def _read_split(shards: list[Path]) -> Split:
    found = [(place, sample) for place, shard in enumerate(shards) for sample in _samples(shard)]
    if not found:
        raise DataError(f"{shards[0]} holds no image: a sample is <key>.jpg and <key>.cls")
    store = TarStore(
        tuple(str(shard) for shard in shards),
        np.array([place for place, _ in found], np.int64),
        np.array([sample.offset for _, sample in found], np.int64),
        np.array([sample.size for _, sample in found], np.int64),
        Names(sample.key for _, sample in found),
    )
    return Split(store, np.arange(len(found)), np.array([sample.label for _, sample in found], np.int64))


def _samples(shard: Path) -> Iterator[_Sample]:
    """The samples of one shard; members of one key lie side by side."""
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for key, group in groupby(_members(file, archive), key=lambda member: _key(member)[0]):
                sample = _sample(archive, shard, key, {_key(member)[1]: member for member in group})
                if sample is not None:
                    yield sample
    except tarfile.TarError as error:
        raise DataError(
            f"{shard} is no plain tar file, or is cut short ({error}): copy it again, and decompress it if it is packed"
        ) from None
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror or error}): copy it again") from None


def _members(file: BinaryIO, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that may belong to a sample. Raises `tarfile.ReadError` if the archive does not end as it should.

    A cut between members and a damaged header look like the end to tarfile: what follows says whether it is one.
    """
    for member in archive:
        if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
            yield member
    file.seek(archive.offset)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")
    while rest:
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"damaged near byte {archive.offset}, or several archives in one file")
        rest = file.read(_READ_BYTES)


def _key(member: tarfile.TarInfo) -> tuple[str, str]:
    """`a/b.seg.png` → ("a/b", "seg.png"): a key ends at the first dot of the file name."""
    folder, slash, file = member.name.rpartition("/")
    stem, _, ending = file.partition(".")
    return folder + slash + stem, ending.lower()


def _sample(archive: tarfile.TarFile, shard: Path, key: str, members: dict[str, tarfile.TarInfo]) -> _Sample | None:
    images = [member for ending, member in members.items() if f".{ending}" in SUFFIXES]
    label = next((members[ending] for ending in _LABEL_MEMBERS if ending in members), None)
    if not images and label is None:
        return None  # a note or a licence
    if len(images) != 1 or label is None:
        wrong = "no label (.cls or .json)" if label is None else f"{len(images)} images instead of one"
        raise DataError(f"{shard}: sample '{key}' has {wrong}: write the shard again")
    image = images[0]
    if image.size == 0:
        raise DataError(f"{shard}: the image of sample '{key}' is empty: write the shard again")
    return _Sample(key, image.offset_data, image.size, _label(archive, shard, key, label))


def _label(archive: tarfile.TarFile, shard: Path, key: str, member: tarfile.TarInfo) -> int:
    file = archive.extractfile(member)
    text = b"" if file is None else file.read(_MAX_LABEL_BYTES)
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            value = next(value[name] for name in _JSON_NAMES if name in value)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError
    except (ValueError, RecursionError, StopIteration):
        raise DataError(
            f"{shard}: the label of sample '{key}' ({member.name}: {text[:40]!r}) is no class index: it wants a whole "
            "number from 0, or JSON with a member 'label'"
        ) from None
    return value
