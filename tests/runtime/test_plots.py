"""Pictures: what is read, what is drawn, and what is said where something is missing or made up."""

import csv
import importlib
import io
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.runtime.load_files import BUDGETS_MS, MODES, START_S, profile_members, rows, write_log, write_report
from wenet_runtime.bundle import Bundle
from wenet_runtime.decision import Decision, line_of
from wenet_runtime.errors import SettingsError
from wenet_runtime.plots.sources import read_decisions, read_profile_points, read_report
from wenet_runtime.plots.story import (
    EXPIRED,
    FAILED,
    LATE,
    MOST_BINS,
    REFUSED,
    WITHIN,
    Event,
    Gauge,
    Point,
    Story,
    binned,
)

pytest.importorskip("matplotlib", reason="pictures need matplotlib, which `[plot]` brings")

from wenet_runtime.plots.figure import NothingToDraw, look, save

PNG = b"\x89PNG\r\n\x1a\n"


def drawn(name: str, story: Story) -> Any:
    with look():
        return importlib.import_module(f"wenet_runtime.plots.{name}").draw(story)


def table(picture: Any) -> List[Dict[str, Any]]:
    return [dict(zip(picture.columns, row)) for row in picture.rows]


def texts(picture: Any) -> str:
    """Every word in it."""
    import matplotlib.text

    return "\n".join(one.get_text() for one in picture.figure.findobj(matplotlib.text.Text))


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return read_report(write_report(tmp_path / "r.json")).story


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_report(write_report(tmp_path / "r.json"))
    samples = rows()
    assert len(found.story.events) == len(samples)
    assert (found.started_at_s, found.story.mode_ids, found.story.source) == (START_S, list(MODES), "sim")
    first = found.story.events[0]
    assert (first.mode, first.budget_ms, first.latency_ms) == (samples[0]["mode"], 20.0, samples[0]["latency_ms"])
    assert found.story.notes == ["made_up_net, 30 requests/s (poisson)", "power and energy are SIMULATED"]


@pytest.mark.parametrize(
    ("status", "latency_ms", "outcome"),
    [(200, 20.0, WITHIN), (200, 20.1, LATE), (503, 1.0, REFUSED), (422, 1.0, REFUSED), (504, 20.0, EXPIRED),
     (500, 1.0, FAILED), (0, 1.0, FAILED)],
)  # fmt: skip
def test_what_became_of_a_request_follows_from_its_status_and_its_budget(
    tmp_path: Path, status: int, latency_ms: float, outcome: str
) -> None:
    row = [0.0, 0.0, latency_ms, status, "m0", "fits", 1.0, 1.0, None, None, None, None, 0]
    (event,) = read_report(write_report(tmp_path / "r.json", samples=[row])).story.events
    assert event.outcome == outcome
    assert (event.mode is None) == (event.latency_ms is None) == (status != 200)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "it has format 2, and 1 can be read here"),
        ({"samples": [[1]]}, "has no 'kind'"),
        ({"samples": 3}, "is no report"),
        ({"load": None}, "is no report"),
        ({"modes": [{}]}, "has no 'latency_ms'"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, changes: Dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_report(write_report(tmp_path / "r.json", **changes))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_json_is_refused_and_says_what_writes_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SettingsError, match="wenet-runtime bench --out FILE"):
        read_report(tmp_path / "r.json")


def test_a_log_tells_when_and_how_long_from_the_request_s_first_byte(tmp_path: Path) -> None:
    found = read_decisions(write_log(tmp_path / "d.jsonl"))
    assert found.events == found.decisions
    samples = rows()
    first = found.events[0]
    assert first.at_s == 0.0
    assert first.latency_ms == pytest.approx(samples[0]["served_ms"] + 0.5, abs=1e-3)  # what passed before it
    assert first.measured_ms == pytest.approx(samples[0]["served_ms"], abs=1e-3)
    assert "energy is SIMULATED" in found.notes


def test_energy_that_was_only_estimated_is_not_taken_for_measured(tmp_path: Path) -> None:
    lines = [
        line_of(Decision(n, START_S, "r", 1, 1, "answered", "fits", "m0", measured_mj=5.0, energy_source=source))
        for n, source in enumerate(("estimate", "none", "rail:VDD_IN"))
    ]
    (tmp_path / "d.jsonl").write_bytes(b"".join(lines))
    assert [one.energy_mj for one in read_decisions(tmp_path / "d.jsonl").events] == [None, None, 5.0]


def test_a_log_is_cut_to_the_time_of_the_load(tmp_path: Path) -> None:
    path = write_log(tmp_path / "d.jsonl")
    found = read_decisions(path, since_s=START_S + 10, seconds=5)
    assert 0 <= found.events[0].at_s < found.events[-1].at_s <= 5
    with pytest.raises(SettingsError, match="no decision of the report's time"):
        read_decisions(path, since_s=START_S + 1e6, seconds=5)


def test_lines_that_are_no_decisions_are_told_below_the_pictures(tmp_path: Path) -> None:
    path = write_log(tmp_path / "d.jsonl")
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    assert "1 lines of the log are left out" in read_decisions(path).notes


def test_a_profile_is_read_from_its_json(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(profile_members()))
    found = read_profile_points(tmp_path / "p.json", None)
    assert [one.id for one in found.modes] == list(MODES)
    assert found.modes[0].batch_ms[4] == pytest.approx(28 * 2.95)
    assert found.notes == ["made_up_net by sim", "times are SIMULATED", "energy is SIMULATED"]


def test_a_cache_s_profile_needs_the_bundle_it_is_of(tmp_path: Path, bundle: Bundle) -> None:
    figures = {mode.id: profile_members()["modes"][0]["profile"] for mode in bundle.modes}
    members = {"bundle_sha256": bundle.sha256, "device": {"engine": "ort"}, "modes": figures}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(members))
    found = read_profile_points(path, bundle.path)
    assert {one.id: one.accuracy for one in found.modes} == {mode.id: mode.accuracy.value for mode in bundle.modes}
    with pytest.raises(SettingsError, match="give the --bundle"):
        read_profile_points(path, None)
    path.write_text(json.dumps({**members, "bundle_sha256": "0" * 64}))
    with pytest.raises(SettingsError, match="is of another bundle"):
        read_profile_points(path, bundle.path)
    path.write_text(json.dumps({"modes": [{"id": "m0", "profile": {}}], "device": {}}))
    with pytest.raises(SettingsError, match="is no profile"):
        read_profile_points(path, None)


def test_latency_has_a_curve_for_each_budget_and_ends_at_what_was_answered(story: Story) -> None:
    picture = drawn("latency", story)
    (axis,) = picture.figure.axes
    dashed = sorted(float(one.get_xdata()[0]) for one in axis.lines if one.get_linestyle() == "--")
    assert dashed == list(BUDGETS_MS)
    for budget_ms in BUDGETS_MS:
        of = [one for one in story.events if one.budget_ms == budget_ms]
        answered = [one for one in of if one.latency_ms is not None]
        curve = [one for one in table(picture) if one["budget_ms"] == budget_ms]
        assert curve[-1]["share"] == pytest.approx(len(answered) / len(of))
        in_time = sum(one.latency_ms <= budget_ms for one in answered if one.latency_ms is not None) / len(of)
        assert f"{budget_ms:g} ms: {in_time:.1%} in time" in texts(picture)


def test_the_legend_of_latencies_lies_beside_what_is_drawn(story: Story) -> None:
    figure = drawn("latency", story).figure
    figure.savefig(io.BytesIO())  # places everything
    (axis,) = figure.axes
    assert not axis.get_window_extent().overlaps(axis.get_legend().get_window_extent())


def test_latency_of_many_budgets_shows_the_most_frequent_and_says_so() -> None:
    events = [Event(0.0, WITHIN, "m0", 1.0 + n, float(n % 7 + 1)) for n in range(70)] + [Event(0, WITHIN, "m0", 1.0)]
    picture = drawn("latency", Story(events))
    assert len({one["budget_ms"] for one in table(picture)}) == 5
    assert "21 of other budgets not shown" in texts(picture)


def test_budgets_over_time_count_every_request_once(story: Story) -> None:
    found = table(drawn("hits", story))
    assert sum(sum(row[name] for name in (WITHIN, LATE, REFUSED, EXPIRED, FAILED)) for row in found) == len(
        story.events
    )
    assert all(row["in_time_share"] == row[WITHIN] / (row[WITHIN] + row[LATE] + row[REFUSED]) for row in found)
    without = drawn("hits", Story([Event(0.0, WITHIN, "m0", 1.0)]))
    assert table(without)[0]["in_time_share"] is None
    assert "no request had a budget" in texts(without)


def test_shares_of_modes_add_up_to_everything(story: Story) -> None:
    picture = drawn("shares", story)
    assert picture.columns == ("from_s", "m4", "m3", "m2", "m0", "none")  # m1 never answered
    assert all(sum(row[1:]) == pytest.approx(1) for row in picture.rows)
    assert "m4 (76.1%)" in texts(picture)
    assert "no answer" in texts(picture)


def test_power_has_the_colour_of_the_mode_that_answered_most() -> None:
    decided = [(0.5, "a"), (1.5, "b"), (1.6, "b"), (1.7, "a"), (3.5, "b")]
    gauges = [Gauge(float(at), {"VDD_IN": 5.0 + at}, {}) for at in range(5)]
    picture = drawn("power", Story(decided=decided, gauges=gauges, source="rail:VDD_IN"))
    assert [row["mode_since_the_reading_before"] for row in table(picture)] == [None, "a", "b", None, "b"]
    assert "Power by rail:VDD_IN, 3 changes of mode" in texts(picture)
    assert len(picture.figure.axes) == 1
    colours = {tuple(one.get_color()[0]) for one in picture.figure.axes[0].collections if one.get_label() in "ab"}
    assert len(colours) == 2


def test_power_that_is_made_up_says_so_and_temperatures_stand_below(story: Story) -> None:
    picture = drawn("power", story)
    assert "Power by sim (SIMULATED)" in texts(picture)
    assert len(picture.figure.axes) == 2
    assert {"CPU-therm", "GPU-therm", "temperature, °C", "power, W", "seconds"} <= set(texts(picture).splitlines())


def test_a_frontier_hollows_what_is_dominated(story: Story) -> None:
    picture = drawn("frontier", story)
    assert {row["mode"] for row in table(picture) if not row["kept_by_latency"]} == {"m1"}
    assert {row["mode"] for row in table(picture) if not row["kept_by_energy"]} == {"m1"}
    assert "energy of one image, mJ (by sim)" in texts(picture)
    faces = [tuple(one.get_facecolor()[0]) for one in picture.figure.axes[0].collections]
    assert (1.0, 1.0, 1.0, 1.0) in faces
    assert len(drawn("frontier", Story(modes=[Point("m", 0.5, 2.0, 2.5)])).figure.axes) == 1


def test_batches_divide_by_their_size_and_label_what_is_estimated(tmp_path: Path) -> None:
    modes = [Point("m", 0.5, 10.0, 11.0, 100.0, "rail:VDD_IN", {2: 16.0, 4: 24.0})]
    decisions = [Event(0.0, WITHIN, "m", 1.0, energy_mj=mj, rows=2) for mj in (70.0, 75.0, 90.0)]
    picture = drawn("batches", Story(modes=modes, decisions=decisions))
    assert [row["ms_an_image"] for row in table(picture)] == [10.0, 8.0, 6.0]
    assert [row["estimated_mj_an_image"] for row in table(picture)] == [100.0, 80.0, 60.0]
    assert [row["measured_mj_an_image"] for row in table(picture)] == [None, 75.0, None]
    assert "hollow: estimated at one image's power" in texts(picture)
    unknown = [Point("m", 0.5, 10.0, 11.0, batch_ms={2: 16.0})]
    assert len(drawn("batches", Story(modes=unknown)).figure.axes) == 1


def test_predictions_are_drawn_of_what_ran_and_their_error_is_told(story: Story) -> None:
    picture = drawn("prediction", story)
    assert len(picture.rows) == sum(one.mode is not None for one in story.events)
    exact = [Event(0.0, WITHIN, "m", 2.0, None, 2.0, 2.0), Event(0.0, WITHIN, "m", 3.0, None, 2.0, 3.0)]
    assert "half are off by at most 25.0%" in texts(drawn("prediction", Story(exact)))


@pytest.mark.parametrize("name", ["latency", "hits", "shares", "power", "frontier", "batches", "prediction"])
def test_of_nothing_nothing_is_drawn_and_it_says_what_is_missing(name: str) -> None:
    with pytest.raises(NothingToDraw, match=r"no|give"):
        drawn(name, Story())


@pytest.mark.parametrize("span_s", [0.0, 3.0, 59.0, 86_400.0, 1e9])
def test_time_is_cut_into_a_number_of_slots_that_can_be_seen(span_s: float) -> None:
    events = [Event(span_s * at / 500, WITHIN) for at in range(501)]
    width_s, slots = binned(events)
    assert 1 <= len(slots) <= MOST_BINS
    assert sum(map(len, slots.values())) == 501
    off_s = [one.at_s - number * width_s for number, of in slots.items() for one in of]
    assert min(off_s) >= -1e-6 * width_s
    assert max(off_s) <= (1 + 1e-6) * width_s


def test_a_picture_is_saved_three_times_with_its_notes(tmp_path: Path, story: Story) -> None:
    with look():
        picture = drawn("power", story)
        paths = save(picture, folder=tmp_path, name="power", notes=["a note", "a note", "what is SIMULATED"])
    assert [one.name for one in paths] == ["power.png", "power.svg", "power.csv"]
    assert paths[0].read_bytes().startswith(PNG)
    assert "a note; what is SIMULATED" in paths[1].read_text()
    found = list(csv.reader(paths[2].read_text().splitlines()))
    assert found[0] == ["at_s", "sim_w", "mode_since_the_reading_before"]
    assert found[1][2] == ""
    assert len(found) == 1 + len(picture.rows)


def test_drawing_leaves_no_state_and_needs_no_display(story: Story) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn("latency", story)
    assert dict(mpl.rcParams) == before
