"""A cascade answers sure rows by the quick mode and the others by the better one, by rules that the bundle carries."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from wenet_runtime.bundle import MANIFEST, Bundle, Rule, TensorSpec, decode_manifest, encode_manifest
from wenet_runtime.cascade import Cascade, expected_cost, margin, merged, rows_of
from wenet_runtime.errors import BundleError
from wenet_runtime.manifest_checks import check_manifest

RULE = Rule("m0", "m2", "margin", 1.5, 0.003, 0.05, 10_000, 0.3, 0.001, "ab" * 32)


def rule(**members: Any) -> Rule:
    return dataclasses.replace(RULE, **members)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_margin_is_the_largest_score_less_the_second_largest(dtype: type) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        shape = (int(random.integers(1, 9)), int(random.integers(2, 30)))
        scores = random.choice([random.normal(size=shape), random.integers(0, 3, shape)]).astype(dtype)
        wanted = [float(row[-1]) - float(row[-2]) for row in np.sort(scores, axis=1)]
        assert margin(scores).tolist() == wanted


def test_scores_that_are_no_numbers_escalate() -> None:
    scores = np.array([[0, np.nan, 9], [np.inf, np.inf, 0], [np.inf, 1, 0], [-np.inf, 0, 5]], np.float32)
    escalated = Cascade([RULE], "logits").escalates(RULE, {"logits": scores})
    assert escalated.tolist() == [True, True, False, False]


def test_a_row_escalates_below_the_threshold_and_not_at_it() -> None:
    scores = np.array([[1.5, 0.0], [1.4999, 0.0], [0.0, 3.0]], np.float32)
    assert Cascade([RULE], "a").escalates(RULE, {"b": scores[:, ::-1] * 0, "a": scores}).tolist() == [
        False,
        True,
        False,
    ]


def test_a_cascade_equals_choosing_the_mode_row_by_row() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        rows = int(random.integers(1, 12))
        inputs = {"x": random.normal(size=(rows, 4, 2))}
        weights = [random.normal(size=(8, 3)) for _ in range(2)]

        def run(weight: Any, given: Dict[str, Any]) -> Dict[str, Any]:
            flat = given["x"].reshape(-1, 8)
            return {"scores": flat @ weight, "sum": flat.sum(axis=1, keepdims=True) * weight[0, 0]}

        quick = run(weights[0], inputs)
        before = {name: value.copy() for name, value in quick.items()}
        threshold = float(random.choice([0.0, 1.0, 3.0, 1e9]))
        escalated = Cascade([], "scores").escalates(rule(threshold=threshold), quick)
        found = merged(quick, run(weights[1], rows_of(inputs, escalated)), escalated)
        for row in range(rows):
            alone = {name: value[row : row + 1] for name, value in inputs.items()}
            first, then = (run(weight, alone) for weight in weights)
            top = np.sort(first["scores"][0])
            wanted = first if top[-1] - top[-2] >= threshold else then
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name][row], value[0], rtol=1e-12)
        for name, value in before.items():
            np.testing.assert_array_equal(quick[name], value)


def test_of_several_rules_the_cheapest_that_saves_here_is_taken() -> None:
    rules = [rule(first="m0", escalated=0.3), rule(first="m1", escalated=0.1), rule(first="m0", then="m1")]
    cascade = Cascade(rules, "logits")
    assert cascade.rule_for("m2") == rules[0]
    assert cascade.rule_for("m2", {"m0": 3.0, "m1": 4.0, "m2": 10.0}) == rules[1]
    assert cascade.rule_for("m2", {"m0": 3.0, "m2": 10.0}) == rules[0]
    assert cascade.rule_for("m2", {"m0": 7.0, "m1": 9.0, "m2": 10.0}) is None  # neither is cheaper than m2 alone
    assert cascade.rule_for("m2", {"m0": 1.0, "m1": 1.0}) is None  # m2 cannot be used now
    assert cascade.rule_for("m0") is None
    assert cascade.rule_for("m0", {"m0": 1.0}) is None
    assert expected_cost(rules[0], {"m0": 3.0, "m2": 10.0}) == pytest.approx(6.0)


def test_a_manifest_with_a_cascade_survives_encoding_and_decoding(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, cascade=(RULE, rule(first="m1", threshold=1 / 3)))
    check_manifest(manifest)
    assert decode_manifest(encode_manifest(manifest), where="there") == manifest
    assert Cascade.of(manifest).rules == manifest.cascade


def test_a_bundle_without_a_cascade_says_nothing_of_it_so_that_older_runtimes_read_it(bundle: Bundle) -> None:
    assert "cascade" not in json.loads((bundle.path / MANIFEST).read_bytes())
    assert bundle.manifest.cascade == ()
    assert Cascade.of(bundle.manifest).rule_for("m2") is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"first": "m9"}, "no mode m9"),
        ({"then": "m8", "first": "m9"}, "no mode m8, m9"),
        ({"first": "m2"}, "the same mode"),
        ({"score": "entropy"}, "score is 'entropy', known are margin"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"threshold": math.inf}, "threshold is inf"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"escalated": 1.01}, "escalated is 1.01"),
        ({"loss": -2.0}, "loss is -2.0"),
        ({"loss": 0.004}, "lost 0.004 where at most 0.003"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"images": 0}, "on 0 images"),
        ({"data_sha256": "ab"}, "'ab' is no SHA-256"),
    ],
)
def test_an_impossible_rule_is_refused_by_its_modes(bundle: Bundle, members: Dict[str, Any], message: str) -> None:
    manifest = dataclasses.replace(bundle.manifest, cascade=(rule(**members),))
    with pytest.raises(BundleError, match=r"the cascade's rule from .* calibrate it again") as caught:
        check_manifest(manifest)
    assert message in str(caught.value)


def test_two_rules_for_the_same_modes_are_refused(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, cascade=(RULE, rule(threshold=2.0)))
    with pytest.raises(BundleError, match="it is there twice"):
        check_manifest(manifest)


def test_a_cascade_over_outputs_that_are_no_scores_is_refused(bundle: Bundle) -> None:
    for output in (TensorSpec("map", "FP32", (-1, 10, 8, 8)), TensorSpec("one", "FP32", (-1, 1))):
        manifest = dataclasses.replace(bundle.manifest, cascade=(RULE,), outputs=(output,), labels=())
        with pytest.raises(BundleError, match="not one score for each of several classes"):
            check_manifest(manifest)


def change(path: Path, rules: Any) -> None:
    members = json.loads((path / MANIFEST).read_text())
    members["cascade"] = rules
    (path / MANIFEST).write_text(json.dumps(members))


def test_a_bundle_opens_with_a_cascade_and_refuses_a_malformed_one(own_bundle: Path) -> None:
    good = dataclasses.asdict(RULE)
    change(own_bundle, [good])
    assert Bundle(own_bundle).manifest.cascade == (RULE,)
    without = {name: value for name, value in good.items() if name != "threshold"}
    bad: List[Any] = [7, {"a": 1}, [without], [{**good, "threshold": "high"}], [{**good, "images": 1.5}]]
    for rules in bad:
        change(own_bundle, rules)
        with pytest.raises(BundleError, match="cascade"):
            Bundle(own_bundle)
