"""What was built is compared with ONNX Runtime on golden and random inputs, alone and in the largest batches."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.supernets import MAX_BATCH, write_test_bundle
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import golden_inputs
from wenet_runtime.engines.base import Artifact, Numerics
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.verification import SAMPLES, Verdict, answers, compare, sample_inputs, verify_modes

Answers = Dict[str, NDArray[Any]]
ROWS = 2 + SAMPLES  # golden ones first


class Bent:
    """ONNX Runtime, but the answers of mode m1 are bent; notes the batches it ran and what is open."""

    name, version = "bent", "1"

    def __init__(self, bend: Callable[[Answers], Answers] = lambda answers: answers) -> None:
        self._ort = OrtBackend()
        self._bend = bend
        self.batches: List[int] = []
        self.opened: List[str] = []
        self.failure: Optional[EngineError] = None

    def build(self, graph: Any, name: str) -> Artifact:
        return self._ort.build(graph, name)

    def load(self, mode: Mode, artifact: Callable[[], Artifact], *, threads: Optional[int] = None) -> Any:
        if self.failure is not None and mode.id == "m1":
            raise self.failure
        assert not self.opened
        self.opened.append(mode.id)
        return BentEngine(self, mode.id, self._ort.load(mode, artifact, threads=threads))

    def close(self) -> None:
        pass


class BentEngine:
    def __init__(self, backend: Bent, mode_id: str, inner: Any) -> None:
        self._backend, self._mode_id, self._inner = backend, mode_id, inner

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> Answers:
        self._backend.batches.append(len(inputs["input"]))
        found: Answers = self._inner.infer(inputs)
        return self._backend._bend(found) if self._mode_id == "m1" else found

    def close(self) -> None:
        self._backend.opened.remove(self._mode_id)
        self._inner.close()


@pytest.fixture(scope="module")
def built(bundle: Bundle) -> Callable[[Mode], Artifact]:
    supernet = Supernet.of(bundle)
    made = {
        mode.id: OrtBackend().build(lower(supernet, mode.groups, bundle.statistics(mode)), mode.id)
        for mode in bundle.modes
    }
    return lambda mode: made[mode.id]


@pytest.fixture
def verdicts(bundle: Bundle, built: Any) -> Callable[..., Dict[str, Verdict]]:
    """Compares the modes of that bundle on a backend."""
    return lambda backend, **how: {one.mode_id: one for one in verify_modes(bundle, backend, built, **how)}


def test_what_is_built_right_deviates_by_rounding_only(verdicts: Any) -> None:
    told: List[Tuple[str, int, int]] = []
    found = verdicts(OrtBackend(), progress=lambda *one: told.append(one))
    assert list(found) == ["m2", "m1", "m0"]
    for one in found.values():
        assert (one.refusal, one.failure, one.rows, one.top1) == ("", "", ROWS, 1.0)
        assert one.deviation < 1e-4 < one.tolerance == PRECISIONS["fp32"]
    assert told == [("verifying m2", 0, 3), ("verifying m1", 1, 3), ("verifying m0", 2, 3), ("verifying", 3, 3)]


def test_every_row_is_run_alone_and_in_the_largest_batch_and_one_engine_is_open(verdicts: Any) -> None:
    backend = Bent()
    verdicts(backend)
    batches = -(-ROWS // MAX_BATCH)
    assert backend.batches == ([1] * ROWS + [MAX_BATCH] * batches) * 3
    assert backend.opened == []


def test_the_reference_is_closed_before_the_engine_is_loaded(verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    references: List[Any] = []
    load_bytes = OrtBackend.load_bytes

    def noted(self: OrtBackend, model: bytes, *, name: str) -> Any:
        references.append(load_bytes(self, model, name=name))
        return references[-1]

    class Watching(Bent):
        def load(self, *parts: Any, **how: Any) -> Any:
            with pytest.raises(EngineError, match="closed"):
                references[-1].infer({})
            return super().load(*parts, **how)

    monkeypatch.setattr(OrtBackend, "load_bytes", noted)
    verdicts(Watching())
    assert len(references) == 3


def largest_only(answers: Answers) -> Answers:
    """Wrong only where a batch is run."""
    return {"logits": answers["logits"] * (1 if len(answers["logits"]) == 1 else 1.01)}


def last_of_a_batch(answers: Answers) -> Answers:
    values = answers["logits"].copy()
    if len(values) > 1:
        values[-1] = 0
    return {"logits": values}


def with_one(value: float) -> Callable[[Answers], Answers]:
    def bend(answers: Answers) -> Answers:
        values = answers["logits"].copy()
        values[-1, 3] = value
        return {"logits": values}

    return bend


@pytest.mark.parametrize(
    ("bend", "text"),
    [
        (lambda answers: {"logits": answers["logits"] * np.float32(1.01)}, r"deviates .* by 0\.0\d+ of the largest"),
        (largest_only, r"deviates .* by 0\.0\d+ of the largest"),
        (last_of_a_batch, "deviates"),
        (with_one(np.nan), "by no number"),
        (with_one(np.inf), "by no number"),
        (lambda answers: {"logits": answers["logits"][:, :9]}, r"answers float32 \(18, 9\) as 'logits'"),
        (lambda answers: {"logits": answers["logits"].astype(np.float64)}, "answers float64"),
        (lambda answers: {"other": answers["logits"]}, "answers nothing as 'logits'"),
    ],
)
def test_a_mode_that_deviates_is_refused_and_the_others_are_not(verdicts: Any, bend: Any, text: str) -> None:
    found = verdicts(Bent(bend))
    assert [one.mode_id for one in found.values() if one.refusal] == ["m1"]
    with pytest.raises(EngineError, match=text):
        raise EngineError(found["m1"].refusal)


def test_a_mode_that_does_not_load_or_run_is_refused_with_what_the_engine_says(verdicts: Any) -> None:
    backend = Bent()
    backend.failure = EngineError("out of memory")
    found = verdicts(backend)
    assert (found["m1"].refusal, found["m1"].deviation, found["m1"].top1) == ("out of memory", None, None)

    def fail(answers: Answers) -> Answers:
        raise EngineError("an illegal address")

    backend = Bent(fail)
    assert verdicts(backend)["m1"].refusal == "an illegal address"
    assert backend.opened == []


def test_an_engine_that_answers_in_memory_of_its_own_is_compared_rightly(verdicts: Any) -> None:
    buffers: Dict[int, NDArray[Any]] = {}

    def reused(answers: Answers) -> Answers:
        kept = buffers.setdefault(len(answers["logits"]), answers["logits"].copy())
        kept[:] = answers["logits"]
        return {"logits": kept}

    assert verdicts(Bent(reused))["m1"].refusal == ""


@pytest.mark.parametrize(
    ("own", "computed", "tolerance"), [("fp32", "fp16", 1e-2), ("fp16", "fp32", 1e-2), ("fp16", "int8", 1e-1)]
)
def test_the_tolerance_is_that_of_the_coarser_of_the_mode_and_the_engine(
    own: str, computed: str, tolerance: float, bundle: Bundle, built: Any
) -> None:
    class Coarse(Bent):
        def numerics(self, mode: Mode) -> Numerics:
            return Numerics(mode.precision, computed)

    class Modes:
        def __getattr__(self, name: str) -> Any:
            return getattr(bundle, name)

        modes = tuple(replace(mode, precision=own) for mode in bundle.modes)

    found = verify_modes(Modes(), Coarse(), built)  # type: ignore[arg-type]
    assert {one.tolerance for one in found} == {tolerance}
    assert not [one for one in found if one.refusal]


def test_a_reference_that_does_not_run_is_no_verdict(bundle: Bundle, built: Any, monkeypatch: Any) -> None:
    def fail(self: Any, model: bytes, *, name: str) -> Any:
        raise EngineError(f"ONNX Runtime cannot load mode '{name}'")

    monkeypatch.setattr(OrtBackend, "load_bytes", fail)
    with pytest.raises(EngineError, match="ONNX Runtime cannot load mode 'm2'"):
        verify_modes(bundle, Bent(), built)


def test_the_largest_batch_of_one_is_run_once(tmp_path: Path, bundle: Bundle, built: Any) -> None:
    class Single:
        def __getattr__(self, name: str) -> Any:
            return getattr(bundle, name)

        manifest = replace(bundle.manifest, max_batch=1)

    backend = Bent()
    verify_modes(Single(), backend, built, samples=0)  # type: ignore[arg-type]
    assert backend.batches == [1] * 2 * 3


def test_random_inputs_follow_the_golden_ones_channel_by_channel() -> None:
    random = np.random.default_rng(1)
    golden = np.stack([random.normal(5, 0.1, (4, 8, 8)), random.normal(-3, 2, (4, 8, 8)), np.ones((4, 8, 8))], axis=1)
    drawn = sample_inputs({"x": golden.astype(np.float32)}, 500, random)["x"]
    assert (drawn.shape, drawn.dtype) == ((504, 3, 8, 8), np.float32)
    assert np.array_equal(drawn[:4], golden.astype(np.float32))
    fresh = drawn[4:]
    assert fresh.mean(axis=(0, 2, 3)) == pytest.approx(golden.mean(axis=(0, 2, 3)), abs=0.05)
    assert fresh.std(axis=(0, 2, 3)) == pytest.approx(golden.std(axis=(0, 2, 3)), rel=0.05, abs=1e-6)


def test_whole_numbers_stay_what_they_may_be() -> None:
    golden = np.array([[0, 255], [10, 250]], np.uint8)
    drawn = sample_inputs({"x": golden, "y": np.array([[3], [900]], np.int64)}, 300, np.random.default_rng(0))
    assert (drawn["x"].dtype, drawn["y"].dtype) == (np.uint8, np.int64)
    assert drawn["x"][:, 0].max() < 30  # not wrapped around
    assert (drawn["y"].min(), drawn["y"].max()) == (3, 900)


def test_the_seed_alone_decides_what_is_drawn(bundle: Bundle) -> None:
    draw = partial(sample_inputs, golden_inputs(bundle), 4)
    first, again, other = (draw(np.random.default_rng(seed))["input"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_deviation_is_a_share_of_the_largest_value_and_top1_a_share_of_rows() -> None:
    expected = {"y": np.array([[10.0, 1.0], [0.0, 2.0]])}
    found = compare({"y": np.array([[10.0, 1.5], [2.5, 2.0]])}, expected)
    assert found.deviation == pytest.approx(0.25)
    assert found.top1 == 0.5
    assert compare({"y": np.zeros((1, 2))}, {"y": np.zeros((1, 2))}).deviation == 0


def test_of_several_outputs_the_worst_counts() -> None:
    good, bad = np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]])
    found = compare({"a": good, "b": bad}, {"a": good, "b": good})
    assert (found.deviation, found.top1) == (0.5, 0.0)
    assert np.isnan(compare({"a": good * np.nan, "b": good}, {"a": good, "b": good}).deviation)


def test_a_reference_without_numbers_is_not_agreed_with() -> None:
    for value in (np.nan, np.inf):
        nothing = {"y": np.array([[value, 1.0]])}
        assert np.isnan(compare(nothing, nothing).deviation)
    assert Verdict("m0", 1, 0.1, None, 1.0).refusal == "it deviates from ONNX Runtime by no number (allowed 0.1)"


def test_the_last_batch_is_filled_up(bundle: Bundle, built: Any) -> None:
    mode = bundle.mode("m0")
    engine = OrtBackend().load(mode, lambda: built(mode))
    inputs = sample_inputs(golden_inputs(bundle), 3, np.random.default_rng(0))
    alone, together = answers(engine, inputs, 1)["logits"], answers(engine, inputs, 4)["logits"]
    at_once = engine.infer(inputs)["logits"]
    engine.close()
    assert np.allclose(alone, at_once, atol=1e-5)
    assert alone.shape == together.shape == (5, 10)
    assert np.allclose(alone, together, atol=1e-5)


def test_a_bundle_s_other_precisions_are_compared_with_their_own(tmp_path: Path) -> None:
    write_test_bundle(tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")

    class Half:
        def __getattr__(self, name: str) -> Any:
            return getattr(bundle, name)

        modes = tuple(replace(mode, precision="fp16") for mode in bundle.modes)

    supernet, backend = Supernet.of(bundle), OrtBackend()

    def half(mode: Mode) -> Artifact:
        return backend.build(lower(supernet, mode.groups, bundle.statistics(mode), precision="fp16"), mode.id)

    found = verify_modes(Half(), backend, half)  # type: ignore[arg-type]
    # What fp16 itself costs, which is ten times as much, is no deviation.
    assert all(one.deviation is not None and one.deviation < 3e-5 for one in found)
