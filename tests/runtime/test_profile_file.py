"""`profile.json`: read as it was written, by older versions too, and believed only when it is possible."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from wenet_runtime.device import Device
from wenet_runtime.profile_file import DeviceProfile, read_profile, write_profile
from wenet_runtime.selection import Left, Selected

DEVICE = Device("aarch64", "a processor", "neon", 4, "ort", "1.0", 1)
MODES = {name: dataclasses.replace(profile(ms), batch_ms={1: ms, 8: 6 * ms}) for name, ms in MEDIANS_MS.items()}
SELECTED = Selected(2, ("m2", "m0"), (Left("m1", "not measurably faster than m2"),))
FOUND = DeviceProfile(MODES, "sim", "2024-01-01T00:00:00+00:00", {"start": {"clocks_mhz": {"cpu0": 921.6}}}, SELECTED)


def read(folder: Path, **other: Any) -> Any:
    return read_profile(folder, **{"bundle_sha256": "b", "device": DEVICE, "modes": list(MODES), **other})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_profile(tmp_path, FOUND, bundle_sha256="b", device=DEVICE)
    return tmp_path


def edit(folder: Path, change: Callable[[Dict[str, Any]], Any]) -> None:
    members = json.loads((folder / "profile.json").read_text())
    change(members)
    (folder / "profile.json").write_text(json.dumps(members))


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    assert read(folder) == FOUND
    assert read(folder.parent) is None


def test_a_file_of_a_version_without_batches_conditions_or_choice_is_read(folder: Path) -> None:
    def older(members: Dict[str, Any]) -> None:
        del members["conditions"], members["selected"]
        for figures in members["modes"].values():
            del figures["batch_ms"], figures["threads"]

    edit(folder, older)
    plain = {name: dataclasses.replace(one, batch_ms=None) for name, one in MODES.items()}
    assert read(folder) == DeviceProfile(plain, "sim", "2024-01-01T00:00:00+00:00")


def test_only_a_profile_of_this_meter_and_of_all_wanted_modes_serves(folder: Path) -> None:
    found = read(folder)
    assert found.of("sim", ["m0"]) == MODES
    assert found.of("none", ["m0"]) is None
    with pytest.warns(UserWarning, match="measuring again"):
        assert found.of("sim", ["m0", "m9"]) is None


DAMAGES: List[Callable[[Dict[str, Any]], Any]] = [
    lambda members: members["modes"]["m1"].update(batch_ms={"0": 1.0}),
    lambda members: members["modes"]["m1"].update(batch_ms={"four": 1.0}),
    lambda members: members["modes"]["m1"].update(batch_ms={"4": -1.0}),
    lambda members: members["modes"]["m1"].update(batch_ms={"4": "slow"}),
    lambda members: members["modes"]["m1"].update(batch_ms=[1.0]),
    lambda members: members.pop("measured_at"),
    lambda members: members.update(conditions=3),
    lambda members: members.update(selected=[]),
    lambda members: members["selected"].update(modes=[]),
    lambda members: members["selected"].update(modes=["m9"]),
    lambda members: members["selected"].update(modes=["m0", "m0"]),
    lambda members: members["selected"].update(modes=["m0", "m1"]),  # m1 is left out as well
    lambda members: members["selected"].update(modes=[["m0"]]),
    lambda members: members["selected"].update(left={"../m1": "why"}),
    lambda members: members["selected"].pop("left"),
    lambda members: members["selected"].update(wanted="two"),
    lambda members: members["selected"].update(wanted=float("inf")),
    lambda members: members["modes"]["m1"].update(p99_ms=10**400),
    lambda members: members["modes"]["m1"].update(energy_mj=10**400),
    lambda members: members.update(more="x" * (17 << 20)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_ignored_with_a_warning(folder: Path, damage: Callable[[Dict[str, Any]], Any]) -> None:
    edit(folder, damage)
    with pytest.warns(UserWarning, match="measuring again"):
        assert read(folder) is None


def test_another_bundle_s_or_device_s_file_is_ignored_with_a_warning(folder: Path) -> None:
    for other in ({"bundle_sha256": "c"}, {"device": dataclasses.replace(DEVICE, threads=2)}, {"modes": ["m0", "m1"]}):
        with pytest.warns(UserWarning, match="measuring again"):
            assert read(folder, **other) is None
