"""The meter of a daemon on composed boards: what answers are said to take, and what is said where none can tell."""

import logging
import re
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest

from tests.runtime import sysfs_trees as trees
from tests.runtime.fakes import Client
from tests.runtime.sysfs_trees import write
from wenet_runtime.board import Board
from wenet_runtime.conditions import Conditions
from wenet_runtime.device_state import DeviceState
from wenet_runtime.errors import MeterError
from wenet_runtime.meters import sysfs as sysfs_files
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service import daemon as daemon_module
from wenet_runtime.service import metering
from wenet_runtime.service.daemon import Daemon, open_daemon
from wenet_runtime.service.device_watch import ALLOWED_NOISE, STAYS, Steady
from wenet_runtime.service.metering import know_idle, open_meter
from wenet_runtime.settings import Settings


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the meters take for /sys; no program of the machine is found."""
    monkeypatch.setattr("wenet_runtime.meters.auto.SYSFS", tmp_path / "sys")
    monkeypatch.setattr("wenet_runtime.meters.tegrastats_child.USUAL_PLACE", str(tmp_path / "tegrastats"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "sys"


@pytest.fixture
def opened(bundle_path: Path, tmp_path: Path, sysfs: Path) -> Iterator[Any]:
    """Opens daemons on the simulated engine and closes them."""
    daemons: List[Daemon] = []

    def open_one(**more: Any) -> Daemon:
        settings = Settings(
            **{"bundle": bundle_path, "cache_dir": tmp_path / "cache", "profile_rounds": 10, "engine": "sim", **more}
        )
        daemons.append(open_daemon(settings))
        return daemons[-1]

    yield open_one
    for one in daemons:
        one.close(10.0)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board whose sensors' files only root may read, and this is not root."""

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sysfs_files, "read_file", refused)


def test_a_daemon_on_a_nano_measures_the_energy_of_each_answer(opened: Any, sysfs: Path) -> None:
    trees.nano(sysfs, milliamperes=600)  # 3 W
    daemon = opened()
    client = Client(daemon.app)
    reply = client.infer()
    assert reply.status_code == 200
    assert reply.headers["WeNet-Energy-Source"] == "rail:POM_5V_IN"
    computed_ms = float(re.findall(r"infer;dur=([\d.]+)", reply.headers["Server-Timing"])[0])
    assert float(reply.headers["WeNet-Energy-Mj"]) == pytest.approx(3.0 * computed_ms, rel=0.2, abs=0.01)
    meter = client.get("/v2/health").json()["meter"]
    assert (meter["name"], meter["source"], meter["status"]) == ("ina3221", "rail:POM_5V_IN", "ok")
    assert meter["idle_w"] == pytest.approx(3.0)
    assert meter["interval_s"] == 0.02
    for mode in client.get("/modes").json()["modes"]:
        assert mode["energy_source"] == "rail:POM_5V_IN"
        assert mode["energy_mj"] > 0


def test_where_only_root_may_read_it_serves_and_says_what_to_do(
    opened: Any, sysfs: Path, forbidden: None, caplog: pytest.LogCaptureFixture
) -> None:
    trees.nano(sysfs)
    client = Client(opened().app)
    reply = client.infer()
    assert reply.status_code == 200
    assert reply.headers["WeNet-Energy-Source"] == "none"
    assert "WeNet-Energy-Mj" not in reply.headers
    meter = client.get("/v2/health").json()["meter"]
    assert (meter["name"], meter["source"], meter["status"], meter["idle_w"]) == ("none", "none", "unavailable", None)
    assert meter["detail"].startswith("no meter delivers here. ina3221: permission: ")
    assert "sudo chmod o+r /sys/bus/i2c/drivers/ina3221x/" in meter["detail"]
    warned = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one for one in warned if "ina3221 is passed over: permission:" in one]


def test_a_meter_that_was_named_and_may_not_read_ends_the_start(opened: Any, sysfs: Path, forbidden: None) -> None:
    trees.nano(sysfs)
    with pytest.raises(MeterError, match=r"^permission: "):
        opened(meter="ina3221")


def test_a_board_with_rotated_labels_serves_without_energy_until_a_rail_is_named(opened: Any, sysfs: Path) -> None:
    device = trees.nano(sysfs)
    for at, label in enumerate(("POM_5V_GPU", "POM_5V_CPU", "POM_5V_IN")):
        write(device / f"rail_name_{at}", label)
    client = Client(opened().app)
    meter = client.get("/v2/health").json()["meter"]
    assert meter["status"] == "unavailable"
    assert "labels are rotated" in meter["detail"]
    assert "WeNet-Energy-Mj" not in client.infer().headers
    named = Client(opened(power_rail="POM_5V_GPU").app).infer()
    assert named.headers["WeNet-Energy-Source"] == "rail:POM_5V_GPU"


def test_a_machine_without_a_sensor_is_no_reason_for_a_warning(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert Client(opened().app).get("/v2/health").json()["meter"]["name"] == "none"
    assert [one for one in caplog.records if "passed over" in one.getMessage()] == []


@pytest.mark.parametrize(("engine", "on_gpu"), [("trt", True), ("ort-cuda", True), ("ort", False), ("auto", False)])
def test_the_meter_follows_what_the_engine_computes_on(
    engine: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[Any] = []

    def choose(name: str, **how: Any) -> Any:
        asked.append((name, how))
        return metering.Chosen("none", NoMeter())

    monkeypatch.setattr(metering, "choose_meter", choose)
    open_meter(Settings(engine=engine, power_rail="A"))
    assert asked == [("auto", {"on_gpu": on_gpu, "rail": "A"})]


@pytest.mark.parametrize(
    ("given", "known", "found"),
    [(None, None, 1.5), (None, 2.0, 2.0), (0.7, None, 0.7), (0.7, 2.0, 0.7), (0.0, 2.0, 0.0)],
)
def test_idle_power_is_as_given_or_known_and_measured_only_otherwise(
    given: Optional[float], known: Optional[float], found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: List[int] = []

    def measure(meter: Any) -> float:
        measured.append(1)
        return 1.5

    monkeypatch.setattr(metering, "measure_idle_w", measure)
    meter = SimMeter()
    meter.idle_w = known
    know_idle(Settings(idle_w=given), meter)
    assert meter.idle_w == found
    assert bool(measured) == (given is None and known is None)


@pytest.mark.parametrize(
    ("engine", "gpu", "device"),
    [("ort", "57000000.gpu", "cpu"), ("sim", None, "cpu"), ("trt", "57000000.gpu", "57000000.gpu"),
     ("ort-cuda", None, "gpu")],
)  # fmt: skip
def test_the_clocks_that_are_watched_are_those_of_what_computes(
    engine: str, gpu: Optional[str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "read_board", lambda: Board(gpu=gpu))
    assert daemon_module._clock_device(engine) == device


def test_the_gpu_s_allowed_clock_slows_what_is_predicted_and_the_processor_s_does_not(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "ON_GPU", frozenset(("sim",)))  # a simulated engine in a GPU's place
    monkeypatch.setattr(daemon_module, "read_board", lambda: Board(gpu="57000000.gpu"))
    daemon = opened(meter="none")
    watch = daemon.watch
    watch.close()
    told: List[float] = []
    watch._told = watch._told._replace(clock_changed=told.append)
    watch._allowed = Steady(ALLOWED_NOISE, STAYS)  # whatever this machine has said already
    for cpu_mhz, gpu_mhz in ((1479.0, 921.6), (918.0, 921.6), (918.0, 921.6), (918.0, 460.8), (918.0, 460.8)):
        clocks = {"cpu0": cpu_mhz, "57000000.gpu": gpu_mhz}
        watch._read = lambda clocks=clocks: DeviceState(Conditions(), clocks)  # type: ignore[misc]
        watch.look()
    assert told == [pytest.approx(0.5)]
