"""Which rails are the whole board, on every kind of board that lines were recorded on."""

import re
from typing import Dict, Iterator, Optional, Tuple

import pytest

from tests.recorded import RECORDED
from wenet_runtime.meters.rails import Total, rotated, total_rails, whole_board

# A rail as tegrastats prints it. The parser proper is tested elsewhere: this one only finds rails.
RAIL = re.compile(r"(?<!\S)([A-Za-z]\w*)\s+(\d+)(?:mW)?/\d+(?:mW)?(?:/\d+(?:mW)?)?(?=\s|$)")

XAVIER = {"GPU": 100, "CPU": 200, "SOC": 300, "CV": 1, "VDDRQ": 2, "SYS5V": 3}
ORIN = {"VDD_GPU_SOC": 2000, "VDD_CPU_CV": 800, "VIN_SYS_5V0": 3000}
THOR = {"VDD_GPU": 4000, "VDD_CPU_SOC_MSS": 7000, "VIN_SYS_5V0": 5000}
ROTATED = {"POM_5V_GPU": 8000, "POM_5V_IN": 3000, "POM_5V_CPU": 3100}


@pytest.mark.parametrize(
    ("rails_mw", "total"),
    [
        ({"POM_5V_IN": 900, "POM_5V_GPU": 40, "POM_5V_CPU": 120}, Total(900, ("POM_5V_IN",))),
        ({"VDD_IN": 5000, "VDD_CPU_GPU_CV": 1500, "VDD_SOC": 1400}, Total(5000, ("VDD_IN",))),
        ({"VDD_SYS_GPU": 150, "VDD_SYS_SOC": 680, "VDD_IN": 3000, "VDD_SYS_CPU": 150}, Total(3000, ("VDD_IN",))),
        (XAVIER, Total(606, tuple(XAVIER))),
        (ORIN, Total(5800, tuple(ORIN))),
        ({**ORIN, "VDDQ_VDD2_1V8AO": 600, "NC": 7}, Total(5800, tuple(ORIN))),
        (THOR, Total(16000, tuple(THOR))),
        ({**THOR, "VIN": 21000}, Total(21000, ("VIN",))),
        ({}, None),
        ({"GPU": 100, "CPU": 200}, None),
        ({"NC": 100}, None),
    ],
)
def test_the_whole_board_is_its_input_or_the_sum_of_what_is_known_to_be_all(
    rails_mw: Dict[str, int], total: Optional[Total]
) -> None:
    assert whole_board(rails_mw) == total


@pytest.mark.parametrize(
    ("rail", "total"),
    [
        ("POM_5V_GPU", Total(8000, ("POM_5V_GPU",))),
        ("POM_5V_GPU + POM_5V_CPU", Total(11100, ("POM_5V_GPU", "POM_5V_CPU"))),
        ("POM_5V_GPU+POM_5V_GPU", Total(8000, ("POM_5V_GPU",))),
        ("VDD_IN", None),
        ("POM_5V_GPU+VDD_IN", None),
    ],
)
def test_a_configured_rail_is_taken_as_it_is_and_unknown_if_it_is_not_there(rail: str, total: Optional[Total]) -> None:
    assert whole_board(ROTATED, rail) == total


def test_an_input_that_draws_less_than_what_it_feeds_says_nothing_and_why() -> None:
    assert whole_board(ROTATED) is None
    why = rotated(ROTATED)
    assert why is not None
    assert "POM_5V_GPU 8000 mW" in why
    assert "--power-rail" in why


@pytest.mark.parametrize(("input_mw", "told"), [(599, True), (600, False)])
def test_a_light_load_may_be_off_by_half_a_watt(input_mw: int, told: bool) -> None:
    rails_mw = {"POM_5V_IN": input_mw, "POM_5V_GPU": 100, "POM_5V_CPU": 1000, "NC": 9000}
    assert (rotated(rails_mw) is not None) == told


@pytest.mark.parametrize(("input_mw", "told"), [(7499, True), (7500, False)])
def test_a_heavy_one_by_a_quarter(input_mw: int, told: bool) -> None:
    rails_mw = {"VDD_IN": input_mw, "VDD_CPU_GPU_CV": 9000, "VDD_SOC": 1000}
    assert (rotated(rails_mw) is not None) == told


def test_a_board_without_an_input_rail_has_no_labels_to_doubt() -> None:
    assert rotated(ORIN) is None


def test_the_rails_to_read_follow_from_their_names_alone() -> None:
    assert total_rails(["VDD_SOC", "VDD_IN"]) == ("VDD_IN",)
    assert total_rails(["NC"], "NC") == ("NC",)  # whoever configures it knows
    assert total_rails(["VDD_SOC"]) is None


def recorded() -> Iterator[Tuple[str, Dict[str, int]]]:
    for path in sorted((RECORDED / "tegrastats").glob("*.log")):
        for line in path.read_text().splitlines():
            rails_mw = {one.group(1): int(one.group(2)) for one in RAIL.finditer(line)}
            if rails_mw:
                yield path.name, rails_mw


@pytest.mark.skipif(not (RECORDED / "tegrastats").is_dir(), reason="no recorded lines: set WENET_RECORDED_DATA")
def test_of_the_recorded_boards_only_the_one_with_rotated_labels_is_told_so() -> None:
    lines = list(recorded())
    assert len(lines) > 250
    assert {name for name, rails_mw in lines if rotated(rails_mw) is not None} == {"nano-10-customcarrier.log"}
    for name, rails_mw in lines:
        total = whole_board(rails_mw)
        assert (total is None) == (name == "nano-10-customcarrier.log"), name
        if total is not None:
            assert max(rails_mw.values()) <= total.mw <= sum(rails_mw.values())
