"""The cascade's benchmark measures what it says it does."""

import numpy as np
import pytest

from benchmarks.cascade import HELD_OUT, HeldOutGenerated, _auroc, _judged
from benchmarks.escalation_streams import Terms, Told, among_others, many_names, normal, one_attacker, send
from wenet_runtime.bundle import Rule
from wenet_trainer.cascade.calibrate import Answers
from wenet_trainer.data import open_source

TERMS = Terms(share=0.3, cost=0.4)


def test_the_worst_stretch_is_that_of_every_stretch_looked_at() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        costs = rng.choice([0.4, 1.0, 1.4], 450)
        wanted = max(costs[start:end].mean() for start in range(451) for end in range(start + 200, 451))
        assert Told(costs, None, 0, 1.0, 1.0, 0.0).worst_window == pytest.approx(wanted)


def test_a_stream_costs_the_first_mode_always_and_the_second_where_it_escalates_or_is_not_cascaded() -> None:
    calm = send(normal(0.3, seed=1), 2_000, TERMS)
    assert calm.cascaded == 1.0
    assert set(calm.costs.tolist()) == {0.4, 1.4}
    assert calm.costs.mean() == pytest.approx(0.7, abs=0.05)
    for stream in (one_attacker, many_names):
        told = send(stream, 2_000, TERMS)
        assert told.alarm_after is not None
        assert told.costs[: told.alarm_after].tolist() == [1.4] * told.alarm_after
        assert told.costs[told.alarm_after] == 1.0
        assert set(told.costs.tolist()) == {1.0, 1.4}


def test_the_attacker_s_own_requests_are_not_counted_among_the_others() -> None:
    told = send(among_others(0.3, seed=2, clients=10), 4_000, TERMS)
    assert told.others > 0.99
    assert told.cascaded < 0.8


def test_auroc_is_the_chance_that_a_right_answer_has_the_greater_margin() -> None:
    rng = np.random.default_rng(3)
    margins, right = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.6
    pairs = [(a > b) + 0.5 * (a == b) for a in margins[right] for b in margins[~right]]
    assert _auroc(Answers(margins, right)) == pytest.approx(np.mean(pairs))
    assert _auroc(Answers(margins, np.ones(60, np.bool_))) == 0.5


def test_a_rule_is_judged_by_what_it_does_row_by_row() -> None:
    rng = np.random.default_rng(4)
    first, then = (Answers(rng.random(500), rng.random(500) < share) for share in (0.7, 0.9))
    rule = Rule("a", "b", "margin", 0.4, 0.003, 0.05, 10_000, 0.4, 0.0, "0" * 64)
    served = np.where(first.margins >= 0.4, first.right, then.right)
    found = _judged(rule, {"a": first, "b": then})
    assert found["loss"] == pytest.approx(then.right.mean() - served.mean())
    assert found["escalated"] == pytest.approx((first.margins < 0.4).mean())
    assert found["images"] == 500


def test_the_images_to_calibrate_on_are_no_images_of_a_training() -> None:
    source = open_source(HELD_OUT, 1_000)
    assert isinstance(source, HeldOutGenerated)
    assert min(source.validation_images, source.test_images) >= 10_000
    few = HeldOutGenerated(seed=1_000, train_images=24, validation_images=48, test_images=48)
    trained = HeldOutGenerated(seed=0, train_images=24, validation_images=48, test_images=48)
    images = [few.validation(), few.test(), trained.train(0).first(24), trained.validation()]
    seen = [{image.tobytes() for image in one.pixels} for one in images]
    assert len(set.union(*seen)) == sum(map(len, seen))
