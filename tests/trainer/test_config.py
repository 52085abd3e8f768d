from dataclasses import fields

import pytest

from wenet_trainer.config import SETTINGS, read_settings
from wenet_trainer.errors import TrainingError
from wenet_trainer.options import Options
from wenet_trainer.recipe import Recipe


def test_nothing_given_is_every_default():
    assert read_settings(None, {}) == (Recipe(), Options())


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text('epochs = 3\nbatch = 64\nteacher = "none"\nworkers = 2\n[model_arguments]\nwidth = 32\n')
    recipe, options = read_settings(file, {"batch": 128, "model_arguments": []})
    assert (recipe.epochs, recipe.batch, recipe.teacher) == (3, 128, "none")
    assert recipe.model_arguments == {"width": 32}
    assert options.workers == 2


def test_model_arguments_are_given_as_name_and_number():
    recipe, _ = read_settings(None, {"model_arguments": ["width=32", "classes=7"]})
    assert recipe.model_arguments == {"width": 32, "classes": 7}
    with pytest.raises(TrainingError, match="takes name=number, not 'width'"):
        read_settings(None, {"model_arguments": ["width"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown setting 'epoch': did you mean 'epochs'?"),
        ("soft_target = true", "unknown setting 'soft_target': "),
        ("xyzzy = 1", "unknown setting 'xyzzy': known are amp, "),
        ('epochs = "3"', "'epochs' must be a int, not '3'"),
        ("epochs = true", "'epochs' must be a int, not True"),
        ("epochs = 0", "epochs is 0, but must be at least 1"),
        ("epochs = ", "cannot read the settings in"),
        ('device = "tpu"', "unknown device 'tpu': known are auto, cpu, cuda"),
        ("workers = -1", "workers is -1, but cannot be negative"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_named(tmp_path, text, message):
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(TrainingError) as caught:
        read_settings(file, {})
    assert message in str(caught.value)


def test_a_whole_number_may_stand_where_a_fraction_is_meant(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text("clip_norm = 1")
    assert read_settings(file, {})[0].clip_norm == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere\.toml"):
        read_settings(tmp_path / "nowhere.toml", {})


def test_every_setting_says_what_it_is_and_no_two_share_a_name():
    assert len(SETTINGS) == len(fields(Recipe)) + len(fields(Options))
    assert all(len(field.metadata["help"]) > 10 for field in SETTINGS.values())
