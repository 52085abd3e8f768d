import numpy as np
import pytest

from benchmarks.simulator import traces


@pytest.mark.parametrize("cv2", [1.0, 2.0, 4.0, 8.0])
def test_gamma_gaps_have_the_rate_and_the_variation_asked_for(cv2):
    gaps = np.diff(traces.gamma(50, 200_000, cv2, np.random.default_rng(0)))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(cv2, rel=0.08)


def test_poisson_gaps_have_the_rate_and_vary_as_much_as_their_mean():
    gaps = np.diff(traces.poisson(20, 100_000, np.random.default_rng(1)))
    assert gaps.mean() == pytest.approx(0.05, rel=0.02)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize(("first", "last"), [(10, 90), (90, 10), (40, 40)])
def test_a_ramp_begins_and_ends_at_its_rates(first, last):
    arrivals = traces.ramp(first, last, 50_000, np.random.default_rng(2))
    span = arrivals[-1]
    assert span == pytest.approx(50_000 / ((first + last) / 2), rel=0.03)
    tenth = span / 10
    for start, rate in ((0, first + (last - first) / 20), (span - tenth, last - (last - first) / 20)):
        seen = ((arrivals >= start) & (arrivals < start + tenth)).sum() / tenth
        assert seen == pytest.approx(rate, rel=0.06)


def test_a_diurnal_rate_swings_about_its_mean():
    arrivals = traces.diurnal(100, 0.6, 40, 100_000, np.random.default_rng(3))
    assert len(arrivals) == 100_000
    assert (np.diff(arrivals) >= 0).all()
    phase = arrivals[arrivals < 920] % 40
    day, night = (((phase >= low) & (phase < low + 4)).sum() / (23 * 4) for low in (8, 28))
    assert day == pytest.approx(160, rel=0.07)
    assert night == pytest.approx(40, rel=0.12)


def test_the_same_seed_gives_the_same_trace():
    one, other = (traces.gamma(5, 100, 4, np.random.default_rng(9)) for _ in range(2))
    assert (one == other).all()


def test_classes_of_budget_come_in_their_shares():
    arrivals = traces.poisson(10, 20_000, np.random.default_rng(0))
    trace = traces.with_budgets(arrivals, (50, 100, 400), (0.5, 0.3, 0.2), np.random.default_rng(0))
    shares = [(trace.budgets_ms == budget).mean() for budget in (50, 100, 400)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert (trace.rows == 1).all()


@pytest.mark.parametrize(
    ("text", "budgets", "rows"),
    [
        ("t_s\n0.5\n0.25\n", [70, 70], [1, 1]),
        ("t_s,budget_ms\n0.25,40\n0.5,\n", [40, 70], [1, 1]),
        ("t_s,budget_ms,rows\n0.25,40,3\n\n0.5,,\n", [40, 70], [3, 1]),
    ],
)
def test_a_csv_is_read_in_order_of_time(tmp_path, text, budgets, rows):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    trace = traces.read_csv(path, 70)
    assert trace.arrivals_s.tolist() == [0.25, 0.5]
    assert trace.budgets_ms.tolist() == budgets
    assert trace.rows.tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is 'nothing'"),
        ("time\n1\n", "the first line is 'time'"),
        ("t_s\n", "has no request"),
        ("t_s\n1\nsoon\n", "line 3 is 'soon': give numbers"),
        ("t_s,budget_ms\n1,-5\n", "line 2 is '1,-5'"),
        ("t_s\nnan\n", "line 2 is 'nan'"),
        ("t_s,budget_ms,rows\n1,5,0\n", "rows >= 1"),
        ("t_s\n1,2,3,4\n", "has 4 fields"),
    ],
)
def test_a_bad_csv_says_which_line_and_what_to_give(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        traces.read_csv(path, 70)
