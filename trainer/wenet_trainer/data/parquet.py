"""Images in Parquet shards as Hugging Face data sets have them: a column of encoded images and one of labels.

The library `datasets` turns the shards once into an Arrow file in its own cache, which is then mapped, not read.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wenet_trainer.data.contents import Contents, Split, number_classes
from wenet_trainer.data.shards import find_shards
from wenet_trainer.errors import DataError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels")
# Nothing here needs the network, and nobody shall be told what is trained on; a user's own setting is kept.
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class ParquetStore:
    """Rows of a mapped Arrow table.

    Attributes:
        table: a `datasets.Dataset` in its Arrow format, which leaves images encoded.
        column: the images' column.
        shards: the files its rows came from, and the row after each one's last.
    """

    table: Any
    column: str
    shards: tuple[tuple[str, int], ...]

    def read(self, row: int) -> bytes:
        """The bytes of one cell."""
        cell = self.table[row][self.column][0].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise DataError(f"{self.name(row)} holds no bytes: write the shard with its images inside, not their paths")
        return data

    def name(self, row: int) -> str:
        """The shard and the row in it, counted from 0."""
        place = bisect_right([end for _, end in self.shards], row)
        return f"{self.shards[place][0]}, row {row - (self.shards[place - 1][1] if place else 0)}"


@dataclass(frozen=True)
class _Table:
    """Shards of one split: where its images are, its labels as they stand, and the names `ClassLabel` gives them."""

    store: ParquetStore
    labels: NDArray[Any]
    names: tuple[str, ...]

    @property
    def texts(self) -> bool:
        """Whether the labels are strings."""
        return self.labels.dtype.kind == "O"


def read_parquet(path: Path) -> Contents:
    """Open the Parquet shards at `path`. Their names say the split, see `find_shards`.

    Labels are whole numbers from 0, named if the shards carry `ClassLabel` names, or strings. A split that names the
    classes in another order than the training images do is renumbered by the names.

    Raises:
        DataError: `datasets` is missing, or a shard is damaged, lacks a column, has labels that are none or that mean
            something else than those of the others.
    """
    tables = {name: _read_table(shards) for name, shards in find_shards(path, ".parquet").items()}
    notes = []
    if "test" in tables and len(tables["test"].labels) and (tables["test"].labels == -1).all():
        del tables["test"]
        notes.append(f"the test split of {path} has no labels (all are -1): it is left out")
    if len({bool(table.names) for table in tables.values()}) > 1:
        notes.append(f"only some splits of {path} name their classes: equal numbers are taken to mean the same class")
    classes = _classes(tables)
    named = "train" in tables and bool(tables["train"].names)
    splits = {
        name: Split(table.store, np.arange(len(table.labels)), _indices(table, classes, named))
        for name, table in tables.items()
    }
    return Contents(str(path), classes, splits, tuple(notes))


def _classes(tables: Mapping[str, _Table]) -> tuple[str, ...]:
    train = tables.get("train")
    if train is None:
        return ()
    for table in tables.values():
        if table.texts != train.texts:
            raise DataError(
                f"{table.store.shards[0][0]} has {_form(table.texts)} as labels, {train.store.shards[0][0]} has "
                f"{_form(train.texts)}: write them alike"
            )
    if train.texts:
        return tuple(sorted(set(train.labels)))
    if train.names:
        return train.names
    return number_classes((table.store, table.labels) for table in tables.values())


def _form(texts: bool) -> str:
    return "names" if texts else "numbers"


def _indices(table: _Table, classes: tuple[str, ...], named: bool) -> NDArray[np.int64]:
    """Class index of every row, by the names where the training images have some (`named`).

    Raises `DataError`, which names the row, for a label that is no class.
    """
    if table.texts:
        known = {name: index for index, name in enumerate(classes)}
        labels = np.array([known.get(text, -1) for text in table.labels], np.int64)
    elif table.names and named:
        labels = _renumbered(table, classes)
    else:
        labels = table.labels.astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{table.store.name(row)} has label {table.labels[row]!s}, which is none of the {len(classes)} classes of "
            "the training images: correct it or take it out"
        )
    return labels


def _renumbered(table: _Table, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The class index of every row's name; -1 for a label without one."""
    known = {name: index for index, name in enumerate(classes)}
    for name in table.names:
        if name not in known:
            raise DataError(
                f"{table.store.shards[0][0]} names class '{name}', which the training images do not have: write it "
                "with their names"
            )
    index = np.array([*(known[name] for name in table.names), -1], np.int64)
    return index[np.where((table.labels >= 0) & (table.labels < len(table.names)), table.labels, -1).astype(np.int64)]


def _read_table(shards: list[Path]) -> _Table:
    image, label, ends = _check_shards(shards)
    table = _map(shards, [image, label])
    column = table.select_columns([label]).with_format("arrow")[:][label]
    store = ParquetStore(table.with_format("arrow"), image, ends)
    if column.null_count:
        row = next(row for row, value in enumerate(column.to_pylist()) if value is None)
        raise DataError(f"{store.name(row)} has no label: add it or take the row out")
    labels = column.to_numpy()
    if labels.dtype.kind not in "iuO" or (labels.dtype.kind == "O" and not all(isinstance(x, str) for x in labels)):
        raise DataError(
            f"the labels of {shards[0]} are {column.type}: wanted are whole numbers from 0, or names as strings"
        )
    return _Table(store, labels, tuple(getattr(table.features[label], "names", ())))


def _check_shards(shards: list[Path]) -> tuple[str, str, tuple[tuple[str, int], ...]]:
    """The two columns' names, and where each shard's rows end; only the shards' footers are read."""
    with _library():
        import pyarrow
        from pyarrow.parquet import ParquetFile
    columns, forms, counts = [], [], []
    for shard in shards:
        try:
            with ParquetFile(shard) as file:
                schema = file.schema_arrow
                counts.append(file.metadata.num_rows)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{shard} is no readable Parquet file ({error}): copy it again") from None
        image, label = _column(shard, schema.names, IMAGE_COLUMNS), _column(shard, schema.names, LABEL_COLUMNS)
        columns.append((image, label))
        forms.append((pyarrow.types.is_integer(schema.field(label).type), _class_names(schema.metadata, label)))
    if len(set(columns)) > 1:
        raise DataError(f"the shards beside {shards[0]} call their columns differently: write them alike")
    for shard, form in zip(shards, forms, strict=True):
        # The library takes the first shard's form for all of them.
        if form != forms[0]:
            raise DataError(
                f"the labels of {shard} mean something else than those of {shards[0]} (names and numbers, or other "
                "names of classes): write them alike"
            )
    return *columns[0], tuple(zip(map(str, shards), accumulate(counts), strict=True))


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> tuple[str, ...]:
    """The names that `datasets` wrote into a shard's footer, if it did."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _column(shard: Path, columns: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise DataError(f"{shard} has columns {', '.join(columns)}, none of which is {' or '.join(wanted)}: rename one")


def _map(shards: list[Path], columns: list[str]) -> Any:
    """The shards as one mapped table, converted into the library's cache if they are not there yet."""
    with _library():
        import datasets
        from datasets.exceptions import DatasetsError
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.Dataset.from_parquet([str(shard) for shard in shards], columns=columns)
    except (DatasetsError, OSError, ValueError, TypeError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"the Parquet files beside {shards[0]} cannot be read ({cause}): copy them again; their copy in the cache "
            "of `datasets` needs as much room as they do (HF_DATASETS_CACHE says where)"
        ) from None
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _library() -> Iterator[None]:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # read when the library is imported
    try:
        yield
    except ImportError as error:
        raise DataError(f"parquet: needs the package datasets ({error}): pip install 'wenet-trainer[data]'") from None
