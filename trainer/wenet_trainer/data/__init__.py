"""The table of data sources: name → import string. A new source is one file and one line here."""

from collections.abc import Mapping

from wenet_runtime.registry import load
from wenet_trainer.data.base import Source
from wenet_trainer.errors import DataError

SOURCES: Mapping[str, str] = {"digits": "wenet_trainer.data.digits:Digits"}


def open_source(name: str, seed: int) -> Source:
    """The data source of that name, its splits fixed by `seed`."""
    source: Source = load(SOURCES, name, kind="data source", error=DataError)(seed=seed)
    return source
