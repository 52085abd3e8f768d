from benchmarks.common import Arguments
from benchmarks.simulator import soak


def test_a_short_soak_reports_memory_after_each_part(monkeypatch, tmp_path):
    monkeypatch.setattr(soak, "QUICK_PART", 100)
    figures, samples = soak.measure(Arguments(True, None, tmp_path, 0))
    assert len(samples["resident_mb"]) == soak.PARTS
    assert figures["memory growth"].goal is None
    assert samples["peak_mb"] >= max(samples["resident_mb"]) - 1
