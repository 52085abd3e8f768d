"""Which meter is chosen, and what is said of those that were not."""

import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from tests.runtime import sysfs_trees as trees
from tests.runtime.meter_doubles import JtopDouble, NvmlDouble
from wenet_runtime.board import Board
from wenet_runtime.errors import MeterError, SettingsError
from wenet_runtime.meters import METERS, auto
from wenet_runtime.meters import sysfs as sysfs_files
from wenet_runtime.meters.auto import ORDER, Chosen, choose_meter
from wenet_runtime.meters.base import UNAVAILABLE
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter


class TegrastatsDouble(NoMeter):
    """A meter in tegrastats' place, which needs no program."""

    source = "rail:double"
    asked: List[Optional[str]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, rail: Optional[str] = None) -> None:
        super().__init__()
        self.asked.append(rail)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without anything: no program, no library, no sensor."""
    TegrastatsDouble.asked.clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("wenet_runtime.meters.tegrastats_child.USUAL_PLACE", str(tmp_path / "tegrastats"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("wenet_runtime.meters.nvml.read_board", Board)


@pytest.fixture
def chosen(tmp_path: Path) -> Iterator[Any]:
    """Chooses meters and closes them."""
    found: List[Chosen] = []

    def choose(name: str = "auto", **how: Any) -> Chosen:
        found.append(choose_meter(name, sysfs=tmp_path, **how))
        return found[-1]

    yield choose
    for one in found:
        one.meter.close()


def with_tegrastats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "METERS", {**METERS, "tegrastats": f"{__name__}:TegrastatsDouble"})


def test_the_board_s_own_sensor_comes_first(chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tegrastats(monkeypatch)
    trees.nano(tmp_path)
    found = chosen()
    assert (found.name, found.meter.source, found.passed_over) == ("ina3221", "rail:POM_5V_IN", {})
    assert TegrastatsDouble.asked == []


def test_tegrastats_comes_next(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tegrastats(monkeypatch)
    found = chosen(on_gpu=True)
    assert (found.name, found.meter.source) == ("tegrastats", "rail:double")
    assert list(found.passed_over) == ["ina3221"]


@pytest.mark.parametrize(("on_gpu", "name", "other"), [(True, "nvml", "processor"), (False, "rapl", "GPU")])
def test_what_is_measured_is_what_the_engine_computes_on(
    on_gpu: bool, name: str, other: str, chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble())
    trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = chosen(on_gpu=on_gpu)
    assert (found.name, found.meter.source) == (name, name)
    if not on_gpu:
        assert found.passed_over["nvml"] == "it does not see the processor, on which the engine computes"


def test_where_nothing_delivers_it_is_said_of_each_why(chosen: Any, tmp_path: Path) -> None:
    trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = chosen(on_gpu=True)
    assert (found.name, found.meter.source) == ("none", "none")
    assert tuple(found.passed_over) == ORDER
    state = found.meter.state()
    assert state.status == UNAVAILABLE
    for name, why in found.passed_over.items():
        assert f"{name}: {why}" in state.detail
    assert "no INA3221" in found.passed_over["ina3221"]
    assert "tegrastats" in found.passed_over["tegrastats"]
    assert "nvidia-ml-py is not installed" in found.passed_over["nvml"]
    assert found.passed_over["rapl"] == "it does not see the GPU, on which the engine computes"


def test_what_somebody_can_do_something_about_is_said_first(
    chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})

    def refused(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("wenet_runtime.meters.rapl.read_number", refused)
    found = chosen()
    assert found.name == "none"
    assert found.meter.state().detail.startswith("no meter delivers here. rapl: permission: ")


def test_a_configured_rail_goes_to_those_that_have_rails_and_keeps_the_others_out(
    chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = chosen(rail="VDD_X")
    assert found.name == "none"
    assert found.passed_over["nvml"] == found.passed_over["rapl"] == "it has no rails, and --power-rail names one"
    with_tegrastats(monkeypatch)
    assert chosen(rail="VDD_X").name == "tegrastats"
    assert TegrastatsDouble.asked == ["VDD_X"]
    trees.nano(tmp_path)
    assert chosen(rail="POM_5V_GPU").meter.source == "rail:POM_5V_GPU"


@pytest.mark.parametrize("name", ["nvml", "rapl", "none", "sim", "tests.runtime.test_meters_auto:Own"])
def test_a_rail_beside_a_meter_without_rails_is_refused(name: str, chosen: Any) -> None:
    with pytest.raises(MeterError, match=f"--power-rail A goes with a meter that has rails .*, and --meter is {name}"):
        chosen(name, rail="A")


def test_jtop_is_never_chosen_but_by_name(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", JtopDouble({"POM_5V_IN": 2000, "POM_5V_GPU": 80}))
    assert chosen().name == "none"
    assert chosen("jtop", rail="POM_5V_GPU").meter.source == "rail:POM_5V_GPU"


@pytest.mark.parametrize("name", ["ina3221", "tegrastats", "nvml", "rapl", "jtop"])
def test_a_meter_that_was_named_and_cannot_deliver_is_an_error(
    name: str, chosen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(MeterError):
        chosen(name)


class Own(SimMeter):
    """A user's own meter, made without arguments."""


def test_a_user_s_own_class_is_loaded_by_its_name(chosen: Any) -> None:
    found = chosen(f"{__name__}:Own")
    assert (found.name, type(found.meter), found.passed_over) == (f"{__name__}:Own", Own, {})


def test_an_unknown_name_is_refused_with_those_that_are_known(chosen: Any) -> None:
    with pytest.raises(SettingsError, match="unknown meter 'thumb': known are auto, ina3221, tegrastats, nvml, rapl, "):
        chosen("thumb")


def test_the_system_s_own_tree_is_read_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.nano(tmp_path)
    monkeypatch.setattr(auto, "SYSFS", tmp_path)
    found = choose_meter("auto")
    found.meter.close()
    assert found.name == "ina3221"


def test_files_that_may_not_be_read_leave_a_reason_with_its_remedy(
    chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.nano(tmp_path)

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sysfs_files, "read_file", refused)
    found: Dict[str, str] = chosen().passed_over
    assert found["ina3221"].startswith("permission: ")
