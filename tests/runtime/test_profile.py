"""A profile is percentiles of latency and the median of energy, and says nothing it does not know."""

import pytest

from wenet_runtime.profile import profile_of


def test_percentiles_are_those_of_the_samples() -> None:
    found = profile_of([float(value) for value in range(101)])
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.runs) == (50.0, 95.0, 99.0, 101)


def test_unknown_energy_stays_unknown() -> None:
    found = profile_of([1.0, 2.0], None, "sim")
    assert (found.energy_mj, found.energy_source) == (None, "none")


def test_known_energy_is_the_median_with_its_source() -> None:
    found = profile_of([1.0], [1.0, 9.0, 2.0], "sim")
    assert (found.energy_mj, found.energy_source) == (pytest.approx(2.0), "sim")
