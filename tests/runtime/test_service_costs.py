"""What modes cost here, and which are offered: measured side by side, kept, and honoured by later starts."""

from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping

import numpy as np
import pytest

from tests.runtime.fakes import Client, check_problem
from wenet_runtime.bundle import Mode
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.sim import SimBackend
from wenet_runtime.errors import EngineError, SettingsError, UnknownMode
from wenet_runtime.service.costs import PRIMED, Costs
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.service.opening import open_cache, open_device
from wenet_runtime.settings import Settings

TWO_ARE_WORTH_IT = {"m2": 9.0, "m1": 9.5, "m0": 2.0}  # the middle one is slower than the most accurate


def settings(bundle_path: Path, tmp_path: Path, **more: Any) -> Settings:
    return Settings(
        **{"bundle": bundle_path, "cache_dir": tmp_path / "cache", "profile_rounds": 10, "engine": "sim", **more}
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> List[List[str]]:
    """Every measurement takes the times of `TWO_ARE_WORTH_IT`; says which modes were measured together."""
    told: List[List[str]] = []

    def sample(engines: Mapping[str, Any], inputs: Any, *, rounds: int, **more: Any) -> Dict[str, Any]:
        told.append(list(engines))
        rows = len(next(iter(inputs.values())))
        return {name: np.full(rounds, TWO_ARE_WORTH_IT[name] * rows) for name in engines}

    monkeypatch.setattr("wenet_runtime.service.costs.sample", sample)
    monkeypatch.setattr("wenet_runtime.profiler.sample", sample)
    return told


def profiled(given: Settings, **how: Any) -> Any:
    device = open_device(given, profile_again=True, **how)
    device.close()
    return device


def test_all_modes_are_offered_until_some_are_chosen(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path)
    assert list(profiled(given).profiles) == ["m2", "m1", "m0"]
    assert list(profiled(given, select=2).profiles) == ["m2", "m0"]


def test_a_choice_names_what_it_left_and_why(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    device = profiled(settings(bundle_path, tmp_path), select=99)
    assert device.measured.selected.modes == ("m2", "m0")
    assert [one.id for one in device.measured.selected.left] == ["m1"]
    assert "not measurably faster than m2" in device.measured.selected.left[0].why
    assert list(device.measured.modes) == ["m2", "m1", "m0"]  # what was left was measured all the same


def test_a_later_start_loads_and_offers_only_what_was_chosen(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path)
    profiled(given, select=2)
    measured.clear()
    daemon = open_daemon(given)
    assert measured == []
    assert daemon.runtime.pool.residency.resident == {"m2", "m0"}
    assert list(daemon.runtime.controller.profiles) == ["m2", "m0"]
    client = Client(daemon.app)
    assert client.infer().headers["wenet-mode"] == "m2"
    rows = {mode["id"]: mode["resident"] for mode in client.get("/modes").json()["modes"]}
    assert rows == {"m2": True, "m1": False, "m0": True}
    daemon.runtime.close()


def test_a_request_that_pins_what_was_left_out_is_told_why_and_what_to_do(
    bundle_path: Path, tmp_path: Path, measured: Any
) -> None:
    given = settings(bundle_path, tmp_path)
    profiled(given, select=2)
    daemon = open_daemon(given)
    members = check_problem(Client(daemon.app).infer(headers={"WeNet-Mode": "m1"}), "unknown-mode", 404)
    assert "mode 'm1' is not served: `wenet-runtime profile --select 2` left it out" in members["detail"]
    assert "not measurably faster than m2" in members["detail"]
    assert members["detail"].endswith("`wenet-runtime profile --select 0` offers all modes again")
    daemon.runtime.close()
    with pytest.raises(UnknownMode, match=r"mode 'm1' is not served: .*--select 0"):
        open_daemon(settings(bundle_path, tmp_path, mode="m1"))


def test_all_are_offered_again_when_asked(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path)
    profiled(given, select=2)
    assert profiled(given, select=0).measured.selected is None
    daemon = open_daemon(given)
    assert Client(daemon.app).infer(headers={"WeNet-Mode": "m1"}).headers["wenet-mode"] == "m1"
    daemon.runtime.close()


def test_measuring_again_keeps_the_choice_and_measures_all(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path)
    chosen = profiled(given, select=2).measured.selected
    measured.clear()
    again = profiled(given)
    assert measured == [["m2", "m1", "m0"]]
    assert again.measured.selected == chosen
    assert list(again.profiles) == ["m2", "m0"]


def test_a_start_with_another_meter_measures_what_is_offered_and_keeps_the_choice(
    bundle_path: Path, tmp_path: Path, measured: Any
) -> None:
    chosen = profiled(settings(bundle_path, tmp_path), select=2).measured.selected
    measured.clear()
    with_meter = open_device(settings(bundle_path, tmp_path, meter="sim"))
    with_meter.close()
    assert measured == [["m2", "m0"]]
    assert with_meter.measured.selected == chosen
    assert all(one.energy_mj is not None for one in with_meter.profiles.values())


def test_the_daemon_keeps_to_its_memory_with_what_was_chosen(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    profiled(settings(bundle_path, tmp_path), select=2)
    device = open_device(settings(bundle_path, tmp_path, memory_mb=0.05))  # does not hold m2
    device.close()
    assert list(device.profiles) == ["m0"]


def test_the_fastest_mode_is_served_also_where_the_limit_holds_it_only_once(
    bundle_path: Path, tmp_path: Path, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TWO_ARE_WORTH_IT, "m1", 1.0)
    daemon = open_daemon(settings(bundle_path, tmp_path, memory_mb=0.05))
    assert Client(daemon.app).infer().headers["wenet-mode"] == "m1"
    daemon.runtime.close()


def test_modes_that_memory_keeps_apart_are_not_compared(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    with pytest.raises(SettingsError, match=r"--select compares all modes side by side, which takes .* leave it out"):
        profiled(settings(bundle_path, tmp_path, memory_mb=0.08), select=2)
    assert measured == []


def test_whole_batches_are_measured_by_their_rows(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path)
    device = profiled(given, batch_sizes=[1, 4, 8])
    assert device.profiles["m0"].batch_ms == {1: 2.0, 4: 8.0, 8: 16.0}
    assert open_cache(given).read_profile() == device.measured
    assert profiled(given).profiles["m0"].batch_ms is None


def test_modes_are_profiled_as_a_layer_table_s_rows_are(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    primed = []

    def sample(engines: Mapping[str, Any], inputs: Any, *, rounds: int, **how: Any) -> Dict[str, Any]:
        primed.append(how.get("primed"))
        return {name: np.full(rounds, 1.0) for name in engines}

    monkeypatch.setattr("wenet_runtime.service.costs.sample", sample)
    profiled(settings(bundle_path, tmp_path))
    assert primed == [PRIMED]


@pytest.mark.parametrize("started", ["daemon", "profile"])
def test_a_choice_made_while_something_else_measures_is_not_undone(
    started: str, bundle_path: Path, tmp_path: Path, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(bundle_path, tmp_path)
    original, chosen = Costs._measured, []

    def overtaken(self: Costs, *parts: Any) -> Any:
        found = original(self, *parts)
        if not chosen:
            chosen.append("now")
            profiled(given, select=2)
        return found

    monkeypatch.setattr(Costs, "_measured", overtaken)
    device = open_device(given, profile_again=started == "profile")
    device.close()
    found = open_cache(given).read_profile()
    assert found is not None
    assert found.selected is not None
    assert found.selected.modes == ("m2", "m0")
    assert list(device.profiles) == (["m2", "m1", "m0"] if started == "daemon" else ["m2", "m0"])


def test_what_is_chosen_while_a_start_measures_fewer_modes_is_known_afterwards(
    bundle_path: Path, tmp_path: Path, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(bundle_path, tmp_path)
    profiled(settings(bundle_path, tmp_path, meter="sim"), select=2)
    original, chosen = Costs._measured, []

    def overtaken(self: Costs, *parts: Any) -> Any:
        found = original(self, *parts)
        if not chosen:
            chosen.append("now")
            profiled(given, select=0)
        return found

    monkeypatch.setattr(Costs, "_measured", overtaken)
    open_device(given).close()
    measured.clear()
    later = open_device(given)
    later.close()
    assert (list(later.profiles), measured) == (["m2", "m1", "m0"], [])


@pytest.mark.parametrize("engine", ["ort", "sim"])
def test_batches_larger_than_the_golden_inputs_are_run(bundle_path: Path, tmp_path: Path, engine: str) -> None:
    device = profiled(settings(bundle_path, tmp_path, engine=engine), batch_sizes=[3, 8])
    for one in device.profiles.values():
        assert one.batch_ms is not None
        assert list(one.batch_ms) == [3, 8]
        assert all(took_ms > 0 for took_ms in one.batch_ms.values())


def test_a_batch_larger_than_the_bundle_takes_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--batch-sizes asks for 9 rows, but this bundle takes at most 8 at once"):
        profiled(settings(bundle_path, tmp_path), batch_sizes=[1, 9])


def test_a_profile_says_when_and_in_what_state_it_was_measured(bundle_path: Path, tmp_path: Path) -> None:
    measured = profiled(settings(bundle_path, tmp_path)).measured
    assert measured.measured_at.endswith("+00:00")
    assert set(measured.conditions) == {"start", "end"}
    assert set(measured.conditions["start"]) == {"clocks_mhz", "temperatures_c"}


def test_a_profile_that_is_interrupted_leaves_the_one_before(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(bundle_path, tmp_path)
    before = profiled(given, select=2).measured

    def interrupted(*parts: Any, **how: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("wenet_runtime.service.costs.batch_medians", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profiled(given, batch_sizes=[4], select=0)
    cache = open_cache(given)
    assert cache.read_profile() == before
    assert sorted(path.name for path in cache.path.iterdir()) == ["lock", "profile.json"]


class BrokenBackend(SimBackend):
    """A simulated engine of which some modes cannot be loaded; notes what was."""

    broken: ClassVar[Dict[str, str]] = {}
    loads: ClassVar[List[str]] = []

    def load(self, mode: Mode, artifact: Any, *, threads: Any = None) -> Any:
        self.loads.append(mode.id)
        if mode.id in self.broken:
            raise EngineError(self.broken[mode.id])
        return super().load(mode, artifact, threads=threads)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Dict[str, str]:
    """Modes that cannot be loaded, and why; the test fills it."""
    found: Dict[str, str] = {}
    monkeypatch.setattr(BrokenBackend, "broken", found)
    monkeypatch.setattr(BrokenBackend, "loads", [])
    monkeypatch.setitem(ENGINES, "sim", f"{__name__}:BrokenBackend")  # type: ignore[index]
    return found


@pytest.mark.parametrize("more", [{}, {"memory_mb": 0.2}, {"threads": 0}])
def test_a_mode_that_does_not_load_is_left_out_and_the_others_are_served(
    bundle_path: Path, tmp_path: Path, broken: Dict[str, str], caplog: pytest.LogCaptureFixture, more: Dict[str, Any]
) -> None:
    broken["m0"] = "mode 'm0' deviates"
    given = settings(bundle_path, tmp_path, **more)
    daemon = open_daemon(given)
    client = Client(daemon.app)
    assert client.infer().headers["wenet-mode"] in ("m2", "m1")
    members = check_problem(client.infer(headers={"WeNet-Mode": "m0"}), "unknown-mode", 404)
    assert "mode 'm0' is not served: mode 'm0' deviates" in members["detail"]
    rows = {row["id"]: row["out_of_service"] for row in client.get("/modes").json()["modes"]}
    assert rows == {"m2": None, "m1": None, "m0": "mode 'm0' deviates"}
    daemon.runtime.close()
    assert "mode 'm0' is not served: mode 'm0' deviates" in caplog.text


def test_what_does_not_load_is_not_measured_at_every_start(
    bundle_path: Path, tmp_path: Path, measured: Any, broken: Dict[str, str]
) -> None:
    broken["m1"] = "broken"
    given = settings(bundle_path, tmp_path)
    for _ in range(2):
        device = open_device(given)
        device.close()
        assert list(device.profiles) == ["m2", "m0"]
    assert measured == [["m2", "m0"]]
    broken.clear()  # and once it loads again, it is
    with pytest.warns(UserWarning, match="measuring again"):
        device = open_device(given)
    device.close()
    assert (list(device.profiles), measured[1:]) == (["m2", "m1", "m0"], [["m2", "m1", "m0"]])


@pytest.mark.parametrize("memory_mb", [None, 0.2])
def test_a_mode_that_breaks_after_it_was_measured_is_left_out_too(
    bundle_path: Path, tmp_path: Path, measured: Any, broken: Dict[str, str], memory_mb: Any
) -> None:
    given = settings(bundle_path, tmp_path, memory_mb=memory_mb)
    profiled(given)
    broken["m0"] = "broken"  # the fastest
    daemon = open_daemon(given)
    assert daemon.runtime.pool.residency.out == {"m0": "broken"}
    assert Client(daemon.app).infer().headers["wenet-mode"] in ("m2", "m1")
    daemon.close(5)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("memory_mb", [None, 0.2])
def test_without_any_mode_that_loads_there_is_no_daemon(
    bundle_path: Path, tmp_path: Path, measured: Any, broken: Dict[str, str], memory_mb: Any, known: bool
) -> None:
    given = settings(bundle_path, tmp_path, memory_mb=memory_mb)
    if known:
        profiled(given)
    before = open_cache(given).read_profile()
    broken.update(dict.fromkeys(("m0", "m1", "m2"), "broken"))
    with pytest.raises(EngineError, match="broken"):
        open_daemon(given)
    with pytest.raises(EngineError, match="broken"):
        profiled(given)
    assert open_cache(given).read_profile() == before


def refuse(given: Settings, *mode_ids: str) -> None:
    cache = open_cache(given)
    cache.build()
    cache.refuse(dict.fromkeys(mode_ids, "it deviates from ONNX Runtime by 0.4"))


@pytest.mark.parametrize("known", [True, False])
def test_what_was_refused_is_not_offered_loaded_or_measured(
    bundle_path: Path, tmp_path: Path, measured: Any, broken: Dict[str, str], known: bool
) -> None:
    given = settings(bundle_path, tmp_path, tune=False)
    if known:
        open_cache(given).build()
        profiled(given)
        measured.clear()
    refuse(given, "m2")
    BrokenBackend.loads.clear()
    daemon = open_daemon(given)
    assert set(BrokenBackend.loads) == {"m1", "m0"}
    assert measured == ([] if known else [["m1", "m0"]])
    client = Client(daemon.app)
    assert client.infer().headers["wenet-mode"] in ("m1", "m0")
    assert client.infer(headers={"WeNet-Mode": "m2"}).status_code == 404
    row = client.get("/modes").json()["modes"][0]
    assert (row["id"], row["resident"]) == ("m2", False)
    assert row["out_of_service"] == ("`wenet-runtime build --verify` refused it: it deviates from ONNX Runtime by 0.4")
    daemon.runtime.close()


def test_what_was_refused_is_no_candidate_of_a_choice_and_keeps_its_reason(
    bundle_path: Path, tmp_path: Path, measured: Any
) -> None:
    given = settings(bundle_path, tmp_path, tune=False)
    refuse(given, "m2")
    device = profiled(given, select=2)
    assert list(device.profiles) == ["m1", "m0"]
    assert device.pool.residency.out["m2"].startswith("`wenet-runtime build --verify` refused it")
    assert list(open_device(given).profiles) == ["m1", "m0"]


def test_modes_that_are_refused_take_no_memory_side_by_side(bundle_path: Path, tmp_path: Path, measured: Any) -> None:
    given = settings(bundle_path, tmp_path, tune=False, memory_mb=0.08)
    refuse(given, "m2")
    assert list(profiled(given, select=2).profiles) == ["m1", "m0"]


def test_when_all_are_refused_there_is_no_daemon(bundle_path: Path, tmp_path: Path) -> None:
    given = settings(bundle_path, tmp_path, tune=False)
    refuse(given, "m0", "m1", "m2")
    with pytest.raises(EngineError, match=r"no mode can serve on this device; of 'm\d': `wenet-runtime build"):
        open_daemon(given)


def test_a_choice_of_which_nothing_is_left_is_an_error(
    bundle_path: Path, tmp_path: Path, measured: Any, broken: Dict[str, str]
) -> None:
    given = settings(bundle_path, tmp_path, tune=False)
    profiled(given, select=2)
    broken.update(m2="broken", m0="broken")
    with pytest.raises(EngineError, match="no mode can serve on this device; of 'm2': broken"):
        open_daemon(given)
    with pytest.raises(EngineError, match="no mode can serve on this device; of 'm2': broken"):
        profiled(given)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_threads_are_not_tried_where_the_engine_computes_on_a_gpu(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on_gpu: bool
) -> None:
    if on_gpu:
        monkeypatch.setattr("wenet_runtime.service.costs.ON_GPU", {"sim"})
    monkeypatch.setattr("wenet_runtime.service.costs.tuned", lambda *args, **how: 3)
    found = profiled(settings(bundle_path, tmp_path, threads=0))
    assert {one.threads for one in found.profiles.values()} == ({None} if on_gpu else {3})
    assert ("--threads 0 is left out" in caplog.text) == on_gpu
