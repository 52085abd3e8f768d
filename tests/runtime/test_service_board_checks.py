"""What doctor says of a board, on composed trees: a Nano, an Orin, a container's view, no Jetson."""

from pathlib import Path
from typing import Any, Dict

import pytest

from tests.runtime import board_roots, sysfs_trees
from tests.runtime.sysfs_trees import write
from wenet_runtime.board import Board, read_board
from wenet_runtime.device_state import DeviceState, read_state
from wenet_runtime.service.board_checks import check_board, check_clocks, check_rails
from wenet_runtime.service.check import OK, SKIPPED, WARN, Check


def board_of(root: Path) -> Board:
    return read_board(root, environ={})


def checks(root: Path) -> Dict[str, Check]:
    return {one.name: one for one in check_board(board_of(root))}


def clocks(root: Path) -> Check:
    return check_clocks(board_of(root), read_state(root / "sys"), root / "sys")


def test_a_nano_says_what_it_is(tmp_path: Path) -> None:
    found = checks(board_roots.nano(tmp_path))
    assert {name: (one.status, one.found) for name, one in found.items()} == {
        "board": (OK, "NVIDIA Jetson Nano Developer Kit"),
        "L4T": (OK, "32.7.1"),
        "JetPack": (OK, "4.6.1"),
        "power setting": (OK, "5W"),
    }


def test_an_orin_says_what_it_is(tmp_path: Path) -> None:
    found = checks(board_roots.orin_nano(tmp_path))
    assert [found[name].found for name in ("L4T", "JetPack", "power setting")] == ["36.4.3", "6.1 or 6.2", "MAXN"]


def test_in_a_container_it_says_what_to_pass_into_it(tmp_path: Path) -> None:
    found = checks(board_roots.container(tmp_path))
    assert {name: one.status for name, one in found.items()} == {
        "board": WARN,
        "L4T": OK,
        "JetPack": OK,
        "power setting": WARN,
    }
    assert "-e WENET_BOARD_MODEL=" in found["board"].remedy
    assert "mount /var/lib/nvpmodel" in found["power setting"].remedy


def test_a_release_that_is_not_known_is_no_jetpack(tmp_path: Path) -> None:
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson Future")
    write(tmp_path / "etc/nv_tegra_release", "# R99 (release), REVISION: 1.0")
    found = checks(tmp_path)
    assert (found["L4T"].found, found["JetPack"].status) == ("99.1.0", WARN)
    (tmp_path / "etc/nv_tegra_release").unlink()
    assert "mount the file" in checks(tmp_path)["L4T"].remedy


def test_another_machine_has_no_jetson_s_settings(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert (found["board"].status, found["board"].found[:9]) == (OK, "no Jetson")
    assert {found[name].status for name in ("L4T", "JetPack", "power setting")} == {SKIPPED}


def test_a_clock_that_follows_the_load_is_told_with_what_pins_it(tmp_path: Path) -> None:
    found = clocks(board_roots.nano(tmp_path))
    assert found.status == WARN
    assert found.found == (
        "processor 1479 of 1479 MHz, GPU 76 of 921 MHz, hottest 41 °C; the GPU's clock follows its load"
    )
    assert "`sudo jetson_clocks` pins it" in found.remedy
    assert found.data["clocks_mhz"]["57000000.gpu"] == 76


def test_pinned_clocks_are_fine(tmp_path: Path) -> None:
    found = clocks(board_roots.orin_nano(tmp_path))
    assert (found.status, found.found) == (OK, "processor 1479 of 1479 MHz, GPU 624 of 624 MHz, hottest 41 °C")


def test_a_desktop_gpu_s_clock_may_follow_its_load(tmp_path: Path) -> None:
    root = board_roots.nano(tmp_path)
    for path in ("proc/device-tree/model", "etc/nv_tegra_release"):
        (root / path).unlink()
    assert clocks(root).status == OK


def test_a_device_that_is_slowed_says_so(tmp_path: Path) -> None:
    root = board_roots.orin_nano(tmp_path)
    write(root / "sys/class/thermal/cooling_device0/type", "gpu-throttle")
    write(root / "sys/class/thermal/cooling_device0/cur_state", 2)
    found = clocks(root)
    assert (found.status, found.remedy) == (WARN, "cool the board, or lower its load")
    assert found.found.endswith("; slowed because of heat")


def test_where_nothing_tells_clocks_they_are_skipped(tmp_path: Path) -> None:
    assert clocks(tmp_path).status == SKIPPED
    assert check_clocks(Board(), DeviceState(read_state(tmp_path).conditions), tmp_path).status == SKIPPED


def test_rails_that_may_be_read_are_told_with_their_watts(tmp_path: Path) -> None:
    sysfs_trees.nano(tmp_path, milliamperes=400)
    found = check_rails(tmp_path)
    assert (found.status, found.found) == (OK, "POM_5V_IN 2000 mW, POM_5V_GPU 80 mW, POM_5V_CPU 400 mW")
    assert found.data["rails_mw"]["POM_5V_IN"] == 2000


def test_rails_that_may_not_be_read_are_told_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs_trees.nano(tmp_path)

    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wenet_runtime.meters.sysfs.read_file", refused)
    found = check_rails(tmp_path)
    assert found.status == WARN
    assert "may not be read by this user" in found.found
    assert found.remedy.startswith("run as root (in a container as uid 0)")
    assert "sudo chmod o+r /sys/bus/i2c/drivers/ina3221x/" in found.remedy


def test_a_rail_that_does_not_answer_now_is_shown_as_such(tmp_path: Path) -> None:
    device = sysfs_trees.nano(tmp_path)
    write(device / "in_power1_input", "")
    found = check_rails(tmp_path)
    assert (found.status, "POM_5V_GPU – mW" in found.found) == (OK, True)


def test_without_a_sensor_there_is_nothing_to_read(tmp_path: Path) -> None:
    found = check_rails(tmp_path)
    assert (found.status, found.remedy) == (SKIPPED, "")
    assert "no Jetson, or one without a sensor (Nano 2GB)" in found.found
