"""One plug-in system: a table's name, or any import string."""

import collections
import importlib.util

import pytest

from wenet_runtime.engines import ENGINES
from wenet_runtime.errors import EngineError, MeterError
from wenet_runtime.meters import METERS
from wenet_runtime.registry import load

TABLE = {"ordered": "collections:OrderedDict", "broken": "wenet_runtime.no_such_module:Thing"}


def test_a_name_of_the_table_is_imported() -> None:
    assert load(TABLE, "ordered", kind="dict", error=EngineError) is collections.OrderedDict


def test_an_import_string_needs_no_entry() -> None:
    assert load(TABLE, "collections:Counter", kind="dict", error=EngineError) is collections.Counter


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MeterError, match="unknown meter 'joule': known are ordered, broken, or give your own"):
        load(TABLE, "joule", kind="meter", error=MeterError)


@pytest.mark.parametrize("name", ["broken", "collections:NoSuchThing", "no.such.package:X", ":X", "collections:"])
def test_what_cannot_be_imported_is_refused_as_the_error_asked_for(name: str) -> None:
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(TABLE, name, kind="engine", error=EngineError)


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in (ENGINES, METERS) for name in table])
def test_every_entry_of_the_tables_can_be_imported_here(table: "dict[str, str]", name: str) -> None:
    if name == "openvino" and importlib.util.find_spec(name) is None:
        pytest.skip("OpenVINO is not installed here; it needs Python 3.10")
    assert callable(load(table, name, kind="entry", error=EngineError))
