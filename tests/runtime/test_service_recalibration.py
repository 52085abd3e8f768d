"""The modes that are served are measured again, between requests."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import pytest

from tests.runtime.fakes import PATIENCE_S, SLOW_MS, SettableBackend, make_service, ones, profile
from tests.supernets import write_test_bundle
from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import BudgetError, EngineError
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.service.inference import Service
from wenet_runtime.service.recalibration import recalibrate, renewed
from wenet_runtime.settings import Settings


def measurable(bundle: Bundle, backend: SettableBackend) -> Service:
    service = make_service(bundle, backend, medians_ms=SLOW_MS)
    loop: Any = service.runtime._loop
    loop._probing._inputs = {"input": ones()}
    return service


def test_every_resident_mode_is_run_by_turns_and_predicted_from_what_it_takes(
    bundle: Bundle, backend: SettableBackend
) -> None:
    service = measurable(bundle, backend)
    assert service.runtime.forecast().medians_ms == [10_000.0, 1000.0, 100.0]
    found = asyncio.run(recalibrate(service.active, rounds=5))
    assert [mode_id for mode_id, _ in backend.runs] == ["m2", "m1", "m0"] * 6
    assert {one.runs for one in found.values()} == {5}
    assert service.runtime.controller.profiles == found
    assert max(service.runtime.forecast().medians_ms) < 100.0  # this engine takes no time
    service.runtime.close()


def test_a_mode_that_is_out_of_service_is_left_alone(bundle: Bundle, backend: SettableBackend) -> None:
    service = measurable(bundle, backend)
    service.runtime.pool.take_out("m1", "broken")
    assert set(asyncio.run(recalibrate(service.active, rounds=1))) == {"m0", "m2"}
    assert service.runtime.controller.profiles["m1"].p50_ms == 1000.0
    service.runtime.close()


def test_requests_go_first(bundle: Bundle, backend: SettableBackend) -> None:
    service = measurable(bundle, backend)
    runtime = service.runtime
    backend.hold()
    first = runtime.submit({"input": ones(value=5.0)}, RequestOptions(), 0.0)
    backend.wait_until_running()
    measured = runtime.measure("m0")
    second = runtime.submit({"input": ones(value=6.0)}, RequestOptions(), 0.0)
    backend.release()
    assert measured.result(PATIENCE_S) >= 0
    assert first.result(PATIENCE_S)
    assert second.result(PATIENCE_S)
    assert backend.first_numbers == [5.0, 6.0, 1.0]
    runtime.close()


def test_what_fails_or_takes_too_long_changes_nothing(bundle: Bundle, backend: SettableBackend) -> None:
    service = measurable(bundle, backend)
    before = dict(service.runtime.controller.profiles)
    backend.error = EngineError("broken")
    with pytest.raises(EngineError, match="its engine failed"):
        asyncio.run(recalibrate(service.active, rounds=1))
    backend.hold()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(recalibrate(service.active, rounds=1, run_s=0.01))
    backend.release()
    assert service.runtime.controller.profiles == before
    service.runtime.close()


def test_whole_batches_change_as_one_row_and_energies_stay() -> None:
    before = dataclasses.replace(profile(10.0, 7.0), threads=2, batch_ms={4: 30.0})
    after = renewed(before, [20.0] * 9 + [29.0])
    assert (after.p50_ms, after.runs, after.batch_ms, after.threads) == (20.0, 10, {4: 60.0}, 2)
    assert (after.energy_mj, after.energy_source) == (7.0, "sim")
    assert after.p99_ms == pytest.approx(np.percentile([20.0] * 9 + [29.0], 99))


@pytest.mark.parametrize(("idle_w", "energy_mj"), [(None, 70.0), (0.0, 70.0), (3.0, 100.0)])
def test_the_idle_board_draws_its_watts_for_as_long_as_a_mode_takes_now(
    idle_w: Optional[float], energy_mj: float
) -> None:
    assert renewed(profile(10.0, 70.0), [20.0] * 10, idle_w).energy_mj == energy_mj


def test_an_energy_that_is_unknown_stays_so() -> None:
    assert renewed(profile(10.0, None), [20.0] * 10, 3.0).energy_mj is None


def test_an_impossible_time_is_refused(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend)
    before = dict(service.runtime.controller.profiles)
    bad: Dict[str, Any] = {"m0": profile(1.0), "m1": profile(0.0)}
    with pytest.raises(BudgetError, match="'m1' cannot take"):
        service.runtime.recalibrate(bad)
    assert service.runtime.controller.profiles == before
    service.runtime.close()


def test_the_cache_keeps_it_for_the_next_start(tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "bundle")
    given = Settings(
        bundle=tmp_path / "bundle", engine="sim", meter="none", cache_dir=tmp_path / "cache", profile_rounds=10
    )
    daemon = open_daemon(given)
    found = asyncio.run(recalibrate(daemon.service.active, rounds=12))
    daemon.close(PATIENCE_S)
    daemon = open_daemon(given)
    assert daemon.runtime.controller.profiles == found
    daemon.close(PATIENCE_S)
