"""One plug-in system: a table's name, or any import string."""

import collections
import importlib.util

import pytest

from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.base import Backend
from wenet_runtime.errors import EngineError, MeterError, SettingsError, WeNetError
from wenet_runtime.meters import METERS
from wenet_runtime.meters.base import Meter
from wenet_runtime.registry import load, make

TABLE = {"ordered": "collections:OrderedDict", "broken": "wenet_runtime.no_such_module:Thing"}


def test_a_name_of_the_table_is_imported() -> None:
    assert load(TABLE, "ordered", kind="dict", error=EngineError) is collections.OrderedDict


def test_an_import_string_needs_no_entry() -> None:
    assert load(TABLE, "collections:Counter", kind="dict", error=EngineError) is collections.Counter


def test_an_unknown_name_is_a_wrong_setting_and_the_known_ones_are_told() -> None:
    with pytest.raises(SettingsError, match="unknown meter 'joule': known are auto, ordered, broken, or give your own"):
        load(TABLE, "joule", kind="meter", error=MeterError, also=("auto",), unknown=SettingsError)


def test_a_name_that_is_close_to_one_is_suggested() -> None:
    with pytest.raises(SettingsError, match=r"unknown engine 'trtt': did you mean 'trt'[?] Known are auto, ort, trt,"):
        load(ENGINES, "trtt", kind="engine", error=EngineError, also=("auto",), unknown=SettingsError)


@pytest.mark.parametrize("name", ["broken", "collections:NoSuchThing", "no.such.package:X", ":X", "collections:"])
def test_what_cannot_be_imported_is_refused_as_the_error_asked_for(name: str) -> None:
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(TABLE, name, kind="engine", error=EngineError)


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in (ENGINES, METERS) for name in table])
def test_every_entry_of_the_tables_can_be_imported_here(table: "dict[str, str]", name: str) -> None:
    if name == "openvino" and importlib.util.find_spec(name) is None:
        pytest.skip("OpenVINO is not installed here; it needs Python 3.10")
    assert callable(load(table, name, kind="entry", error=EngineError))


class Sound:
    """A meter of somebody's own, as far as its methods go."""

    def energy_mj(self, start_s: float, end_s: float) -> None: ...

    def power(self) -> None: ...

    def state(self) -> None: ...

    def close(self) -> None:
        CLOSED.append(self)


class Whole(Sound):
    """With what else a meter has."""

    source, idle_w = "mine", None


class Broken(Whole):
    """One that cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no cable")


class Refusing(Whole):
    """One that says itself why it cannot."""

    def __init__(self) -> None:
        raise MeterError("no rail")


CLOSED: "list[Sound]" = []
HERE = "tests.runtime.test_registry:"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os.path:join", "'os.path:join' is no {kind} [(]it is a function, not a class[)]: give one as"),
        ("json:JSONDecoder", "'json:JSONDecoder' is no {kind} [(]it has no .*close[)]: it needs what wenet_runtime"),
    ],
)
def test_what_is_no_engine_or_meter_is_refused_before_it_is_made(name: str, said: str) -> None:
    with pytest.raises(EngineError, match=said.format(kind="engine")):
        load(ENGINES, name, kind="engine", error=EngineError, interface=Backend)
    with pytest.raises(MeterError, match=said.format(kind="meter")):
        make(METERS, name, kind="meter", error=MeterError, interface=Meter)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Broken", "cannot be made [(]RuntimeError: no cable[)]: mend it or choose another"),
        ("Refusing", "^no rail$"),
        ("Sound", "is no meter [(]it has no source, idle_w[)]: it needs what wenet_runtime.meters.base.Meter has"),
    ],
)
def test_what_cannot_be_made_or_lacks_something_is_the_error_asked_for(name: str, said: str) -> None:
    CLOSED.clear()
    with pytest.raises(WeNetError, match=said) as refused:
        make(METERS, HERE + name, kind="meter", error=MeterError, interface=Meter)
    assert type(refused.value) is MeterError
    assert len(CLOSED) == (name == "Sound")


def test_a_class_of_somebody_s_own_is_made_with_what_is_given() -> None:
    assert isinstance(make(METERS, HERE + "Whole", kind="meter", error=MeterError, interface=Meter), Whole)
    with pytest.raises(MeterError, match=r"cannot be made [(]TypeError: .*argument"):
        make(METERS, HERE + "Whole", kind="meter", error=MeterError, interface=Meter, rail="A")
