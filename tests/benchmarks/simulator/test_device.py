import json

import pytest

from benchmarks.simulator import device


def test_the_papers_device_has_table_2_the_fastest_first():
    found = device.paper()
    assert [mode.id for mode in found.modes] == ["g16", "g8", "g4", "g2", "g1"]
    assert (found.fastest_ms, found.full_ms) == (43.41, 203.38)
    assert found.modes[-1].accuracy == 0.7607


def test_a_load_is_a_share_of_the_smallest_modes_capacity():
    assert device.paper().rate(0.5) == pytest.approx(0.5 / 0.04341)


def test_the_measured_device_reads_its_times_from_a_result(tmp_path):
    path = tmp_path / "result.json"
    uniform = [{"measured_ms": ms} for ms in (40.0, 22.0, 15.0, 12.0)]
    path.write_text(
        json.dumps({"samples": {"resnet50": {"full_ms": 75.0, "uniform": uniform}}, "machine": {"processor": "P"}})
    )
    found = device.measured(path)
    assert [mode.p50_ms for mode in found.modes] == [12, 15, 22, 40, 75]
    assert [mode.accuracy for mode in found.modes] == sorted(mode.accuracy for mode in found.modes)
    assert "measured on P" in found.source


def test_a_result_without_times_says_how_to_measure_them(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=r"benchmarks\.table_error"):
        device.measured(tmp_path / "result.json")


def test_a_batch_pays_its_fixed_share_once():
    one = device.Device("d", "", device.paper().modes, fixed_share=0.25)
    assert one.batch_ms(0, 1) == pytest.approx(43.41)
    assert one.batch_ms(0, 4) == pytest.approx(43.41 * 3.25)


def test_many_modes_get_slower_and_more_accurate():
    modes = device.many(32).modes
    assert len(modes) == 32
    assert all(a.p50_ms < b.p50_ms and a.accuracy < b.accuracy for a, b in zip(modes, modes[1:], strict=False))
