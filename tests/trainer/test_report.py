from dataclasses import replace

import pytest
from PIL import Image

from tests.trainer.explore.made_up import frontier
from tests.trainer.few_digits import FEW
from wenet_trainer import evaluate
from wenet_trainer.checkpoint import FILE as CHECKPOINT
from wenet_trainer.checkpoint import Checkpoint, write_checkpoint
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import TrainingError
from wenet_trainer.explore.result import FILE as FRONTIER
from wenet_trainer.explore.result import write_frontier
from wenet_trainer.network import make_network
from wenet_trainer.options import Options
from wenet_trainer.recipe import Recipe
from wenet_trainer.report import ACCURACY, CURVES, PICTURE, TABLE, write_report
from wenet_trainer.space import SearchSpace
from wenet_trainer.train import train

RECIPE = Recipe(data=FEW, model="tiny", epochs=2, batch=32, learning_rate=5e-3)


def test_a_report_has_a_row_for_every_mode_that_was_trained_and_two_pictures(tmp_path):
    train(RECIPE, tmp_path / "ours", options=Options(validate_images=32), quiet=True)
    alone = Recipe(**{**RECIPE.to_json(), "sampling": "fixed", "groups": 4, "epochs": 1})
    train(alone, tmp_path / "alone", quiet=True)
    rows = write_report(tmp_path / "ours", [tmp_path / "alone"], quiet=True)
    assert [(row.run, row.mode) for row in rows] == [
        *(("ours", f"1/{groups}") for groups in (1, 2, 4, 8, 16)),
        ("alone", "1/4"),
    ]
    assert rows[0].macs > rows[1].macs > rows[4].macs
    assert rows[2].macs == rows[5].macs
    table = (tmp_path / "ours" / TABLE).read_text()
    assert f"| alone | 1/4 | {rows[5].macs / 1e6:.2f} | {100 * rows[5].accuracy.value:.2f} |" in table
    for name in (CURVES, ACCURACY):
        with Image.open(tmp_path / "ours" / name) as picture:
            assert picture.size[0] > 500


def test_the_test_images_become_inputs_a_batch_at_a_time(tmp_path, monkeypatch):
    train(RECIPE, tmp_path / "ours", stop_after=1, options=Options(validate_images=0), quiet=True)
    together = []

    def watched(pixels, recipe):
        together.append(len(pixels))
        return normalise(pixels, recipe)

    monkeypatch.setattr(evaluate, "normalise", watched)
    rows = write_report(tmp_path / "ours", [], quiet=True)
    assert max(together) == evaluate.BATCH
    assert sum(together) == sum(row.accuracy.images for row in rows)


def test_runs_of_other_data_are_not_compared(tmp_path):
    train(RECIPE, tmp_path / "ours", stop_after=1, options=Options(validate_images=0), quiet=True)
    other = Recipe(**{**RECIPE.to_json(), "data": "tests.trainer.test_report:Others"})
    train(other, tmp_path / "other", stop_after=1, options=Options(validate_images=0), quiet=True)
    with pytest.raises(TrainingError, match=r"other was trained on .*Others.* compare runs of the same data"):
        write_report(tmp_path / "ours", [tmp_path / "other"], quiet=True)


def Others(seed: int):
    from tests.trainer.few_digits import FewDigits

    return FewDigits(seed)


def test_runs_of_one_name_and_of_other_seeds_stay_apart(tmp_path):
    for place, seed in (("a", 0), ("b", 1)):
        recipe = Recipe(**{**RECIPE.to_json(), "seed": seed, "sampling": "fixed", "epochs": 1})
        train(recipe, tmp_path / place / "run", options=Options(validate_images=0), quiet=True)
    one, other = write_report(tmp_path / "a" / "run", [tmp_path / "b" / "run"], quiet=True)
    assert one.run == str(tmp_path / "a" / "run")
    assert other.run == str(tmp_path / "b" / "run")
    (alone,) = write_report(tmp_path / "b" / "run", [], quiet=True)
    assert alone.accuracy == other.accuracy  # on its own test images, whoever it is compared with


def untrained(run):
    """A run with one mode and no training, which is quick to report on."""
    recipe = replace(RECIPE, sampling="fixed")
    checkpoint = Checkpoint(
        recipe, 1, ({"loss_full": 2.0, "loss_smallest": 2.0},), make_network(recipe).state_dict(), {}
    )
    run.mkdir()
    write_checkpoint(run / CHECKPOINT, checkpoint)
    return checkpoint


def test_a_report_shows_what_an_exploration_of_these_weights_found(tmp_path):
    checkpoint, run = untrained(tmp_path / "ours"), tmp_path / "ours"
    full = SearchSpace.of(checkpoint.network()).full()
    (mode,) = frontier(modes=1, energy=True).modes
    mode = replace(mode, groups=dict(full))
    found = replace(frontier(points=0, dropped=0), weights_sha256=checkpoint.weights_sha256(), modes=(mode,))

    write_report(run, [], quiet=True)
    assert "frontier" not in (run / TABLE).read_text()

    write_frontier(run / FRONTIER, found)
    write_report(run, [], quiet=True)
    text = (run / TABLE).read_text()
    assert f"| m0 | fp32 | {mode.macs / 1e6:.2f} | {mode.latency.p50_ms:.3f} |" in text
    assert "(rapl)" in text
    assert "![frontier](frontier.png)" in text
    (run / PICTURE).write_bytes(b"drawn by explore, with other runs beside")
    write_report(run, [], quiet=True)
    assert (run / PICTURE).read_bytes() == b"drawn by explore, with other runs beside"


@pytest.mark.parametrize("others", ["weights", "format"])
def test_a_frontier_of_other_weights_or_that_cannot_be_read_is_named_and_not_shown(tmp_path, others):
    untrained(tmp_path / "ours")
    run = tmp_path / "ours"
    if others == "weights":
        write_frontier(run / FRONTIER, frontier(modes=2))
    else:
        (run / FRONTIER).write_text("{}")
    assert write_report(run, [], quiet=True)
    text = (run / TABLE).read_text()
    assert "explored on other weights" in text if others == "weights" else "no wenet-frontier file" in text
    assert "| m0 |" not in text
    assert not (run / PICTURE).exists()
