import numpy as np
import pytest

from wenet_runtime.bundle import Accuracy, Mode
from wenet_trainer.errors import ExportError
from wenet_trainer.golden import distance, remark

TWIN = np.array([[1.0, -4.0], [2.0, 0.5]], np.float32)


def mode(precision):
    return Mode("m7", {"a": 1}, precision, Accuracy(0.75, 0.7, 0.8, 100), 1, 1, "test")


def test_the_distance_is_the_largest_difference_over_the_largest_value():
    assert distance(TWIN, TWIN) == 0
    assert distance(TWIN + np.array([[0, 0], [0, 1]], np.float32), TWIN) == 0.25


@pytest.mark.parametrize(("precision", "usual"), [("fp16", 0.01), ("bf16", 0.03), ("int8", 0.1)])
def test_only_what_is_further_than_the_precision_usually_is_gets_a_sentence(precision, usual):
    assert remark(mode(precision), TWIN + np.float32(0.9 * usual * 4), TWIN) is None
    sentence = remark(mode(precision), TWIN + np.float32(1.5 * usual * 4), TWIN)
    assert sentence == (
        f"mode 'm7' in {precision} is up to {1.5 * usual:.2g} of the largest answer away from itself in fp32, "
        f"where {usual:g} is usual: it stays for its accuracy, 75.0 %"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(value):
    answers = TWIN.copy()
    answers[1, 1] = value
    with pytest.raises(ExportError, match="mode 'm7' answers no numbers in int8; nothing was written"):
        remark(mode("int8"), answers, TWIN)
