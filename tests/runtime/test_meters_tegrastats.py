"""Lines of tegrastats: recorded ones of ten kinds of board, composed ones, and ones that no board prints."""

import os
import re
from typing import Dict, List, Tuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.recorded import RECORDED
from tests.runtime.tegrastats_lines import BOARDS, Board, composed
from wenet_runtime.meters.tegrastats import CpuCore, Ram, Reading, parse_line

EXAMPLES = int(os.environ.get("WENET_FUZZ_EXAMPLES", "200"))

# The grammar as it is written down: one expression after the other, each match removed before the next.
BEGIN, END = r"(?<!\S)", r"(?=\s|$)"
REFERENCE: Tuple[Tuple[str, str], ...] = (
    ("date", r"^(\d\d)-(\d\d)-(\d{4})\s+(\d\d):(\d\d):(\d\d)\s"),
    ("ram", BEGIN + r"RAM\s+(\d+)/(\d+)MB\s*\(lfb\s+(\d+)x(\d+)([kM])B\)"),
    ("swap", BEGIN + r"SWAP\s+(\d+)/(\d+)MB\s*\(cached\s+(\d+)MB\)"),
    ("iram", BEGIN + r"IRAM\s+(\d+)/(\d+)kB\s*\(lfb\s+(\d+)kB\)"),
    ("cpu", BEGIN + r"(?:CPU|cpu)\s+\[([^\]]*)\](?:@(\d+))?"),
    ("emc", BEGIN + r"EMC(?:_FREQ)?\s+(\d+)%(?:@(\d+))?" + END),
    ("mts", BEGIN + r"MTS\s+fg\s+(\d+)%\s+bg\s+(\d+)%"),
    ("gpu", BEGIN + r"GR3D(?:_FREQ)?\s+(?:(\d+)%)?(?:@(?:\[([\d,]+)\]|(\d+)))?" + END),
    ("temperature", BEGIN + r"([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?:/(-?\d+(?:\.\d+)?)C)?" + END),
    ("rail", BEGIN + r"([A-Za-z]\w*)\s+(\d+)(?:mW)?/(\d+)(?:mW)?(?:/(\d+)(?:mW)?)?" + END),
    ("engine", BEGIN + r"([A-Z][A-Z0-9]*(?:_FREQ)?)\s+(?:off|(?:(\d+)%)?@?(\d+))" + END),
)


def plainly(line: str) -> Tuple[Dict[str, List[Tuple[str, ...]]], str]:
    """What each expression finds, and what none does."""
    found: Dict[str, List[Tuple[str, ...]]] = {}
    for name, form in REFERENCE:
        expression = re.compile(form, re.ASCII)
        found[name] = [tuple(one.groups("")) for one in expression.finditer(line)]
        line = expression.sub("", line)
    return found, line.strip()


def agrees(reading: Reading, line: str) -> None:
    """The parser's single pass finds what the plain way finds, and as little left over."""
    found, left = plainly(line)
    assert left == ""
    assert reading.unknown == ()
    assert reading.rails_mw == {name: int(mw) for name, mw, *_ in found["rail"] if name != "NC"}
    assert reading.temperatures_c == {name: float(c) for name, c, _ in found["temperature"] if float(c) > -200}
    assert reading.ram_mb == next((Ram(int(one[0]), int(one[1])) for one in found["ram"]), None)
    ((percent, clocks, clock),) = found["gpu"]
    assert reading.gpu_percent == (int(percent) if percent else None)
    assert reading.gpu_mhz == max((int(one) for one in (clocks or clock).split(",") if one), default=None)
    ((cores, shared),) = found["cpu"]
    assert reading.cpu == tuple(core(text, shared) for text in cores.split(","))


def core(text: str, shared: str) -> "CpuCore | None":
    """A core by hand."""
    if text == "off":
        return None
    percent, _, mhz = text.partition("%@" if "@" in text else "%")
    return CpuCore(int(percent), int(mhz or shared) if mhz or shared else None)


def recorded() -> Dict[str, List[str]]:
    """Lines by file; skips where there are none."""
    files = sorted((RECORDED / "tegrastats").glob("*.log"))
    if not files:
        pytest.skip(f"no recorded lines under {RECORDED}/tegrastats (WENET_RECORDED_DATA)")
    return {path.stem: path.read_text().splitlines() for path in files}


class TestRecordedLines:
    """Lines that real boards printed."""

    def test_every_line_is_understood_to_its_last_word_and_as_the_plain_grammar_says(self) -> None:
        for lines in recorded().values():
            for line in lines:
                agrees(parse_line(line), line)

    def test_there_are_as_many_as_the_facts_say(self) -> None:
        lines = recorded()
        boards: Dict[str, int] = {}
        for name, found in lines.items():
            board = re.match(r"nano|tx1|tx2|agx-xavier|xavier-nx|orin-n[a-z]+|agx-orin|agx-thor", name)
            assert board is not None, name
            boards[board.group()] = boards.get(board.group(), 0) + len(found)
        assert boards == {
            "nano": 141,
            "tx1": 4,
            "tx2": 5,
            "agx-xavier": 3,
            "xavier-nx": 109,
            "orin-nano": 2,
            "orin-nx": 1,
            "agx-orin": 49,
            "agx-thor": 3,
        }

    def test_totals_are_what_such_a_board_can_draw(self) -> None:
        for name, lines in recorded().items():
            totals = [parse_line(line).total_mw for line in lines]
            if name.endswith("norails"):
                assert set(totals) == {None}, name
            elif name == "nano-10-customcarrier":
                assert set(totals) == {None}  # its labels are rotated
            else:
                floor_mw, most_mw = (500, 12_000) if name.startswith("nano") else (1_000, 60_000)
                assert all(total is not None and floor_mw < total < most_mw for total in totals), name

    def test_a_busy_gpu_and_cores_that_are_off_are_seen(self) -> None:
        lines = recorded()
        nano = [parse_line(line) for line in lines["nano-1"]]
        assert max(reading.gpu_percent or 0 for reading in nano) == 99
        assert max(reading.gpu_mhz or 0 for reading in nano) == 921
        assert parse_line(lines["nano-15-5w-norails"][0]).cpu == (CpuCore(28, 921), CpuCore(19, 921), None, None)
        assert set(parse_line(lines["agx-orin-6-series"][0]).cpu[8:]) == {None}


class TestComposedLines:
    """Every kind of board, from the grammar."""

    @pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
    def test_a_line_says_what_it_was_composed_of(self, board: Board) -> None:
        for seed in range(50):
            line, reading = composed(board, seed)
            assert parse_line(line) == reading
            agrees(parse_line(line), line)

    @pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
    def test_words_of_a_later_release_are_skipped_and_told(self, board: Board) -> None:
        line, reading = composed(board, 1)
        parsed = parse_line(line.replace("RAM", "NPU{7} RAM", 1) + " quantum=on")
        assert parsed.unknown == ("NPU{7}", "quantum=on")
        assert parsed.rails_mw == reading.rails_mw
        assert parsed.cpu == reading.cpu


class TestValues:
    """Single fields."""

    def test_a_rail_and_a_temperature_and_the_cores_may_share_a_name(self) -> None:
        reading = parse_line(
            "CPU [7%@1190,off] GPU@37C CPU@38.5C GPU 0/16 CPU 311/300 SOC 1/1 CV 2/2 VDDRQ 3/3 SYS5V 4/4"
        )
        assert reading.temperatures_c == {"GPU": 37.0, "CPU": 38.5}
        assert reading.rails_mw == {"GPU": 0, "CPU": 311, "SOC": 1, "CV": 2, "VDDRQ": 3, "SYS5V": 4}
        assert reading.total_mw == 321
        assert reading.cpu == (CpuCore(7, 1190), None)

    def test_the_momentary_value_counts_not_the_mean_nor_the_highest(self) -> None:
        assert parse_line("VIN 7953mW/8332mW/8710mW").total_mw == 7953

    def test_unconnected_rails_and_sensors_without_power_are_left_out(self) -> None:
        reading = parse_line("GPU@-256C CV0@-200C tj@-12.5C PMIC@300C NC 0mW/0mW VDD_IN 5mW/5mW NC 9mW/9mW")
        assert reading.temperatures_c == {"tj": -12.5}
        assert reading.rails_mw == {"VDD_IN": 5}

    def test_a_line_without_rails_has_no_total_rather_than_zero(self) -> None:
        reading = parse_line("RAM 1889/1980MB (lfb 16x256kB) CPU [6%@102] GR3D_FREQ 0% GPU@29C")
        assert (reading.rails_mw, reading.total_mw) == ({}, None)
        assert reading.known
        assert reading.ram_mb == Ram(1889, 1980)

    def test_rotated_labels_have_no_total(self) -> None:
        assert parse_line("POM_5V_GPU 8949/8742 POM_5V_IN 3227/3086 POM_5V_CPU 3148/3134").total_mw is None

    def test_a_gpu_may_tell_neither_load_nor_clock(self) -> None:
        assert parse_line("GR3D_FREQ @0").gpu_mhz == 0
        assert parse_line("GR3D_FREQ @0").gpu_percent is None
        assert parse_line("GR3D_FREQ 5%").gpu_mhz is None
        assert parse_line("GR3D_FREQ 5%@[305,918,0]").gpu_mhz == 918

    def test_a_cut_line_says_what_was_whole(self) -> None:
        cut = "CPU [5%@102] VDD_IN 14703/14690 VDD_CPU_GPU_CV 10874/10887 VDD_SO"
        assert parse_line(cut).rails_mw == {"VDD_IN": 14703, "VDD_CPU_GPU_CV": 10874}
        assert parse_line(cut[:30]).rails_mw == {"VDD_IN": 14703}  # its mean is wrong, which nobody reads
        assert parse_line(cut[:24]).rails_mw == {}

    def test_what_is_glued_to_another_field_is_no_field(self) -> None:
        assert parse_line("CPU [5%@102]VDD_IN 5/5 RAM 1/2MB (lfb 1x4MB)APE@7C").rails_mw == {}
        assert parse_line("CPU [5%@102] RAM 1/2MB (lfb 1x4MB)APE@7C").temperatures_c == {}

    def test_any_of_cores_memory_and_rails_makes_it_a_line_of_tegrastats(self) -> None:
        assert parse_line("CPU [5%@102]").known
        assert parse_line("RAM 1/2MB (lfb 1x4MB)").known
        assert parse_line("VDD_IN 5/5").known
        assert not parse_line("tegrastats: GPU@5C APE 150 no").known

    @pytest.mark.parametrize(
        "text",
        [
            "VDD_IN 99999999/1",
            "VDD_IN " + "9" * 5000 + "/1",
            "VDD_IN -5/5",
            "VDD_IN 5.5/5.5",
            "VDD_IN ٣٣/٣٣",
            "VDD_IN5/5",
            "xVDD_IN@5/5",
        ],
    )
    def test_what_is_no_power_of_any_board_is_none(self, text: str) -> None:
        assert parse_line(text).total_mw is None
        assert not parse_line(text).known

    def test_a_share_beyond_all_is_none(self) -> None:
        reading = parse_line("CPU [101%@102,100%@102,2%@99999999,x,,3% y] GR3D_FREQ 101%@76")
        assert reading.cpu == (None, CpuCore(100, 102), None, None, None, None)
        assert (reading.gpu_percent, reading.gpu_mhz) == (None, 76)

    def test_clocks_beyond_all_are_none(self) -> None:
        assert parse_line("GR3D_FREQ 5%@[,99999999999,]").gpu_mhz is None
        assert parse_line("PMIC@1e999C X@" + "9" * 400 + "C").temperatures_c == {}

    @pytest.mark.parametrize(
        "piece",
        ["CPU [", "RAM 1/1MB (lfb ", "A", "A 1", "GR3D @[1,", "1.", "MTS fg 1% bg ", " ", "A@1.1C/", "\0", "99"],
    )
    def test_time_grows_no_faster_than_the_text(self, piece: str) -> None:
        # A search that starts over at every place would take hours for these, and pytest's time limit would end it.
        for text in (piece * 200_000, "CPU [" + piece * 200_000, (piece + " ") * 200_000):
            parse_line(text)


LINES = [composed(board, seed)[0] for board in BOARDS for seed in range(10)]
WORDS = sorted({word for line in LINES[::10] for word in line.split(" ")} | {"[", "]", "@", "%", "/", "9" * 5000})
PIECES = st.sampled_from(WORDS)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A line of some board that was cut, repeated, glued or written over in places."""
    line = draw(st.sampled_from(LINES))
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, len(line)))
        last = draw(st.integers(first, min(len(line), first + 40)))
        new = draw(st.one_of(st.just(""), PIECES, st.text(max_size=5), st.just(line[first:last] * 2)))
        line = line[:first] + new + line[last:]
    return line


def stands(line: str) -> None:
    """Whatever a line is, what is read from it could be true."""
    reading = parse_line(line)
    assert all(0 <= mw < 10_000_000 for mw in reading.rails_mw.values())
    assert "NC" not in reading.rails_mw
    assert all(-200 < degrees_c < 300 for degrees_c in reading.temperatures_c.values())
    assert reading.total_mw is None or 0 <= reading.total_mw <= sum(reading.rails_mw.values())
    for one in (reading.gpu_percent, *(core.percent for core in reading.cpu if core is not None)):
        assert one is None or 0 <= one <= 100


FUZZED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.timeout(300 + EXAMPLES // 20)
class TestAnyText:
    """`WENET_FUZZ_EXAMPLES` raises the number of each kind."""

    @FUZZED
    @given(damaged())
    def test_a_damaged_line_never_raises(self, line: str) -> None:
        stands(line)

    @FUZZED
    @given(st.text(st.characters(), max_size=200))
    @example("\ud800 VDD_IN 5/5 \0")
    @example("VDD_IN " + "1" * 5000 + "/1")
    @example("tj@" + "9" * 5000 + "C")
    def test_any_text_never_raises(self, line: str) -> None:
        stands(line)

    @FUZZED
    @given(st.lists(PIECES, max_size=30).map(" ".join))
    def test_words_in_any_order_never_raise(self, line: str) -> None:
        stands(line)
