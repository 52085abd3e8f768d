import dataclasses
import hashlib
import sys

import pytest
from typer.testing import CliRunner

from tests.trainer.bundles import changed
from tests.trainer.cascade.sources import MANY
from tests.trainer.few_digits import FEW
from wenet_runtime.bundle import MANIFEST, Accuracy, Bundle, Rule, encode_manifest
from wenet_runtime.cascade import Cascade
from wenet_runtime.errors import BundleError
from wenet_trainer.cascade.calibrate import Goal
from wenet_trainer.cascade.calibration import WANTED, HeldOut, calibrate_bundle, write_rules
from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.cli import app, main

FEW_OF_MANY = HeldOut(MANY, 0, ("validation", "test"), skip=0, allow_fewer=True)
LOOSE = Goal(epsilon=0.4, delta=0.2)  # an untrained network loses no more than that, whatever answers
RULE = Rule("g16", "g1", "margin", 1.5, 0.003, 0.05, 10_000, 0.3, 0.001, "ab" * 32)
TIMES_MS = {"g1": 8.0, "g2": 4.0, "g4": 2.0, "g8": 1.0, "g16": 0.5}


@pytest.fixture(autouse=True)
def _told_times(monkeypatch):
    """So small a network's modes take about as long as one another here, and which pairs are worth it is then luck."""
    monkeypatch.setattr("wenet_trainer.cascade.calibration.times_ms", lambda bundle, engines: TIMES_MS)


def test_what_is_certified_is_in_the_bundle_and_nothing_else_has_changed(bundle):
    found = calibrate_bundle(bundle, FEW_OF_MANY, LOOSE, quiet=True)
    after = Bundle(bundle.path)
    assert found.rules
    assert after.manifest.cascade == found.rules
    assert dataclasses.replace(after.manifest, cascade=()) == bundle.manifest
    assert after.sha256 == found.sha256 == hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    assert after.sha256 != bundle.sha256
    for rule in found.rules:
        assert (rule.images, rule.epsilon, rule.delta) == (350, LOOSE.epsilon, LOOSE.delta)
        assert Cascade.of(after.manifest).rule_for(rule.then) == rule
    assert found.images == 420


def test_where_nothing_is_certified_the_bundle_is_as_it_was(bundle):
    write_rules(bundle, [RULE])
    calibrated = Bundle(bundle.path)
    found = calibrate_bundle(calibrated, FEW_OF_MANY, Goal(), quiet=True)
    assert (found.rules, found.sha256) == ((), calibrated.sha256)
    assert Bundle(bundle.path).manifest.cascade == (RULE,)
    assert all("no rule" in line for line in found.lines())


def test_images_that_the_modes_know_too_well_or_not_at_all_are_remarked_on(bundle):
    assert calibrate_bundle(bundle, FEW_OF_MANY, LOOSE, quiet=True).notes == ()
    for value, message in ((0.001, "images it was trained on"), (0.99, "of another kind")):
        modes = tuple(
            dataclasses.replace(mode, accuracy=Accuracy(value, value - 0.001, value + 0.001, 9_000))
            for mode in bundle.manifest.modes
        )
        told = changed(bundle, bundle.path.with_name(f"told {value}"), modes=modes)
        (note,) = calibrate_bundle(told, FEW_OF_MANY, LOOSE, quiet=True).notes
        assert message in note


def test_an_impossible_rule_is_not_written(bundle):
    before = (bundle.path / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="no mode g3"):
        write_rules(bundle, [dataclasses.replace(RULE, first="g3")])
    assert (bundle.path / MANIFEST).read_bytes() == before == encode_manifest(bundle.manifest)


def test_too_few_images_are_refused_before_any_is_answered_and_told_what_would_do(bundle):
    few = dataclasses.replace(FEW_OF_MANY, allow_fewer=False)
    with pytest.raises(CalibrationError, match=rf"420 held-out images .* wanted are {WANTED} \(2000 .*, 10000 "):
        calibrate_bundle(bundle, few, Goal(), quiet=True)
    with pytest.raises(CalibrationError, match=r"even one rule of which no image is lost takes 1\d\d\d"):
        calibrate_bundle(bundle, few, Goal(), quiet=True)
    with pytest.raises(CalibrationError, match=r"with --allow-fewer the certificate is of 350"):
        calibrate_bundle(bundle, few, LOOSE, quiet=True)
    with pytest.raises(CalibrationError, match="0 held-out images after 7000 left out"):
        calibrate_bundle(bundle, HeldOut(MANY, 0, allow_fewer=True), LOOSE, quiet=True)


def test_other_data_is_refused(bundle):
    with pytest.raises(CalibrationError, match=r"24 labels \(circle .* the bundle 10 \(0, 1, 2"):
        calibrate_bundle(bundle, HeldOut("generated", 0), Goal(), quiet=True)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"splits": ("train",)}, "--split is train: give validation or test"),
        ({"splits": ("test", "test")}, "each at most once"),
        ({"splits": ()}, "--split is : give"),
        ({"skip": -1}, "--skip -1"),
        ({"most": 0}, "--images 0"),
    ],
)
def test_impossible_choices_of_images_are_refused(members, message):
    with pytest.raises(CalibrationError, match=message):
        HeldOut(FEW, 0, **members)


def test_the_command_says_what_each_rule_gives_and_names_the_new_bundle(bundle):
    arguments = ["calibrate", "--bundle", str(bundle.path), "--data", MANY, "--seed", "0", "--skip", "0"]
    arguments += ["--allow-fewer", "--epsilon", "0.4", "--delta", "0.2"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    after = Bundle(bundle.path)
    assert f"{len(after.manifest.cascade)} rules on 300 images, bundle {after.sha256[:12]}" in result.output
    assert " escalate, " in result.output


def test_the_command_fails_where_nothing_is_certified(bundle, monkeypatch, capsys):
    arguments = ["calibrate", "--bundle", str(bundle.path), "--data", MANY, "--seed", "0", "--skip", "0"]
    monkeypatch.setattr(sys, "argv", ["wenet-trainer", *arguments, "--allow-fewer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "no rule was certified on 300 images" in captured.err
    assert "no rule, " in captured.out
