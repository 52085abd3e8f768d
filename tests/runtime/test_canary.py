"""What an engine must answer before it serves, and how far it may be from what the exporter answered."""

import contextlib
import dataclasses
from typing import Any, Callable

import numpy as np
import pytest

from tests.runtime.fakes import GoldenBackend, SettableBackend, unbuilt
from wenet_runtime.bundle import Bundle
from wenet_runtime.canary import WARMUP_RUNS, Canary, golden_inputs
from wenet_runtime.errors import EngineError
from wenet_runtime.manifest import PRECISIONS

TOLERANCE = PRECISIONS["fp32"]


def check(bundle: Bundle, bend: Callable[[Any], Any], precision: str = "fp32") -> None:
    """Check mode m1 on an engine whose answers are bent."""
    mode = dataclasses.replace(bundle.mode("m1"), precision=precision)
    Canary(bundle, simulated=False).check(mode, GoldenBackend(bundle, bend).load(mode, unbuilt))


def test_an_engine_is_run_until_it_is_warm(bundle: Bundle, backend: SettableBackend) -> None:
    mode = bundle.mode("m1")
    Canary(bundle, simulated=True).check(mode, backend.load(mode, unbuilt))
    assert [mode_id for mode_id, _ in backend.runs] == ["m1"] * WARMUP_RUNS


def test_a_deviation_within_rounding_is_taken(bundle: Bundle) -> None:
    check(bundle, lambda golden: golden + TOLERANCE / 2 * np.abs(golden).max())


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_a_mode_may_deviate_as_far_as_its_precision_does(bundle: Bundle, precision: str) -> None:
    allowed = PRECISIONS[precision]
    check(bundle, lambda golden: golden + 0.9 * allowed * np.abs(golden).max(), precision)
    with pytest.raises(EngineError, match=f"allowed {allowed:g}"):
        check(bundle, lambda golden: golden + 1.1 * allowed * np.abs(golden).max(), precision)


@pytest.mark.parametrize(("precision", "computed"), [("fp32", "fp16"), ("int8", "fp16"), ("fp16", "int8")])
def test_a_mode_is_held_to_the_coarser_of_its_precision_and_the_engine_s(
    bundle: Bundle, precision: str, computed: str
) -> None:
    allowed = max(PRECISIONS[precision], PRECISIONS[computed])
    mode = dataclasses.replace(bundle.mode("m1"), precision=precision)
    canary = Canary(bundle, simulated=False, computed=lambda mode: computed)
    for share, passes in ((0.9, True), (1.1, False)):
        backend = GoldenBackend(bundle, lambda golden, share=share: golden + share * allowed * np.abs(golden).max())  # type: ignore[misc]
        with contextlib.nullcontext() if passes else pytest.raises(EngineError, match=f"allowed {allowed:g}"):
            canary.check(mode, backend.load(mode, unbuilt))


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda golden: golden + 2 * TOLERANCE * np.abs(golden).max(), "deviates from its golden output by"),
        (lambda golden: golden * np.nan, "deviates from its golden output by nan"),
        (lambda golden: golden[:, ::-1], "deviates"),
        (lambda golden: golden[:1], r"'logits' of shape \(1, 10\), not \(2, 10\)"),
        (lambda golden: golden[:, :9], r"answers float32 \(2, 9\) as 'logits'"),
        (lambda golden: golden.astype(np.float64), r"answers float64 \(2, 10\) as 'logits'"),
    ],
)
def test_a_wrong_answer_to_the_golden_input_is_refused(bundle: Bundle, bend: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(EngineError, match=f"mode 'm1'.*{said}"):
        check(bundle, bend)


def test_a_simulated_answer_proves_nothing_but_its_form(bundle: Bundle) -> None:
    mode = bundle.mode("m1")
    canary = Canary(bundle, simulated=True)
    canary.check(mode, GoldenBackend(bundle, lambda golden: -golden).load(mode, unbuilt))
    with pytest.raises(EngineError, match="answers float32"):
        canary.check(mode, GoldenBackend(bundle, lambda golden: golden[:, :9]).load(mode, unbuilt))


def test_a_golden_file_without_a_mode_s_outputs_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GoldenBackend(bundle, lambda golden: golden).load(bundle.mode("m1"), unbuilt)
    golden = {name: value for name, value in bundle.golden().items() if name != "m1.logits"}
    monkeypatch.setattr(bundle, "golden", lambda: golden)
    with pytest.raises(EngineError, match=r"lacks 'm1.logits': export it again"):
        Canary(bundle, simulated=False).check(bundle.mode("m1"), engine)


def test_a_golden_file_without_inputs_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"lacks 'input.input'"):
        golden_inputs(bundle, {"m0.logits": np.zeros(3)})


def test_golden_inputs_can_be_cut_to_rows(bundle: Bundle) -> None:
    assert golden_inputs(bundle)["input"].shape == (2, 1, 8, 8)
    assert golden_inputs(bundle, rows=1)["input"].shape == (1, 1, 8, 8)
