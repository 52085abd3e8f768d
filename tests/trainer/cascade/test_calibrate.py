import math

import numpy as np
import pytest

from wenet_trainer.cascade import calibrate as module
from wenet_trainer.cascade.calibrate import Answers, Goal, calibrate, losses, rules_of, thresholds
from wenet_trainer.cascade.errors import CalibrationError

TIMES = {"full": 10.0, "quick": 3.0}


def world(rng, images, worst=0.3, steep=4.0):
    """A quick mode that errs at small margins m, which are uniform, where the full one does not.

    An image's mean loss is worst · exp(-steep · m), less 0.005 where only the quick one is right.
    """
    margins = rng.random(images)
    draw = rng.random(images)
    lost = draw < worst * np.exp(-steep * margins)
    gained = draw > 0.995
    return {
        "full": Answers(rng.random(images), ~gained),
        "quick": Answers(margins, ~lost),
    }


def true_loss(threshold, worst=0.3, steep=4.0):
    """The mean loss of `world` at a threshold."""
    t = min(max(threshold, 0.0), 1.0)
    return worst / steep * (math.exp(-steep * t) - math.exp(-steep)) - 0.005 * (1 - t)


def certified(answers, goal):
    found = [pair for pair in calibrate(answers, TIMES, goal) if pair.threshold is not None]
    return found[0] if found else None


def test_the_certificate_is_wrong_in_no_more_than_delta_of_many_calibrations():
    rng, goal, many = np.random.default_rng(0), Goal(epsilon=0.01, delta=0.1), 100
    found = [certified(world(rng, 2400), goal) for _ in range(many)]
    held = [pair for pair in found if pair is not None]
    wrong = sum(true_loss(pair.threshold) >= goal.epsilon for pair in held)
    assert len(held) > 0.8 * many  # it is not right by certifying nothing
    assert wrong <= goal.delta * many


def test_taking_the_loosest_threshold_that_looks_good_is_wrong_far_more_often(monkeypatch):
    monkeypatch.setattr(module, "p_value", lambda lost, *, epsilon, bet: 0.0 if lost.mean() < epsilon else 1.0)
    rng, goal, many = np.random.default_rng(0), Goal(epsilon=0.01, delta=0.1), 100
    found = [certified(world(rng, 2400), goal) for _ in range(many)]
    wrong = sum(true_loss(pair.threshold) >= goal.epsilon for pair in found if pair is not None)
    assert wrong > 2 * goal.delta * many


def test_thresholds_are_placed_by_the_pilot_images_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "planned", lambda first, then, images, alpha: seen.append((first, then, images)) or [])
    calibrate(world(np.random.default_rng(1), 6000), TIMES, Goal(0.01, 0.1))
    assert [(len(first.right), len(then.right), images) for first, then, images in seen] == [(1000, 1000, 5000)]


def test_images_that_come_sorted_are_certified_like_others():
    rng, goal = np.random.default_rng(9), Goal(0.01, 0.05)
    for _ in range(5):
        answers = world(rng, 12_000)
        order = np.argsort(answers["quick"].margins)
        plain, ordered = (
            certified(answers, goal),
            certified({name: one.part(order) for name, one in answers.items()}, goal),
        )
        assert ordered.threshold == pytest.approx(plain.threshold, abs=0.15)


def test_several_pairs_are_all_right_together_with_the_stated_probability():
    rng, goal, many, wrong = np.random.default_rng(2), Goal(epsilon=0.02, delta=0.1), 40, 0
    times = {"full": 10.0, "half": 9.0, "quick": 2.0}
    for _ in range(many):
        answers = world(rng, 2400)
        answers["half"] = Answers(rng.random(2400), answers["full"].right)  # so both pairs lose the same
        found = [
            pair for pair in calibrate(answers, times, goal) if pair.first == "quick" and pair.threshold is not None
        ]
        wrong += any(true_loss(pair.threshold) >= goal.epsilon for pair in found)
    assert wrong <= goal.delta * many


def test_more_images_allow_looser_thresholds_that_approach_the_truth():
    rng, goal = np.random.default_rng(3), Goal(epsilon=0.01, delta=0.05)
    best = next(t for t in np.linspace(0, 1, 2001) if true_loss(t) < goal.epsilon)
    gaps = [
        np.mean([certified(world(rng, images), goal).threshold - best for _ in range(10)]) for images in (6000, 60_000)
    ]
    assert 0 < gaps[1] < 0.6 * gaps[0]


def test_what_lost_too_much_in_the_end_is_not_certified_however_well_it_began():
    then = Answers(np.ones(3000), np.ones(3000, np.bool_))
    first = Answers(np.ones(3000), np.arange(3000) < 2900)  # only the last hundred are lost
    step = module.Step(0.5, 0.5)
    lost = losses(first, then, 0.5)
    assert module.p_value(lost, epsilon=0.01, bet=0.5) < 0.01 < lost.mean()
    assert module.certify(first, then, [step], 0.01, 0.01) is None


def test_losses_are_those_of_a_cascade_served_row_by_row():
    rng = np.random.default_rng(4)
    first = Answers(np.where(rng.random(200) < 0.1, np.nan, rng.integers(0, 5, 200)), rng.random(200) < 0.6)
    then = Answers(rng.random(200), rng.random(200) < 0.8)
    for threshold in (0.0, 1.0, 3.5, 9.0):
        served = [
            a if margin >= threshold else b for margin, a, b in zip(first.margins, first.right, then.right, strict=True)
        ]
        assert (
            losses(first, then, threshold).tolist() == (then.right.astype(int) - np.array(served).astype(int)).tolist()
        )


def test_thresholds_go_from_strict_to_never_escalating_whatever_the_margins():
    for margins in ([3.0, 1.0, 2.0], [np.nan, np.nan], [np.inf, 1.0], [0.0, 0.0, 0.0], [2.0] * 500):
        found = thresholds(np.array(margins))
        assert found[-1] == 0.0
        assert (np.diff(found) < 0).all()
        assert np.isfinite(found).all()


def test_the_pair_that_saves_most_is_chosen_and_every_other_says_why_it_was_not():
    rng = np.random.default_rng(5)
    answers = world(rng, 12_000)
    answers["half"] = Answers(answers["quick"].margins, answers["quick"].right)  # as good, but slower
    answers["noise"] = Answers(rng.random(12_000), rng.random(12_000) < 0.1)
    times = {"full": 10.0, "half": 3.0, "quick": 2.0, "noise": 1.0}
    pairs = {(pair.first, pair.then): pair for pair in calibrate(answers, times, Goal(0.01, 0.05))}
    assert set(pairs) == {(a, b) for a in times for b in times if times[a] < times[b]}
    kept = pairs["quick", "full"]
    assert kept.why == ""
    assert kept.cost == pytest.approx(0.2 + kept.escalated)
    assert kept.loss == pytest.approx(true_loss(kept.threshold), abs=0.005)
    assert "'quick' before 'full' saves more" in pairs["half", "full"].why
    assert "no threshold saves enough time" in pairs["noise", "full"].why


def test_a_pair_whose_certified_threshold_saves_nothing_is_no_rule():
    rng, slow = np.random.default_rng(6), {"full": 10.0, "quick": 9.3}
    found = [calibrate(world(rng, 1500, worst=0.02), slow, Goal(0.01, 0.05))[0] for _ in range(5)]
    assert any(pair.why for pair in found)
    assert all(pair.why or pair.cost < module.WORTH for pair in found)
    assert [bool(rules_of([pair], Goal(0.01, 0.05), 1500, "0" * 64)) for pair in found] == [not p.why for p in found]


def test_a_rule_tells_what_stands_behind_it():
    goal = Goal(0.01, 0.05)
    pairs = calibrate(world(np.random.default_rng(7), 12_000), TIMES, goal)
    (rule,) = rules_of(pairs, goal, 12_000, "ab" * 32)
    assert (rule.first, rule.then, rule.score, rule.epsilon, rule.delta) == ("quick", "full", "margin", 0.01, 0.05)
    assert (rule.images, rule.data_sha256) == (10_000, "ab" * 32)
    assert (rule.threshold, rule.escalated, rule.loss) == (pairs[0].threshold, pairs[0].escalated, pairs[0].loss)


def test_answers_to_different_images_and_impossible_goals_are_refused():
    answers = world(np.random.default_rng(8), 100)
    with pytest.raises(CalibrationError, match=r"modes answer \[50, 100\] images"):
        calibrate({**answers, "quick": answers["quick"].part(np.arange(50))}, TIMES, Goal())
    with pytest.raises(CalibrationError, match="at least 6"):
        calibrate({name: one.part(np.arange(5)) for name, one in answers.items()}, TIMES, Goal())
    for members in ({"epsilon": 0.0}, {"epsilon": 1.0}, {"delta": -0.1}, {"delta": math.nan}):
        with pytest.raises(CalibrationError, match=r"must be above 0 and below 1"):
            Goal(**members)
