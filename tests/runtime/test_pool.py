"""All modes resident, warmed and checked, or none."""

from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest

from tests.runtime.fakes import SettableBackend
from tests.supernets import images
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines.base import Tensors
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError, UnknownMode
from wenet_runtime.materialize import Supernet, materialize
from wenet_runtime.pool import GOLDEN_TOLERANCE, WARMUP_RUNS, Pool, golden_inputs


class GoldenEngine:
    """Answers a mode's golden outputs, bent by the backend's `bend`."""

    def __init__(self, mode: Mode, backend: "GoldenBackend") -> None:
        self._mode, self._backend = mode, backend

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        expected = self._backend.golden[f"{self._mode.id}.logits"]
        bend = self._backend.bend
        return {"logits": bend(expected) if self._mode.id == "m1" else expected}

    def close(self) -> None:
        self._backend.closed.append(self._mode.id)


class GoldenBackend:
    """A backend that is not simulated; mode m1's answers can be bent."""

    name = "golden"
    version = "1"

    def __init__(self, bundle: Bundle, bend: Callable[[Any], Any]) -> None:
        self.golden = bundle.golden()
        self.bend = bend
        self.closed: List[str] = []

    def load(self, mode: Mode, model: Callable[[], bytes]) -> GoldenEngine:
        return GoldenEngine(mode, self)

    def close(self) -> None:
        self.closed.append("backend")


def no_model(mode: Mode) -> bytes:
    raise AssertionError(f"{mode.id} was built")


def test_every_mode_of_the_real_engine_is_resident_and_answers_its_golden_input(bundle: Bundle) -> None:
    supernet = Supernet.of(bundle)
    told: List[Tuple[str, int, int]] = []
    pool = Pool(
        bundle,
        OrtBackend(),
        lambda mode: materialize(supernet, mode.groups, bundle.statistics(mode)),
        lambda what, done, total: told.append((what, done, total)),
    )
    assert pool.resident == ["m2", "m1", "m0"]
    assert told == [("loading m2", 0, 3), ("loading m1", 1, 3), ("loading m0", 2, 3)]
    assert pool.get("m1").infer({"input": images(3)})["logits"].shape == (3, 10)
    pool.close()
    assert pool.resident == []


def test_every_mode_is_warmed(bundle: Bundle) -> None:
    backend = SettableBackend(bundle)
    Pool(bundle, backend, no_model).close()
    assert [mode_id for mode_id, _ in backend.runs] == [id_ for id_ in ("m2", "m1", "m0") for _ in range(WARMUP_RUNS)]


def test_a_mode_that_is_not_resident_is_refused_with_those_that_are(bundle: Bundle) -> None:
    pool = Pool(bundle, SettableBackend(bundle), no_model)
    with pytest.raises(UnknownMode, match="'m9' is not resident: resident are m2, m1, m0"):
        pool.get("m9")
    pool.close()


def test_closing_closes_every_engine_and_the_backend(bundle: Bundle) -> None:
    backend = SettableBackend(bundle)
    Pool(bundle, backend, no_model).close()
    assert sorted(backend.closed) == ["backend", "m0", "m1", "m2"]


def test_a_deviation_within_rounding_is_taken(bundle: Bundle) -> None:
    backend = GoldenBackend(bundle, lambda golden: golden + GOLDEN_TOLERANCE / 2 * np.abs(golden).max())
    pool = Pool(bundle, backend, no_model)
    assert pool.resident == ["m2", "m1", "m0"]
    pool.close()


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda golden: golden + 2 * GOLDEN_TOLERANCE * np.abs(golden).max(), "deviates from its golden output by"),
        (lambda golden: golden * np.nan, "deviates from its golden output by nan"),
        (lambda golden: golden[:, ::-1], "deviates"),
        (lambda golden: golden[:1], r"'logits' of shape \(1, 10\), not \(2, 10\)"),
    ],
)
def test_a_wrong_answer_to_the_golden_input_is_refused_and_everything_closed(
    bundle: Bundle, bend: Callable[[Any], Any], said: str
) -> None:
    backend = GoldenBackend(bundle, bend)
    with pytest.raises(EngineError, match=f"mode 'm1'.*{said}"):
        Pool(bundle, backend, no_model)
    assert sorted(backend.closed) == ["backend", "m1", "m2"]  # m0 was never loaded


def test_a_mode_that_does_not_load_closes_those_that_did(bundle: Bundle) -> None:
    class Failing(GoldenBackend):
        def load(self, mode: Mode, model: Callable[[], bytes]) -> GoldenEngine:
            if mode.id == "m1":
                raise EngineError("out of memory")
            return super().load(mode, model)

    backend = Failing(bundle, lambda golden: golden)
    with pytest.raises(EngineError, match="out of memory"):
        Pool(bundle, backend, no_model)
    assert sorted(backend.closed) == ["backend", "m2"]


def test_a_golden_file_without_a_mode_s_outputs_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = {name: value for name, value in bundle.golden().items() if name != "m1.logits"}
    backend = GoldenBackend(bundle, lambda found: np.zeros((2, 10), np.float32))
    backend.golden = bundle.golden()
    monkeypatch.setattr(bundle, "golden", lambda: golden)
    with pytest.raises(EngineError, match=r"lacks 'm1.logits': export it again"):
        Pool(bundle, backend, no_model)


def test_a_golden_file_without_inputs_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"lacks 'input.input'"):
        golden_inputs(bundle, {"m0.logits": np.zeros(3)})


def test_golden_inputs_can_be_cut_to_rows(bundle: Bundle) -> None:
    assert golden_inputs(bundle)["input"].shape == (2, 1, 8, 8)
    assert golden_inputs(bundle, rows=1)["input"].shape == (1, 1, 8, 8)
