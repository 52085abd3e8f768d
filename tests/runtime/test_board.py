"""What a board says of itself, on composed trees."""

from pathlib import Path
from typing import Optional

import pytest

from tests.runtime.sysfs_trees import write
from wenet_runtime.board import JETPACKS, Board, jetpack_of, read_board

NANO_RELEASE = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 2022"


def nano(root: Path) -> Path:
    path = root / "proc/device-tree/model"
    write(path, "")
    path.write_text("NVIDIA Jetson Nano Developer Kit\0")
    write(root / "etc/nv_tegra_release", NANO_RELEASE)
    write(root / "var/lib/nvpmodel/status", "pmode:0001")
    write(root / "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >")
    write(root / "sys/class/devfreq/57000000.gpu/max_freq", 921600000)
    write(root / "sys/class/devfreq/13000000.emc/max_freq", 1600000000)
    write(root / "sys/devices/gpu.0/load", 0)
    return root


def test_a_nano_says_all_of_it(tmp_path: Path) -> None:
    assert read_board(nano(tmp_path), {}) == Board(
        model="NVIDIA Jetson Nano Developer Kit",
        l4t="32.7.1",
        jetpack="4.6.1",
        tegra=True,
        power_setting="5W",
        gpu="57000000.gpu",
        gpu_load=tmp_path / "sys/devices/gpu.0/load",
    )


def test_a_machine_that_says_nothing_is_no_tegra(tmp_path: Path) -> None:
    assert read_board(tmp_path, {}) == Board()


def test_a_container_is_told_the_model_by_its_environment(tmp_path: Path) -> None:
    told = {"WENET_BOARD_MODEL": "NVIDIA Jetson Orin Nano"}
    assert read_board(tmp_path, told) == Board(model="NVIDIA Jetson Orin Nano", tegra=True)
    assert read_board(nano(tmp_path), told).model == "NVIDIA Jetson Orin Nano"
    assert read_board(tmp_path, {"WENET_BOARD_MODEL": ""}).model == "NVIDIA Jetson Nano Developer Kit"


def test_any_one_sign_of_a_tegra_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "a/etc/nv_tegra_release", NANO_RELEASE)
    write(tmp_path / "b/proc/device-tree/compatible", "someone,board\0nvidia,tegra234\0")
    assert read_board(tmp_path / "a", {}).tegra
    assert read_board(tmp_path / "b", {}).tegra
    assert not read_board(tmp_path / "c", {"WENET_BOARD_MODEL": "Some PC"}).tegra


@pytest.mark.parametrize(
    ("name", "gpu"),
    [("57000000.gpu", True), ("17000000.gv11b", True), ("17000000.ga10b", True), ("17000000.gp10b", True),
     ("gpu", True), ("13000000.emc", False), ("15340000.vic", False), ("gpufoo", False)],
)  # fmt: skip
def test_the_gpu_is_told_from_other_clocks_by_its_name(name: str, gpu: bool, tmp_path: Path) -> None:
    (tmp_path / "sys/class/devfreq" / name).mkdir(parents=True)
    assert read_board(tmp_path, {}).gpu == (name if gpu else None)


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("32.6.1", "4.6"), ("32.7.1", "4.6.1"), ("32.7.6", "4.6.6"), ("32.7.9", "4.6.x"), ("35.1", "5.0.2"),
     ("35.1.0", "5.0.2"), ("35.4.1", "5.1.x"), ("36.3.0", "6.0"), ("36.4.4", "6.1 or 6.2"), ("38.2", "7.x"),
     ("32.5.1", None), ("28.1", None), ("36.40", None)],
)  # fmt: skip
def test_the_jetpack_follows_from_the_release(l4t: str, jetpack: Optional[str]) -> None:
    assert jetpack_of(l4t) == jetpack


def test_every_release_of_the_table_is_found_by_itself() -> None:
    assert {release: jetpack_of(release) for release in JETPACKS} == JETPACKS


@pytest.mark.parametrize("text", ["", "no release", "# R32", "# R32 (release), REVISION: x", "\0\0"])
def test_a_release_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    write(tmp_path / "etc/nv_tegra_release", text)
    board = read_board(tmp_path, {})
    assert (board.l4t, board.jetpack, board.tegra) == (None, None, False)
