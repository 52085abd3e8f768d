"""Errors are summed up as people read them: how far off usually, and at worst."""

import numpy as np
import pytest

from wenet_runtime.table_rows import TableError


def test_the_summary_does_not_care_for_signs() -> None:
    found = TableError.of([-0.02, 0.01, 0.03])
    assert (found.median, found.rows) == (0.02, 3)
    assert found.p95 == pytest.approx(0.029)


def test_the_upper_bound_of_the_median_holds_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    truth = 0.6745  # the median size of a standard normal number
    held = [TableError.of(random.normal(size=60)).median_high >= truth for _ in range(1000)]
    assert 0.96 < np.mean(held) <= 1.0


def test_more_rows_narrow_the_bound() -> None:
    random = np.random.default_rng(0)
    few, many = (TableError.of(random.normal(size=count)) for count in (40, 400))
    assert many.median_high - many.median < few.median_high - few.median


def test_one_row_is_its_own_median_and_bound() -> None:
    assert TableError.of([0.5]) == TableError(0.5, 0.5, 0.5, 1)
