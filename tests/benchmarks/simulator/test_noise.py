import numpy as np
import pytest

from benchmarks.simulator.noise import QUIET, SHARED_CORE, STILL, profiles
from tests.benchmarks.simulator.worlds import TWO


def test_noise_has_the_shape_it_states():
    factors, stalls = SHARED_CORE.draw(200_000, np.random.default_rng(0))
    assert np.log(factors).std() == pytest.approx(SHARED_CORE.jitter, rel=0.02)
    assert (stalls > 0).mean() == pytest.approx(SHARED_CORE.stall_share, rel=0.05)
    assert stalls[stalls > 0].mean() == pytest.approx(SHARED_CORE.stall_ms, rel=0.05)


def test_profiles_are_what_a_profiler_would_see():
    found = profiles(TWO, QUIET)
    assert found["large"].p50_ms == pytest.approx(30, rel=0.01)
    assert found["large"].p50_ms < found["large"].p95_ms < found["large"].p99_ms
    assert found["large"].energy_mj == pytest.approx(30 * (TWO.above_idle_w + TWO.idle_w))
    assert found["large"].batch_ms is None


def test_profiles_without_noise_have_no_tail():
    one = profiles(TWO, STILL)["small"]
    assert (one.p50_ms, one.p99_ms) == (10, 10)
