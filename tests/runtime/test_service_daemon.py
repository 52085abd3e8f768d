"""Putting a daemon together: what it refuses to start with, and what it measures once."""

import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, List, Tuple

import pytest

from tests.runtime.fakes import MEDIANS_MS, PATIENCE_S, Client, profile, wait_for
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import (
    BudgetImpossible,
    BundleError,
    EnergyUnavailable,
    SettingsError,
    UnknownMode,
)
from wenet_runtime.memory import MB
from wenet_runtime.meters.none import NoMeter
from wenet_runtime.mode_store import ModeStore
from wenet_runtime.profile_file import DeviceProfile
from wenet_runtime.service.daemon import (
    allowed_hosts,
    check_bind,
    is_loopback,
    open_daemon,
)
from wenet_runtime.service.opening import open_cache, open_device
from wenet_runtime.settings import Settings
from wenet_runtime.thermal import ThermalTrend


def settings(bundle_path: Path, tmp_path: Path, **more: Any) -> Settings:
    return Settings(**{"bundle": bundle_path, "cache_dir": tmp_path / "cache", "profile_rounds": 10, **more})


def test_a_device_is_profiled_once_and_again_only_when_asked(bundle_path: Path, tmp_path: Path) -> None:
    told: List[Tuple[str, int, int]] = []

    def opened(**more: Any) -> Any:
        told.clear()
        device = open_device(
            settings(bundle_path, tmp_path), lambda what, done, total: told.append((what, done, total)), **more
        )
        device.pool.close()
        return device.profiles

    first = opened()
    assert ("profiling", 10, 10) in told
    assert opened() == first
    assert not [what for what, _, _ in told if what == "profiling"]
    opened(profile_again=True)
    assert ("profiling", 10, 10) in told


def test_a_meter_s_energy_is_in_the_profile(bundle_path: Path, tmp_path: Path) -> None:
    device = open_device(settings(bundle_path, tmp_path, meter="sim"))
    device.pool.close()
    assert {one.energy_source for one in device.profiles.values()} == {"sim"}
    assert all(one.energy_mj is not None and one.energy_mj > 0 for one in device.profiles.values())


def test_the_simulated_engine_serves_without_any_model(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim"))
    response = Client(daemon.app).infer()
    assert response.status_code == 200
    assert sum(response.json()["outputs"][0]["data"]) == 1
    assert not list(tmp_path.glob("cache/*/*/*.model"))
    daemon.runtime.close()


def test_the_daemon_s_own_options_are_each_request_s_default(bundle_path: Path, tmp_path: Path) -> None:
    more: Dict[str, Any] = {"engine": "sim", "mode": "m1", "budget_ms": 5000.0, "on_miss": "late"}
    daemon = open_daemon(settings(bundle_path, tmp_path, **more))
    response = Client(daemon.app).infer()
    assert (response.headers["wenet-mode"], response.headers["wenet-budget-met"]) == ("m1", "true")
    policy = Client(daemon.app).get("/modes").json()["policy"]
    assert (policy["mode"], policy["budget_ms"], policy["on_miss"]) == ("m1", 5000.0, "late")
    daemon.runtime.close()


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"budget_ms": 0.001}, BudgetImpossible, "meets --budget-ms 0.001 on this device: the fastest, m0, takes"),
        ({"min_accuracy": 0.95}, BudgetImpossible, "accuracy 0.95: the best is m2"),
        ({"budget_mj": 5.0}, EnergyUnavailable, "choose --meter"),
        ({"budget_mj": 0.001, "meter": "sim", "on_miss": "reject"}, BudgetImpossible, "--budget-mj 0.001"),
        ({"mode": "m9"}, UnknownMode, "no mode 'm9'"),
        ({"engine": "abacus"}, SettingsError, "unknown engine 'abacus': known are auto, ort, trt, "),
        ({"meter": "thumb"}, SettingsError, "unknown meter 'thumb': known are auto, ina3221, tegrastats"),
        ({"host": "0.0.0.0"}, SettingsError, "--insecure-no-auth"),
        ({"bundle": Path("nowhere")}, BundleError, "no bundle at nowhere"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(
    bundle_path: Path, tmp_path: Path, more: Dict[str, Any], error: Any, said: str
) -> None:
    with pytest.raises(error, match=said):
        open_daemon(settings(bundle_path, tmp_path, **{"engine": "sim", **more}))


class NotedMeter(NoMeter):
    """Notes which of them were opened and closed."""

    there: ClassVar[List["NotedMeter"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.there.append(self)

    def close(self) -> None:
        if self in self.there:  # closing twice is harmless
            self.there.remove(self)


class Defect(Exception):
    """What goes wrong at a place where nothing was foreseen."""


@pytest.mark.parametrize(
    "where",
    [
        "wenet_runtime.service.opening.Costs.known_or_measured",
        "wenet_runtime.service.opening.DeviceCache.build",
        "wenet_runtime.service.opening._backend",
        "wenet_runtime.service.assembly.Controller.__init__",
        "wenet_runtime.service.assembly.check_feasible",
        "wenet_runtime.service.assembly.make_scheduler",
        "wenet_runtime.service.assembly.Runtime.__init__",
        "wenet_runtime.service.daemon.Metrics.__init__",
        "wenet_runtime.service.daemon.DeviceWatch.start",
        "wenet_runtime.service.daemon.create_app",
    ],
)
def test_a_start_that_fails_leaves_no_thread_and_no_meter_behind(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*parts: Any, **how: Any) -> None:
        raise Defect(where)

    before = set(threading.enumerate())
    monkeypatch.setattr(where, fail)
    log_path = tmp_path / "decisions.jsonl"
    given = settings(
        bundle_path, tmp_path, meter="tests.runtime.test_service_daemon:NotedMeter", memory_mb=1.0,
        decision_log=log_path, engine="ort" if "build" in where else "sim",
    )  # fmt: skip
    with pytest.raises(Defect):
        open_daemon(given)
    assert NotedMeter.there == []
    assert [one.name for one in threading.enumerate() if one not in before] == []


def test_a_daemon_that_is_closed_leaves_nothing_behind_though_a_part_fails_to_close(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    given = settings(bundle_path, tmp_path, engine="sim", decision_log=tmp_path / "decisions.jsonl")
    daemon = open_daemon(given)
    close = daemon.runtime.close

    def close_and_fail(timeout_s: float) -> bool:
        close(timeout_s)
        raise Defect("a meter that does not close")

    monkeypatch.setattr(daemon.runtime, "close", close_and_fail)
    with pytest.raises(Defect):
        daemon.close(10.0)
    assert [one.name for one in threading.enumerate() if one not in before] == []


def test_the_decision_log_may_lie_in_the_home_directory(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim", decision_log=Path("~/decisions.jsonl")))
    assert Client(daemon.app).infer().status_code == 200
    assert daemon.close(10.0)
    assert (tmp_path / "decisions.jsonl").read_text()


def test_an_idle_daemon_s_ledger_goes_on(bundle_path: Path, tmp_path: Path) -> None:
    more = {"meter": "sim", "engine": "sim", "energy_wh": 100.0, "hours": 20.0, "idle_w": 2.0}
    daemon = open_daemon(settings(bundle_path, tmp_path, **more))
    client = Client(daemon.app)

    def remaining_wh() -> float:
        found: float = client.get("/modes").json()["power"]["remaining_wh"]
        return found

    before_wh, end_s = remaining_wh(), time.monotonic() + PATIENCE_S
    while remaining_wh() == before_wh:  # nobody sends a request
        assert time.monotonic() < end_s, "the ledger stands still"
        daemon.watch.look()
    assert remaining_wh() < before_wh
    assert daemon.close(10.0)


def test_modes_says_what_is_known_of_the_device_and_the_log(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim"))
    daemon.watch.close()
    watch, log, client = daemon.watch, daemon.log, Client(daemon.app)
    watch.trends, watch.throttled, watch.power_setting = {}, None, None
    found = client.get("/modes").json()
    names = ["temperature_c", "slope_c_per_s", "seconds_to_limit", "throttled", "power_setting"]
    assert found["device"] == dict.fromkeys(names)
    assert found["decision_log"] == {"dropped": 0, "failure": None}
    watch.trends = {"CPU-therm": ThermalTrend(97.0), "Board": ThermalTrend(97.0)}
    for second in range(30):
        watch.trends["CPU-therm"].observe(50.0 + second, second)
        watch.trends["Board"].observe(30.0, second)
    watch.throttled, watch.power_setting = False, "MAXN"
    log.dropped, log.failure = 3, "the disk is full"
    found = client.get("/modes").json()
    assert found["device"] == dict(zip(names, (78.0, 1.0, 19.0, False, "MAXN")))
    assert found["decision_log"] == {"dropped": 3, "failure": "the disk is full"}
    del watch.trends["CPU-therm"]  # what does not warm never comes to its limit
    assert client.get("/modes").json()["device"]["seconds_to_limit"] is None
    assert daemon.close(10.0)


def test_a_list_of_modes_is_of_one_prediction(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim"))
    runtime = daemon.runtime
    asked: List[int] = []
    forecast = runtime.forecast

    def counted() -> Any:
        asked.append(1)
        return forecast()

    with monkeypatch.context() as patched:
        patched.setattr(runtime, "forecast", counted)
        found = Client(daemon.app).get("/modes").json()
    assert len(found["modes"]) == 3
    assert len(asked) == 1
    assert daemon.close(10.0)


def test_a_floor_and_a_budget_must_hold_together(bundle_path: Path, tmp_path: Path) -> None:
    both = settings(bundle_path, tmp_path, engine="sim", min_accuracy=0.89, budget_ms=0.23)
    with pytest.raises(BudgetImpossible, match="the fastest, m2"):
        open_daemon(both)


def test_a_budget_no_mode_meets_starts_when_late_answers_are_wanted(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim", budget_ms=0.001, on_miss="late"))
    assert daemon.runtime.close()


def test_the_cache_alone_loads_no_mode(bundle_path: Path, tmp_path: Path) -> None:
    cache = open_cache(settings(bundle_path, tmp_path))
    assert cache.path.parent.name == Bundle(bundle_path).sha256
    assert list(cache.path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_only_loopback_addresses_need_no_consent(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        check_bind(Settings(host=host))
    else:
        with pytest.raises(SettingsError, match=f"--host {host} is reachable from other machines.*--token-file"):
            check_bind(Settings(host=host))
    check_bind(Settings(host=host, insecure_no_auth=True))
    check_bind(Settings(host=host, token_file=Path("read later")))


def test_a_daemon_with_a_token_file_answers_who_brings_one(
    bundle_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, token = tmp_path / "token", "correct-horse-battery"
    path.write_text(token)
    path.chmod(0o600)
    caplog.set_level(0)
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim", host="0.0.0.0", token_file=path))
    client = Client(daemon.app)
    assert client.infer().status_code == 401
    assert client.infer(headers={"Authorization": "Bearer wrong-horse-battery"}).status_code == 401
    assert client.infer(headers={"Authorization": f"Bearer {token}"}).status_code == 200
    shown = client.get("/modes", headers={"Authorization": f"Bearer {token}"}).text
    assert daemon.close(10.0)
    for text in (shown, caplog.text, repr(daemon)):
        assert "horse" not in text


def test_tokens_guard_also_an_address_that_may_be_open(bundle_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("correct-horse-battery")
    path.chmod(0o600)
    more = {"host": "0.0.0.0", "token_file": path, "insecure_no_auth": True}
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim", **more))
    assert Client(daemon.app).infer().status_code == 401
    assert daemon.close(10.0)


def test_a_bad_token_file_is_found_before_anything_is_measured(bundle_path: Path, tmp_path: Path) -> None:
    given = settings(bundle_path, tmp_path, token_file=tmp_path / "none")
    with pytest.raises(SettingsError, match="cannot read --token-file"):
        open_daemon(given)
    assert not (tmp_path / "cache").exists()


def test_hosts_are_checked_on_loopback_addresses_only() -> None:
    found = allowed_hosts(Settings(allowed_host=["Board.local"]))
    assert found == {"localhost", "127.0.0.1", "[::1]", "board.local"}
    assert allowed_hosts(Settings(host="0.0.0.0")) is None


def with_known_costs(given: Settings) -> Settings:
    """The same settings on a device that measured the modes before: m0 is the fastest, whatever else runs here."""
    costs = {mode_id: profile(p50_ms) for mode_id, p50_ms in MEDIANS_MS.items()}
    open_cache(given).write_profile(DeviceProfile(costs, "none", "2024-01-01T00:00:00+00:00"))
    return given


def test_with_a_limit_of_memory_the_fastest_is_there_and_the_others_come(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(with_known_costs(settings(bundle_path, tmp_path, engine="sim", memory_mb=0.1)))
    pool = daemon.runtime.pool
    assert "m0" in pool.residency.resident
    wait_for(pool, lambda: pool.residency.resident == {"m0", "m2"})  # the most accurate first; m1 has no room
    assert daemon.runtime.controller.profiles.keys() == {"m0", "m1", "m2"}
    assert daemon.runtime.close()


def test_the_mode_the_daemon_is_pinned_to_comes_first(bundle_path: Path, tmp_path: Path) -> None:
    given = settings(bundle_path, tmp_path, engine="sim", memory_mb=0.06, mode="m1")
    daemon = open_daemon(with_known_costs(given))
    wait_for(daemon.runtime.pool, lambda: daemon.runtime.pool.residency.resident == {"m0", "m1"})
    assert daemon.runtime.close()


def test_modes_over_the_daemon_s_own_budget_come_last(bundle_path: Path, tmp_path: Path) -> None:
    first = open_device(with_known_costs(settings(bundle_path, tmp_path, engine="sim")))
    first.close()
    between = (MEDIANS_MS["m1"] + MEDIANS_MS["m2"]) / 2
    for budget_ms, order in ((None, ["m2", "m1", "m0"]), (between, ["m1", "m0", "m2"])):
        assert first._order(settings(bundle_path, tmp_path, budget_ms=budget_ms)) == order


@pytest.mark.parametrize("engine", ["ort", "sim"])
def test_every_mode_is_measured_within_the_limit(bundle_path: Path, tmp_path: Path, engine: str) -> None:
    whole = open_device(settings(bundle_path, tmp_path, engine=engine))
    sizes = {mode_id: whole.pool.footprint(mode_id).alone / MB for mode_id in whole.pool.modes}
    whole.close()
    given = settings(bundle_path, tmp_path, engine=engine, memory_mb=max(sizes.values()) * 1.01)
    device = open_device(given, profile_again=True)
    assert list(device.profiles) == ["m2", "m1", "m0"]
    assert device.pool.resident == []
    device.close()


def test_a_mode_larger_than_the_limit_is_neither_measured_nor_served(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, engine="sim", memory_mb=0.05))
    client = Client(daemon.app)
    rows = {mode["id"]: mode for mode in client.get("/modes").json()["modes"]}
    assert rows["m2"]["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert (rows["m2"]["resident"], rows["m2"]["energy_mj"]) == (False, None)
    assert rows["m2"]["memory_mb"] > 0.05
    assert client.infer(headers={"WeNet-Mode": "m2"}).status_code == 404
    assert client.infer(headers={"WeNet-Min-Accuracy": "0.9"}).status_code == 422
    assert client.infer().headers["wenet-mode"] in ("m0", "m1")  # whichever was measured to be faster stays
    daemon.runtime.close()
    assert open_cache(settings(bundle_path, tmp_path, engine="sim")).path  # the same device: what is known is kept
    with pytest.warns(UserWarning, match="measuring again"):  # now m2 is wanted as well
        open_device(settings(bundle_path, tmp_path, engine="sim")).close()


@pytest.mark.parametrize("engine", ["ort", "sim"])
def test_a_limit_that_holds_no_mode_is_refused_at_the_start(bundle_path: Path, tmp_path: Path, engine: str) -> None:
    with pytest.raises(SettingsError, match=r"--memory-mb 0\.001 does not hold .*m0: give at least 0\.0"):
        open_daemon(settings(bundle_path, tmp_path, engine=engine, memory_mb=0.001))


def test_threads_are_chosen_for_each_mode_once(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.service.costs.os.cpu_count", lambda: 4)
    told: List[str] = []
    given = settings(bundle_path, tmp_path, engine="sim", threads=0)

    def opened() -> Any:
        told.clear()
        device = open_device(given, lambda what, done, total: told.append(what))
        device.close()
        return device

    first = opened()
    assert "choosing threads" in told
    chosen = {mode_id: profile.threads for mode_id, profile in first.profiles.items()}
    assert set(chosen) == {"m0", "m1", "m2"}
    assert set(chosen.values()) <= {2, 4}  # more help a simulated mode; that four do may be hidden on a crowded machine
    assert first.pool.threads == chosen
    again = opened()
    assert "choosing threads" not in told
    assert again.pool.threads == first.pool.threads
    assert again.profiles == first.profiles


def test_threads_that_are_given_are_not_chosen(bundle_path: Path, tmp_path: Path) -> None:
    device = open_device(settings(bundle_path, tmp_path, engine="sim", threads=2))
    device.close()
    assert device.pool.threads == {}
    assert {profile.threads for profile in device.profiles.values()} == {None}


def test_the_real_engine_answers_with_threads_of_its_own_choice(bundle_path: Path, tmp_path: Path) -> None:
    daemon = open_daemon(settings(bundle_path, tmp_path, threads=0))
    assert Client(daemon.app).infer().status_code == 200
    assert set(daemon.runtime.pool.threads) == {"m0", "m1", "m2"}
    daemon.runtime.close()


def test_the_memory_of_an_evicted_mode_is_given_back(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: List[Tuple[str, List[str]]] = []
    release = ModeStore.release

    def noted(store: ModeStore, mode_id: str, kept: Iterable[str]) -> None:
        released.append((mode_id, list(kept)))
        release(store, mode_id, kept)

    monkeypatch.setattr(ModeStore, "release", noted)
    device = open_device(settings(bundle_path, tmp_path))
    assert released == []
    device.pool.evict("m1")
    assert released == [("m1", ["m2", "m0"])]
    device.close()
