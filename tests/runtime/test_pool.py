"""Modes are warmed and checked before they answer, and stay open while somebody uses them."""

import logging
import threading
from typing import Any, Callable, Iterable, Iterator, List, Tuple

import numpy as np
import pytest

from tests.runtime.fakes import PATIENCE_S, GoldenBackend, GoldenEngine, SettableBackend, no_artifact, wait_for
from tests.supernets import images
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import WARMUP_RUNS
from wenet_runtime.engines.base import Artifact
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError, NotResident
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.memory import MB
from wenet_runtime.mode_costs import costs_of, resident_mb
from wenet_runtime.pool import Pool
from wenet_runtime.residency import Residency


def test_every_mode_of_the_real_engine_is_resident_and_answers_its_golden_input(bundle: Bundle) -> None:
    supernet = Supernet.of(bundle)
    told: List[Tuple[str, int, int]] = []
    backend = OrtBackend()
    pool = Pool(
        bundle,
        backend,
        lambda mode: backend.build(lower(supernet, mode.groups, bundle.statistics(mode)), mode.id),
        lambda what, done, total: told.append((what, done, total)),
    )
    assert pool.resident == ["m2", "m1", "m0"]
    assert told == [("loading m2", 0, 3), ("loading m1", 1, 3), ("loading m0", 2, 3)]
    with pool.use("m1") as engine:
        assert engine.infer({"input": images(3)})["logits"].shape == (3, 10)
    pool.close()
    assert pool.resident == []


def test_every_mode_is_warmed(bundle: Bundle) -> None:
    backend = SettableBackend(bundle)
    Pool(bundle, backend, no_artifact).close()
    assert [mode_id for mode_id, _ in backend.runs] == [id_ for id_ in ("m2", "m1", "m0") for _ in range(WARMUP_RUNS)]


def test_a_mode_that_is_not_resident_is_refused_with_those_that_are(bundle: Bundle) -> None:
    pool = Pool(bundle, SettableBackend(bundle), no_artifact)
    with pytest.raises(NotResident, match="'m9' is not resident: resident are m2, m1, m0"), pool.use("m9"):
        pass
    pool.close()


def test_closing_closes_every_engine_and_the_backend(bundle: Bundle) -> None:
    backend = SettableBackend(bundle)
    Pool(bundle, backend, no_artifact).close()
    assert sorted(backend.closed) == ["backend", "m0", "m1", "m2"]


def test_a_wrong_answer_to_the_golden_input_is_refused_and_everything_closed(bundle: Bundle) -> None:
    backend = GoldenBackend(bundle, lambda golden: -golden)
    with pytest.raises(EngineError, match="mode 'm1' deviates"):
        Pool(bundle, backend, no_artifact)
    assert sorted(backend.closed) == ["backend", "m1", "m2"]  # m0 was never loaded


def test_a_mode_that_does_not_load_closes_those_that_did(bundle: Bundle) -> None:
    class Failing(GoldenBackend):
        def load(self, mode: Mode, artifact: Callable[[], Artifact], **how: Any) -> GoldenEngine:
            if mode.id == "m1":
                raise EngineError("out of memory")
            return super().load(mode, artifact)

    backend = Failing(bundle, lambda golden: golden)
    with pytest.raises(EngineError, match="out of memory"):
        Pool(bundle, backend, no_artifact)
    assert sorted(backend.closed) == ["backend", "m2"]


def test_sound_modes_are_loaded_and_one_that_answers_wrongly_is_taken_out_and_told(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    told: List[Tuple[str, int, int]] = []
    backend = GoldenBackend(bundle, lambda golden: -golden)
    pool = Pool(bundle, backend, no_artifact, lambda *one: told.append(one), load=False)
    with caplog.at_level(logging.WARNING):
        assert pool.load_sound(["m2", "m1", "m0"]) == ["m2", "m0"]
    assert told == [("loading m2", 0, 3), ("loading m1", 1, 3), ("loading m0", 2, 3)]
    assert pool.residency.resident == {"m2", "m0"}
    assert pool.residency.out["m1"].startswith("mode 'm1' deviates from its golden output")
    assert "mode 'm1' is not served: mode 'm1' deviates" in caplog.text
    pool.close()


@pytest.fixture
def empty(bundle: Bundle, backend: SettableBackend) -> Iterator[Pool]:
    """A pool that has loaded nothing yet."""
    pool = Pool(bundle, backend, no_artifact, load=False)
    yield pool
    backend.release()
    pool.close()


def test_nothing_is_loaded_unless_asked_for(empty: Pool, backend: SettableBackend) -> None:
    assert (empty.resident, empty.residency) == ([], Residency())
    assert empty.modes == ["m2", "m1", "m0"]
    empty.load("m1")
    assert (empty.resident, empty.residency.resident) == (["m1"], {"m1"})
    empty.evict("m1")
    assert (empty.resident, empty.residency.resident) == ([], set())
    assert backend.closed == ["m1"]


def test_a_resident_mode_is_not_loaded_again(empty: Pool, backend: SettableBackend) -> None:
    empty.load("m1")
    backend.runs.clear()
    empty.load("m1")
    assert backend.runs == []


def test_a_mode_is_not_resident_before_it_is_warm(empty: Pool, backend: SettableBackend) -> None:
    backend.hold()
    loading = threading.Thread(target=empty.load, args=("m1",))
    loading.start()
    backend.wait_until_running()
    assert empty.residency.resident == set()
    backend.release()
    loading.join(PATIENCE_S)
    assert empty.residency.resident == {"m1"}


def test_a_mode_whose_answer_is_wrong_is_closed_and_never_resident(bundle: Bundle) -> None:
    backend = GoldenBackend(bundle, lambda golden: -golden)
    pool = Pool(bundle, backend, no_artifact, load=False)
    pool.load("m0")
    with pytest.raises(EngineError, match="mode 'm1' deviates"):
        pool.load("m1")
    assert (pool.resident, backend.closed) == (["m0"], ["m1"])
    pool.close()


def test_modes_are_listed_with_the_least_recently_used_first(empty: Pool) -> None:
    empty.load_all(["m0", "m1", "m2"])
    for mode_id in ("m1", "m0"):
        with empty.use(mode_id):
            pass
    assert empty.resident == ["m2", "m1", "m0"]


def test_an_engine_in_use_is_closed_only_afterwards_and_answers_to_the_end(
    empty: Pool, backend: SettableBackend
) -> None:
    empty.load_all(["m0", "m1"])
    with empty.use("m1") as engine:
        evicting = threading.Thread(target=empty.evict, args=("m1",))
        evicting.start()
        wait_for(empty, lambda: empty.residency.resident == {"m0"})  # nobody new gets it
        with pytest.raises(NotResident), empty.use("m1"):
            pass
        assert backend.closed == []
        assert engine.infer({"input": images(1)})["logits"].shape == (1, 10)
    evicting.join(PATIENCE_S)
    assert backend.closed == ["m1"]


def test_a_mode_loaded_while_the_pool_closes_is_closed_too(bundle: Bundle, backend: SettableBackend) -> None:
    pool = Pool(bundle, backend, no_artifact, load=False)
    backend.hold()
    loading = threading.Thread(target=pool.load, args=("m1",))
    loading.start()
    backend.wait_until_running()
    pool.close()
    backend.release()
    loading.join(PATIENCE_S)
    assert pool.resident == []
    assert backend.closed == ["backend", "m1"]


def test_a_mode_out_of_service_says_why(empty: Pool) -> None:
    empty.load("m0")
    empty.take_out("m2", "it is too large")
    assert empty.residency == Residency(frozenset({"m0"}), {"m2": "it is too large"})


def test_a_mode_has_the_threads_that_were_set_for_it(empty: Pool, backend: SettableBackend) -> None:
    empty.threads["m1"] = 4
    empty.load_all(["m0", "m1"])
    assert backend.threads == {"m0": None, "m1": 4}


def test_every_mode_s_cost_is_known_loaded_or_not(empty: Pool, bundle: Bundle) -> None:
    empty.load("m1")
    costs = costs_of(empty)
    assert list(costs) == ["m2", "m1", "m0"]
    for mode in bundle.modes:  # a simulated mode takes what its parameters would
        assert costs[mode.id].memory_mb == pytest.approx(4 * mode.params / MB)
        assert costs[mode.id].resident == (mode.id == "m1")
    assert costs["m0"].load_ms is None
    assert costs["m1"].load_ms is not None
    assert costs["m1"].load_ms == empty.load_ms("m1")
    assert resident_mb(empty) == costs["m1"].memory_mb


def test_numbers_that_resident_modes_share_cost_nobody_anything_more(bundle: Bundle) -> None:
    shared, own = np.zeros(4 * MB, np.uint8), {mode.id: np.zeros(MB, np.uint8) for mode in bundle.modes}
    backend = GoldenBackend(bundle, lambda golden: golden)
    pool = Pool(bundle, backend, lambda mode: Artifact(b"", {"a": shared, "b": own[mode.id]}), load=False)
    assert [costs_of(pool)[mode_id].memory_mb for mode_id in ("m0", "m1")] == [5, 5]
    pool.load_all(["m0"])
    assert [costs_of(pool)[mode_id].memory_mb for mode_id in ("m0", "m1")] == [5, 1]
    pool.load_all(["m1"])
    assert [costs_of(pool)[mode_id].memory_mb for mode_id in ("m0", "m1", "m2")] == [1, 1, 1]
    assert resident_mb(pool) == 6
    pool.close()


def test_the_memory_of_an_evicted_mode_is_given_back_once_it_is_closed(
    bundle: Bundle, backend: SettableBackend
) -> None:
    told: List[Any] = []

    def release(mode_id: str, kept: Iterable[str]) -> None:
        told.append((mode_id, list(kept), list(backend.closed)))

    pool = Pool(bundle, backend, no_artifact, release=release)
    pool.evict("m1")
    pool.evict("m1")
    assert told == [("m1", ["m2", "m0"], ["m1"])]
    pool.close()
