"""Within a limit of memory: the fastest always there, others as they are wanted, and never more than fits."""

import contextlib
import logging
import threading
from typing import Any, Iterator, List, Sequence

import numpy as np
import pytest

from tests.runtime.fakes import KB, PATIENCE_S, LoadingBackend, no_artifact, ones, wait_for
from tests.supernets import write_test_bundle
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import EngineError, SettingsError
from wenet_runtime.loader import Loader, in_turns, measurable
from wenet_runtime.mode_costs import resident_mb
from wenet_runtime.pool import Pool


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose modes m0 to m3 take 20, 40, 60 and 80 kB when simulated."""
    path = tmp_path_factory.mktemp("four") / "bundle"
    write_test_bundle(path, levels=(16, 8, 4, 1))
    return Bundle(path)


@pytest.fixture
def backend(four: Bundle) -> Iterator[LoadingBackend]:
    one = LoadingBackend(four)
    yield one
    one.release()
    one.release_loads()


@pytest.fixture
def pool(four: Bundle, backend: LoadingBackend) -> Pool:
    return Pool(four, backend, no_artifact, load=False)


@contextlib.contextmanager
def loading(pool: Pool, kilobytes: float, order: Sequence[str] = (), rest_s: float = 0.0) -> Iterator[Loader]:
    """A loader that keeps m0; by default it loads nothing that is not asked for."""
    one = Loader(pool, kilobytes * KB, "m0", order, rest_s=rest_s)
    try:
        yield one
    finally:
        one.close()
        pool.close()


def bring(loader: Loader, pool: Pool, mode_id: str) -> None:
    loader.want(mode_id)
    wait_for(pool, lambda: mode_id in pool.residency.resident)


def test_the_fastest_is_there_at_once_and_others_come_in_their_order(pool: Pool, backend: LoadingBackend) -> None:
    backend.hold_load("m3")
    with loading(pool, 200, ["m3", "m1", "m0", "m2"]):
        backend.wait_until_loading("m3")
        assert pool.residency.resident == {"m0"}  # which answers while m3 is being loaded
        backend.release_loads()
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1", "m2", "m3"})
    assert backend.loads == ["m0", "m3", "m1", "m2"]


def test_nothing_is_evicted_for_what_nobody_wants(pool: Pool, backend: LoadingBackend) -> None:
    with loading(pool, 140, ["m3", "m2", "m1"]):  # m2 would not fit beside m3, m1 does
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m3", "m1"})
    assert backend.loads == ["m0", "m3", "m1"]
    assert backend.closed[:1] != ["m3"]


@pytest.mark.parametrize(("used", "evicted"), [(["m1", "m2"], "m1"), (["m2", "m1"], "m2")])
def test_a_wanted_mode_comes_in_place_of_the_least_recently_used(
    pool: Pool, backend: LoadingBackend, used: List[str], evicted: str
) -> None:
    with loading(pool, 160) as loader:
        bring(loader, pool, "m1")
        bring(loader, pool, "m2")
        for one in used:
            with pool.use(one):
                pass
        bring(loader, pool, "m3")
        assert pool.residency.resident == {"m0", "m1", "m2", "m3"} - {evicted}
        assert backend.closed == [evicted]


def test_the_fastest_stays_however_long_it_was_not_used(pool: Pool, backend: LoadingBackend) -> None:
    with loading(pool, 100) as loader:
        for one in ("m1", "m2", "m3", "m1"):
            bring(loader, pool, one)
            with pool.use(one):
                pass
            assert "m0" in pool.residency.resident
    assert backend.loads.count("m0") == 1


def test_a_mode_in_use_answers_to_its_end_before_another_takes_its_place(pool: Pool, backend: LoadingBackend) -> None:
    with loading(pool, 100) as loader:
        bring(loader, pool, "m1")
        with pool.use("m1") as engine:
            loader.want("m3")
            wait_for(pool, lambda: "m1" not in pool.residency.resident)
            assert "m1" not in backend.closed
            assert engine.infer({"input": ones()})["logits"].shape == (1, 10)
            assert "m3" not in backend.loads  # both together would be more than the limit
        wait_for(pool, lambda: "m3" in pool.residency.resident)
        assert backend.closed == ["m1"]


def test_at_no_time_is_there_more_than_fits(pool: Pool, backend: LoadingBackend, four: Bundle) -> None:
    limit_kb = 140
    sizes = {mode.id: 4 * mode.params for mode in four.modes}
    seen: List[int] = []
    backend.on_load = lambda mode_id: seen.append(sum(sizes[one] for one in [*pool.resident, mode_id]))
    choose = np.random.default_rng(0)
    with loading(pool, limit_kb, ["m2"]) as loader:
        for number in choose.integers(0, 4, 60):
            bring(loader, pool, f"m{number}")
            with contextlib.suppress(Exception), pool.use(f"m{choose.integers(0, 4)}"):
                pass
    assert len(seen) > 10
    assert max(seen) <= limit_kb * 1000


def test_between_evictions_there_is_a_rest_and_room_is_used_meanwhile(pool: Pool) -> None:
    with loading(pool, 120, rest_s=1e6) as loader:
        bring(loader, pool, "m2")
        bring(loader, pool, "m3")  # the first eviction
        with loader._changed:
            loader._wanted = ["m2"]
            assert loader._next() is None  # it would be the second
            loader._rested_s = 0.0
            assert loader._next() == ("m2", ["m3"])
            loader._wanted = []
        pool.evict("m3")
        bring(loader, pool, "m1")  # evicts nobody
        assert pool.residency.resident == {"m0", "m1"}


def test_the_latest_wish_comes_first(pool: Pool, backend: LoadingBackend) -> None:
    backend.hold_load("m1")
    with loading(pool, 200) as loader:
        loader.want("m1")
        backend.wait_until_loading("m1")
        for one in ("m2", "m3", "m2", "m2"):
            loader.want(one)
        backend.release_loads()
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1", "m2", "m3"})
    assert backend.loads == ["m0", "m1", "m2", "m3"]


@pytest.mark.parametrize("error", [EngineError("no room for it"), MemoryError("none left"), RuntimeError("odd")])
def test_a_mode_that_cannot_be_loaded_is_out_of_service_alone(
    pool: Pool,
    backend: LoadingBackend,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wenet_runtime.loader.FIRST_REST_S", PATIENCE_S)
    backend.failing["m2"] = error
    with loading(pool, 200, ["m2", "m1"]) as loader:
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1"})
        assert pool.residency.out == {"m2": "it cannot be loaded; it is tried again"}
        loader.want("m2")
        bring(loader, pool, "m3")
    assert backend.loads == ["m0", "m2", "m1", "m3"]
    assert f"mode 'm2' cannot be loaded, and is tried again in {PATIENCE_S:g} s: {error}" in caplog.text


def test_a_mode_that_could_not_be_loaded_is_loaded_once_it_can_be(
    pool: Pool, backend: LoadingBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wenet_runtime.loader.FIRST_REST_S", 0.02)
    failures = [OSError(24, "Too many open files")] * 3

    def fail(mode_id: str) -> None:
        if mode_id == "m2" and failures:
            raise failures.pop()

    backend.on_load = fail
    with loading(pool, 200, ["m2"]) as loader, caplog.at_level(logging.WARNING):
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m2"})
        assert pool.residency.out == {}
        wait_for(pool, lambda: loader._rests == {})
    assert [f"again in {rest_s} s" in caplog.text for rest_s in ("0.02", "0.04", "0.08")] == [True] * 3


def test_room_that_a_failed_load_made_is_filled_again(pool: Pool, backend: LoadingBackend) -> None:
    backend.failing["m3"] = EngineError("no")
    with loading(pool, 120, ["m2", "m1"]) as loader:
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1", "m2"})
        loader.want("m3")
        wait_for(pool, lambda: "m3" in pool.residency.out)
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1", "m2"})


def test_a_fastest_mode_that_does_not_load_fails_the_start(pool: Pool, backend: LoadingBackend) -> None:
    backend.failing["m0"] = EngineError("no room for it")
    with pytest.raises(EngineError, match="no room for it"):
        Loader(pool, 200 * KB, "m0", ["m1"])
    pool.close()
    assert backend.loads == ["m0"]


def test_a_limit_below_the_fastest_mode_says_what_it_takes(pool: Pool) -> None:
    with pytest.raises(SettingsError, match=r"does not hold the fastest mode, m1: give at least 0\.0381"):
        Loader(pool, 39 * KB, "m1", [])
    pool.close()


def test_modes_that_never_fit_beside_the_fastest_are_not_served(
    pool: Pool, backend: LoadingBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), loading(pool, 61, ["m3", "m2", "m1"]) as loader:
        assert set(pool.residency.out) == {"m2", "m3"}
        assert pool.residency.out["m2"] == "beside m0 it needs --memory-mb 0.0763"
        loader.want("m3")
        wait_for(pool, lambda: pool.residency.resident == {"m0", "m1"})
    assert backend.loads == ["m0", "m1"]
    assert "mode 'm2' is not served: beside m0 it needs" in caplog.text


def test_a_mode_that_is_out_already_keeps_its_reason_and_is_not_measured(pool: Pool) -> None:
    pool.take_out("m3", "it was refused")
    assert measurable(pool, 200 * KB) == ["m2", "m1", "m0"]
    with loading(pool, 61):
        assert pool.residency.out["m3"] == "it was refused"


def test_modes_that_do_not_load_are_left_out_of_the_turns(pool: Pool, backend: LoadingBackend) -> None:
    backend.failing = {"m3": EngineError("too large"), "m1": EngineError("broken")}
    assert [one for engines in in_turns(pool, 81 * KB) for one in engines] == ["m2", "m0"]
    assert pool.residency.out == {"m3": "too large", "m1": "broken"}
    pool.close()


def test_a_fastest_mode_that_does_not_load_takes_no_other_out(pool: Pool, backend: LoadingBackend) -> None:
    backend.failing = {"m0": EngineError("broken")}
    with pytest.raises(EngineError, match="broken"):
        Loader(pool, 61 * KB, "m0", [])
    assert pool.residency.out == {}
    pool.close()


def test_closing_waits_for_what_is_being_loaded_and_loads_nothing_more(pool: Pool, backend: LoadingBackend) -> None:
    backend.hold_load("m3")
    loader = Loader(pool, 200 * KB, "m0", ["m3", "m2", "m1"])
    backend.wait_until_loading("m3")
    closing = threading.Thread(target=loader.close)
    closing.start()
    with loader._changed:
        assert loader._changed.wait_for(lambda: loader._closing, PATIENCE_S)
    backend.release_loads()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert backend.loads == ["m0", "m3"]
    pool.close()
    assert sorted(backend.closed) == ["backend", "m0", "m3"]


def test_every_mode_that_fits_has_its_turn_and_goes(pool: Pool) -> None:
    turns: List[Any] = []
    for engines in in_turns(pool, 100 * KB):
        turns.append(set(engines))
        assert resident_mb(pool) <= 100 * KB
    assert turns == [{"m3", "m0"}, {"m2", "m1"}]
    assert pool.resident == []
    pool.close()


def test_a_mode_larger_than_the_limit_has_no_turn(pool: Pool) -> None:
    assert measurable(pool, 61 * KB) == ["m2", "m1", "m0"]
    assert [set(engines) for engines in in_turns(pool, 61 * KB)] == [{"m2"}, {"m1", "m0"}]
    pool.close()


def test_without_a_limit_all_have_their_turn_at_once_and_stay(four: Bundle, backend: LoadingBackend) -> None:
    pool = Pool(four, backend, no_artifact)
    assert measurable(pool, None) == ["m3", "m2", "m1", "m0"]
    assert [set(engines) for engines in in_turns(pool, None)] == [{"m0", "m1", "m2", "m3"}]
    assert len(pool.resident) == 4
    pool.close()
