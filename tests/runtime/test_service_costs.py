"""What modes cost here, and which are offered: measured side by side, kept, and honoured by later starts."""

from pathlib import Path
from typing import Any, Dict, List, Mapping

import numpy as np
import pytest

from tests.runtime.fakes import Client, check_problem
from wenet_runtime.errors import SettingsError, UnknownMode
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
