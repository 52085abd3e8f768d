import json

from benchmarks import decisions
from benchmarks.common import Arguments
from benchmarks.simulator.device import measured
from benchmarks.simulator.families import cases
from benchmarks.simulator.players import OURS, RIVALS
from benchmarks.simulator.study import play_case


def test_a_quick_study_reports_without_judging(monkeypatch, tmp_path):
    monkeypatch.setattr(decisions, "QUICK_COUNT", 60)
    figures, samples = decisions.measure(Arguments(True, tmp_path / "result.json", tmp_path, 0))
    assert figures
    assert all(figure.goal is None for figure in figures.values())
    assert json.dumps(samples, allow_nan=False)
    assert (tmp_path / "result.png").exists()


def test_figures_name_the_families_that_a_rival_holds():
    case = next(case for case in cases(measured()) if case.family == "gamma CV² 8")
    outcome = play_case(case.with_budget(16.0, "clear (16 x full)"), range(2), 150)
    outcome.scores[OURS][:] = outcome.scores["always smallest"]
    figures, samples = decisions.judge([outcome])
    assert figures["families on which ours is not better than always smallest"].value == 1
    assert "gamma CV² 8" in figures["families on which ours is not better than always smallest"].how
    assert set(samples["families"]) >= set(RIVALS)
    if outcome.possible:
        assert figures["gamma CV² 8: attainment"].met
