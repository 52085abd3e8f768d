"""Watts from a `tegrastats` that is a stand-in: it replays lines and fails in every way that a child can."""

import os
import signal
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import pytest

from tests.runtime.child_watch import RecordedTrace, children, descriptors, trapezoid_mj, until
from tests.runtime.fake_tegrastats import installed
from tests.runtime.fakes import Client, SettableBackend, make_service
from tests.runtime.tegrastats_lines import BOARDS, composed
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import MeterError
from wenet_runtime.meters.base import OK, STALE, UNAVAILABLE
from wenet_runtime.meters.tegrastats_child import LONGEST_PAUSE_S, TegrastatsMeter
from wenet_runtime.meters.trace import PowerTrace
from wenet_runtime.service.app import create_app

NANO = "RAM 900/3964MB (lfb 366x4MB) CPU [10%@102] GPU@28C POM_5V_IN {0}/920 POM_5V_GPU 0/0 POM_5V_CPU 119/119"
LIGHT = "RAM 900/3964MB (lfb 366x4MB) CPU [1%@102] POM_5V_GPU 900/900 POM_5V_IN 500/500 POM_5V_CPU 90/90"
ROTATED = "RAM 900/3964MB (lfb 366x4MB) CPU [99%@102] POM_5V_GPU 8949/8742 POM_5V_IN 3227/3086 POM_5V_CPU 3148/3134"
PATIENCE_S = 3600.0  # for the first reading: a meter that does not find out by itself is ended by pytest's limit
OLD_S = 3600.0  # so that no pause of a crowded machine is taken for silence
CHILD = "wenet_runtime.meters.tegrastats_child.LineChild"

Opened = Callable[..., TegrastatsMeter]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever a test does: no child, no thread, no descriptor stays."""
    threads, before = set(threading.enumerate()), descriptors()
    yield
    assert children() == []
    assert until(lambda: set(threading.enumerate()) <= threads), threading.enumerate()
    assert until(lambda: descriptors() <= before)


@pytest.fixture
def opened(tmp_path: Path, nothing_is_left: None) -> Iterator[Opened]:
    """Opens a meter on a stand-in that replays these lines; closes it whatever happens."""
    meters: List[TegrastatsMeter] = []

    def opens(
        lines: Sequence[str], *words: object, later: Optional[Sequence[object]] = None, **how: Any
    ) -> TegrastatsMeter:
        log = tmp_path / "lines.log"
        log.write_text("".join(f"{line}\n" for line in lines))
        again = None if later is None else ("--log", log, *later)
        command = installed(tmp_path / "bin", "--log", log, *words, later=again)
        how = {"interval_ms": 10, "first_reading_s": PATIENCE_S, "trace": RecordedTrace(OLD_S), **how}
        meters.append(TegrastatsMeter(how.pop("rail", None), command=command, **how))
        return meters[-1]

    yield opens
    for meter in meters:
        meter.close()


def scripted(heard: Sequence[List[str]]) -> Any:
    """A child of whom is heard just this, and that then ends, also in all later lives."""
    rest = iter(heard)

    class Scripted:
        def __init__(self, command: Sequence[str]) -> None:
            del command

        def lines(self, timeout_s: float) -> Optional[List[str]]:
            del timeout_s
            return next(rest, None)

        def end(self) -> int:
            return 7

    return Scripted


def readings(meter: TegrastatsMeter) -> List[Tuple[float, float]]:
    trace = meter._trace
    assert isinstance(trace, RecordedTrace)
    return trace.readings


class TestReadings:
    """A child that does what it should."""

    def test_power_of_the_whole_board_is_named_by_its_rail(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)])
        power = meter.power()
        assert power is not None
        assert (power.watts, power.rail) == (0.92, "POM_5V_IN")
        assert meter.source == "rail:POM_5V_IN"
        assert (meter.state().status, meter.state().detail, meter.state().restarts) == (OK, "", 0)

    @pytest.mark.parametrize("board", [board for board in BOARDS if board.rails], ids=lambda board: board.name)
    def test_every_board_with_rails_is_measured(self, opened: Opened, board: Any) -> None:
        line, reading = composed(board, 3)
        power = opened([line]).power()
        assert power is not None
        assert power.watts == reading.total_mw / 1e3  # type: ignore[operator]

    def test_a_board_without_an_input_is_named_by_what_is_added(self, opened: Opened) -> None:
        meter = opened(["VDD_GPU_SOC 2412mW/1mW VDD_CPU_CV 1607mW/1mW VIN_SYS_5V0 4707mW/1mW"])
        assert meter.source == "rail:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"

    def test_a_chosen_rail_is_taken_as_it_is(self, opened: Opened) -> None:
        meter = opened([ROTATED], rail="POM_5V_GPU")
        assert meter.source == "rail:POM_5V_GPU"
        assert until(lambda: {watts for _, watts in readings(meter)} == {8.949})

    def test_energy_is_the_integral_of_the_momentary_values_over_their_arrival(self, opened: Opened) -> None:
        lines = [NANO.format(mw) for mw in (1000, 9000, 2000, 7000, 400, 3000)]
        meter = opened(lines)
        assert until(lambda: len(readings(meter)) >= 60)
        taken = readings(meter)[:60]
        assert {watts for _, watts in taken} == {1.0, 9.0, 2.0, 7.0, 0.4, 3.0}
        energy_mj = meter.energy_mj(taken[0][0], taken[-1][0])
        assert energy_mj == pytest.approx(trapezoid_mj(taken), rel=1e-9)

    def test_of_lines_that_arrive_together_the_newest_counts(self, opened: Opened, tmp_path: Path) -> None:
        burst = tmp_path / "burst"
        burst.write_text("".join(NANO.format(mw) + "\n" for mw in (1000, 2000, 3000)))
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\ncat {burst}\nexec sleep 600\n")
        program.chmod(0o755)
        trace = RecordedTrace(OLD_S)
        meter = TegrastatsMeter(command=str(program), first_reading_s=PATIENCE_S, trace=trace)
        meter.close()
        assert [watts for _, watts in trace.readings] == [3.0]

    def test_the_interval_is_asked_for_and_told(self, opened: Opened, tmp_path: Path) -> None:
        program, words = tmp_path / "program", tmp_path / "words"
        line = NANO.format(920)
        program.write_text(f"#!/bin/sh\necho \"$@\" > {words}\necho '{line}'\nexec sleep 600\n")
        program.chmod(0o755)
        meter = TegrastatsMeter(command=str(program), interval_ms=40, first_reading_s=PATIENCE_S)
        state = meter.state()
        meter.close()
        assert words.read_text() == "--interval 40\n"
        assert (state.interval_s, state.stale_after_s) == (0.04, 0.5)

    def test_lines_that_are_none_among_the_others_cost_nothing(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--junk")
        assert until(lambda: len(readings(meter)) >= 10)
        assert {watts for _, watts in readings(meter)} == {0.92}
        assert meter.state().status == OK

    def test_a_cut_last_line_is_not_read(self, opened: Opened) -> None:
        lines = [NANO.format(1000), "POM_5V_IN 9000/9000 " * 3]
        meter = opened(lines, "--die-after", 2, "--cut-last", later=("--stall-after", 0))
        assert until(lambda: meter.state().status == STALE)
        assert readings(meter) == [(readings(meter)[0][0], 1.0)]

    def test_a_line_that_lacks_a_rail_of_a_sum_is_not_read(self, opened: Opened) -> None:
        rails = ["VDD_GPU 100mW/1mW", "VDD_CPU_SOC_MSS 200mW/1mW", "VIN_SYS_5V0 300mW/1mW", "VIN 700mW/1mW"]
        meter = opened([" ".join(rails), " ".join(rails[:3]), " ".join(rails[1:3])])
        assert until(lambda: len(readings(meter)) >= 10)
        assert {watts for _, watts in readings(meter)} == {0.7}


class TestOpening:
    """A meter that cannot be one says why, at once and without a rest."""

    def test_no_program(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("wenet_runtime.meters.tegrastats_child.USUAL_PLACE", str(tmp_path / "bin/tegrastats"))
        with pytest.raises(MeterError, match=r"no program tegrastats: .* container needs -v"):
            TegrastatsMeter()
        with pytest.raises(MeterError, match="no program /nowhere/tegrastats"):
            TegrastatsMeter(command="/nowhere/tegrastats")

    def test_the_program_is_looked_for_in_its_usual_place_too(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "log").write_text(NANO.format(920) + "\n")
        usual = installed(tmp_path / "usual", "--log", tmp_path / "log")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("wenet_runtime.meters.tegrastats_child.USUAL_PLACE", usual)
        meter = TegrastatsMeter(first_reading_s=PATIENCE_S)
        meter.close()
        assert meter.source == "rail:POM_5V_IN"

    def test_no_rails_names_both_causes_and_the_remedy(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match=r"permission: .* run as root .*chmod o\+r .*has none \(Nano 2GB\)"):
            opened([NANO.format(920)], "--no-rails")

    def test_rotated_labels(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match=r"labels are rotated; .*--power-rail"):
            opened([ROTATED])

    def test_a_chosen_rail_that_is_not_there(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match="no rail VDD_IN: name one of POM_5V_CPU, POM_5V_GPU, POM_5V_IN with"):
            opened([NANO.format(920)], rail="VDD_IN")
        with pytest.raises(MeterError, match="no rail VDD_IN"):
            opened([ROTATED], rail="VDD_IN")

    def test_rails_of_an_unknown_board(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match=r"whether VDD_A, VDD_B are the whole board is not known: .*--power-rail"):
            opened(["VDD_A 5/5 VDD_B 6/6"])

    def test_a_program_that_is_another(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match="not a line of tegrastats: 'hello world'"):
            opened(["hello world"])

    def test_a_program_that_ends_after_a_complaint(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match=r"ended \(exit code 127\).*'libc.so.6: not found'"):
            opened(["libc.so.6: not found"], "--die-after", 1, "--exit-code", 127)

    def test_a_program_that_says_nothing(self, opened: Opened) -> None:
        with pytest.raises(MeterError, match="tegrastats has printed no line"):
            opened([NANO.format(920)], "--stall-after", 0, first_reading_s=0.3)

    def test_a_file_that_cannot_run(self, tmp_path: Path) -> None:
        program = tmp_path / "tegrastats"
        program.write_bytes(b"\x7fELF of another machine")
        program.chmod(0o755)
        with pytest.raises(MeterError, match="cannot be started"):
            TegrastatsMeter(command=str(program), first_reading_s=PATIENCE_S)


class TestTroubles:
    """A child that fails while it is read."""

    def test_a_child_that_dies_leaves_a_gap_and_is_started_again(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--die-after", 5, "--exit-code", 3)
        assert until(lambda: meter.state().restarts >= 2 and meter.state().status == OK)
        meter.close()
        assert meter.energy_mj(readings(meter)[0][0], readings(meter)[-1][0]) is None

    @pytest.mark.parametrize(
        ("words", "told"),
        [(("--exit-code", 3), "exit code 3"), (("--signal", int(signal.SIGSEGV)), "signal 11"), ((), "exit code 0")],
    )
    def test_how_it_ended_is_told_while_nothing_is_known(
        self, opened: Opened, words: Tuple[object, ...], told: str
    ) -> None:
        meter = opened([NANO.format(920)], "--die-after", 2, *words, later=("--stall-after", 0))
        assert until(lambda: f"tegrastats ended ({told}), it is started again" == meter.state().detail)
        state = meter.state()
        assert state.status == STALE
        now_s = meter._clock()
        assert meter.energy_mj(now_s - 1e-6, now_s) is None
        power = meter.power()
        assert power is not None  # the last reading, with its age
        assert until(lambda: meter.state().restarts == 1)

    def test_the_last_words_before_an_end_are_told_and_not_those_of_an_earlier_child(self, opened: Opened) -> None:
        meter = opened(
            [NANO.format(920), "bus error"], "--die-after", 2, later=("--die-after", 1, "--cut-last", "--exit-code", 9)
        )
        first = "tegrastats ended (exit code 0), it is started again; what it prints is not a line of tegrastats: "
        second = "tegrastats ended (exit code 9), it is started again"
        assert until(lambda: meter._logged == {f"{first}'bus error'", second})

    def test_silence_after_a_new_start_is_not_told_as_the_end_before(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--die-after", 2, later=("--stall-after", 3), trace=PowerTrace(0.5))
        assert until(lambda: meter.state().restarts == 1 and "has printed no line" in meter.state().detail)

    def test_silence_is_stale_and_then_ended(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--stall-after", 3, trace=PowerTrace(0.1))
        assert until(lambda: meter.state().status == STALE)
        assert meter.state().detail == "tegrastats has printed no line for more than 0.1 s"
        assert until(lambda: meter.state().restarts >= 1)
        assert until(lambda: meter.state().status == OK)

    def test_silence_is_counted_from_the_last_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds = iter(range(10_000))
        monkeypatch.setattr(CHILD, scripted([[NANO.format(920)], []] * 20))
        meter = TegrastatsMeter(command="/bin/sh", trace=PowerTrace(1.0), clock=lambda: float(next(seconds)))
        assert until(lambda: meter._trouble == (STALE, "tegrastats ended (exit code 7), it is started again"))
        meter.close()
        assert not [told for told in meter._logged if "no line" in told]

    def test_a_line_that_never_ends_is_silence(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--die-after", 2, later=("--endless-line",), trace=PowerTrace(0.1))
        assert until(lambda: "no line for more than 1 s and was ended" in meter.state().detail)

    def test_rails_that_vanish_are_said_to_be_unavailable_never_0_w(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--die-after", 2, later=("--no-rails",))
        assert until(lambda: meter.state().status == UNAVAILABLE)
        assert meter.state().detail.startswith("permission: ")
        assert {watts for _, watts in readings(meter)} == {0.92}
        now_s = meter._clock()
        assert meter.energy_mj(now_s - 1e-6, now_s) is None

    def test_other_rails_than_at_first_are_not_taken_for_the_same(self, opened: Opened, tmp_path: Path) -> None:
        other = tmp_path / "other.log"
        other.write_text("VDD_IN 5000mW/1mW\n")
        meter = opened([NANO.format(920)], "--die-after", 2, later=("--log", other))
        assert until(lambda: meter.state().detail == "it no longer prints POM_5V_IN, only VDD_IN")
        assert meter.state().status == UNAVAILABLE
        assert {watts for _, watts in readings(meter)} == {0.92}

    def test_labels_found_to_be_rotated_are_not_believed_again(self, opened: Opened) -> None:
        meter = opened([LIGHT] * 20 + [ROTATED] * 3)
        assert until(lambda: meter.state().status == UNAVAILABLE)
        assert "labels are rotated" in meter.state().detail
        assert until(lambda: children() == [])  # nothing runs for readings that nobody may use
        assert until(lambda: not meter._thread.is_alive())
        assert (meter.state().status, meter.state().restarts) == (UNAVAILABLE, 0)
        assert len(readings(meter)) <= 20

    def test_nor_is_a_lighter_load_that_is_told_in_the_same_breath(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CHILD, scripted([[LIGHT], [ROTATED] * 3 + [LIGHT]]))
        meter = TegrastatsMeter(command="/bin/sh", first_reading_s=PATIENCE_S)
        assert until(lambda: not meter._thread.is_alive())
        assert "labels are rotated" in meter.state().detail

    def test_two_odd_lines_are_no_proof_of_rotated_labels(self, opened: Opened) -> None:
        meter = opened([LIGHT] * 2 + [ROTATED] * 2)
        assert until(lambda: len(readings(meter)) >= 20)
        assert meter.state().status == OK

    def test_a_program_that_is_replaced_comes_back(self, opened: Opened, tmp_path: Path) -> None:
        meter = opened([NANO.format(920)], "--hold", tmp_path / "hold")
        program = tmp_path / "bin/tegrastats"
        program.rename(tmp_path / "away")
        os.kill(children()[0][0], signal.SIGKILL)
        assert until(lambda: "cannot be started (No such file" in meter.state().detail)
        (tmp_path / "away").rename(program)
        assert until(lambda: meter.state().status == OK)

    def test_one_that_will_not_end_is_ended_by_force_on_close(self, opened: Opened) -> None:
        meter = opened([NANO.format(920)], "--ignore-term")
        meter.close()
        meter.close()
        assert children() == []

    def test_pauses_double_and_begin_again_once_it_has_delivered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: List[float] = []
        lives = iter([True, False, False, True, True] + [False] * 9)

        class Closing:
            def wait(self, pause_s: float) -> bool:
                pauses.append(pause_s)
                return len(pauses) == 14

        meter = object.__new__(TegrastatsMeter)
        meter._closing, meter._decided = Closing(), threading.Event()  # type: ignore[assignment]
        meter._refused, meter._restarts = False, 0
        monkeypatch.setattr(TegrastatsMeter, "_one_life", lambda self: next(lives))
        meter._run()
        assert pauses[:5] == [0.2, 0.4, 0.8, 0.2, 0.2]
        assert pauses[5:] == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, LONGEST_PAUSE_S]
        assert meter._restarts == 13


class TestServing:
    """Requests never wait for the meter, and never fail by it."""

    def test_a_child_killed_again_and_again_costs_no_request(
        self, opened: Opened, bundle: Bundle, backend: SettableBackend, tmp_path: Path
    ) -> None:
        hold = tmp_path / "hold"
        meter = opened([NANO.format(mw) for mw in (900, 1500, 4000)], "--hold", hold)
        service = make_service(bundle, backend, meter=meter)
        client = Client(create_app(service), service)
        statuses: List[int] = []
        stop = threading.Event()

        def ask_on() -> None:
            while not stop.is_set():
                statuses.append(client.infer().status_code)

        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            pipes = descriptors(kind="pipe")
            for _ in range(10):
                hold.write_text("")
                ((pid, _),) = children()
                os.kill(pid, signal.SIGKILL)
                assert until(lambda: meter.state().status == STALE)
                unknown = client.infer()
                assert unknown.status_code == 200
                assert "wenet-energy-mj" not in unknown.headers
                assert unknown.headers["wenet-energy-source"] == "none"
                assert until(lambda pid=pid: [one for one, _ in children()] not in ([], [pid]))  # type: ignore[misc]
                assert until(lambda: descriptors(kind="pipe") == pipes)  # while it is started there are a few more
                hold.unlink()
                assert until(lambda: meter.state().status == OK)
                known = client.infer()
                assert float(known.headers["wenet-energy-mj"]) >= 0
                assert known.headers["wenet-energy-source"] == "rail:POM_5V_IN"
        finally:
            stop.set()
            asking.join(60.0)
            service.runtime.close(timeout_s=60.0)
        assert set(statuses) == {200}
        assert meter.state().restarts == 10
