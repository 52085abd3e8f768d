"""The window's quantiles are those of its latest values."""

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.residuals import Residuals, quantile

VALUES = st.lists(st.floats(-10.0, 10.0), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_a_quantile_is_the_least_value_that_covers_the_share(share: float, wanted: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == wanted


@given(VALUES, st.integers(1, 20), st.floats(0.0, 1.0), st.floats(-10.0, 10.0))
def test_it_answers_as_sorting_the_latest_values_does(
    values: List[float], size: int, share: float, value: float
) -> None:
    window = Residuals(size)
    for one in values:
        window.add(one)
    kept = sorted(values[-size:])
    assert len(window) == len(kept)
    assert window.quantile(share) == quantile(kept, share)
    assert window.at_least(value) == sum(one >= value for one in kept)
    assert window.at_most(value) == sum(one <= value for one in kept)


@given(VALUES, st.integers(0, 10))
def test_the_latest_can_be_taken_out_again(values: List[float], count: int) -> None:
    window = Residuals(100)
    for one in values:
        window.add(one)
    window.forget_latest(count)
    kept = values[: max(0, len(values) - count)]
    assert len(window) == len(kept)
    assert window.at_least(-10.0) == len(kept)
    if kept:
        assert window.quantile(0.5) == quantile(sorted(kept), 0.5)
