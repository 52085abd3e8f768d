import pytest
from PIL import Image

from tests.trainer.few_digits import FEW
from wenet_trainer import evaluate
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import TrainingError
from wenet_trainer.options import Options
from wenet_trainer.recipe import Recipe
from wenet_trainer.report import ACCURACY, CURVES, TABLE, write_report
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
