import pytest

from wenet_trainer.errors import TrainingError
from wenet_trainer.recipe import Recipe


def test_a_recipe_survives_json():
    recipe = Recipe(model="tiny", model_arguments={"width": 64}, epochs=3)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_differences_are_said_in_words():
    assert Recipe(epochs=5).differences(Recipe(epochs=7)) == ["epochs is 7 there, 5 here"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples is 1, but must be at least 2"),
        ({"amp": "fp8"}, "unknown amp 'fp8': known are none, bf16, fp16"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, but must lie between 0 and 0.9"),
        ({"teacher": "x"}, "unknown teacher 'x'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, but must lie above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(TrainingError, match=message):
        Recipe(**settings)


def test_settings_of_another_version_are_refused():
    with pytest.raises(TrainingError, match="unknown training settings"):
        Recipe.from_json({"momentum": 0.9})
