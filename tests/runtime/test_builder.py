"""The device's cache: built once, trusted only when intact and its own, readable by its owner alone."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from tests.runtime.fakes import MEDIANS_MS, profile
from tests.supernets import run
from wenet_runtime.builder import Device, DeviceCache, this_device
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import EngineError
from wenet_runtime.profile import Profile

DEVICE = Device("x86_64", "a processor", 4, "ort", "1.0", 1)
PROFILES = {name: profile(p50_ms, energy_mj=1.5) for name, p50_ms in MEDIANS_MS.items()}


@pytest.fixture
def cache(bundle: Bundle, tmp_path: Path) -> DeviceCache:
    return DeviceCache(tmp_path / "cache", bundle, DEVICE)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """The modes that were materialized, not read from the cache."""
    seen: List[str] = []
    build = DeviceCache._build

    def counted(self: DeviceCache, mode: Any) -> bytes:
        seen.append(mode.id)
        return build(self, mode)

    monkeypatch.setattr(DeviceCache, "_build", counted)
    return seen


def test_it_lies_below_the_bundle_s_and_the_device_s_identity(
    bundle: Bundle, cache: DeviceCache, tmp_path: Path
) -> None:
    assert cache.path == tmp_path / "cache" / bundle.sha256 / DEVICE.fingerprint
    assert cache.path.is_dir()


@pytest.mark.parametrize(
    "other",
    [
        {"machine": "aarch64"},
        {"processor": "another"},
        {"cores": 2},
        {"engine": "sim"},
        {"engine_version": "1.1"},
        {"threads": 2},
        {"runtime_version": "9.9"},
    ],
)
def test_whatever_figures_depend_on_changes_the_fingerprint(other: Dict[str, Any]) -> None:
    assert dataclasses.replace(DEVICE, **other).fingerprint != DEVICE.fingerprint
    assert len(DEVICE.fingerprint) == 16


def test_this_device_is_described_the_same_twice() -> None:
    assert this_device("ort", "1", 1) == this_device("ort", "1", 1)
    assert this_device("ort", "1", 1).cores >= 1
    assert this_device("ort", "1", 1).processor


def test_a_device_without_a_processor_list_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: Path, *args: Any, **more: Any) -> str:
        raise OSError(2, "No such file")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert this_device("ort", "1", 1).processor


def test_only_the_owner_may_read_it(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    cache.write_profiles(PROFILES, meter="none", measured_at="now")
    assert cache.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in cache.path.iterdir()} == {0o600}


def test_a_cache_that_others_could_read_is_closed_to_them(cache: DeviceCache, bundle: Bundle, tmp_path: Path) -> None:
    cache.path.chmod(0o755)
    DeviceCache(tmp_path / "cache", bundle, DEVICE)
    assert cache.path.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_made_says_where_to_put_it(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="choose another --cache-dir"):
        DeviceCache(tmp_path / "file", bundle, DEVICE)


def test_a_model_is_built_once_and_then_read(cache: DeviceCache, bundle: Bundle, builds: List[str]) -> None:
    first, second = (cache.model(bundle.mode("m1")) for _ in range(2))
    assert first == second
    assert builds == ["m1"]


def test_building_makes_every_mode_and_tells_so(cache: DeviceCache, builds: List[str]) -> None:
    told: List[Tuple[str, int, int]] = []
    cache.build(lambda what, done, total: told.append((what, done, total)))
    assert builds == ["m2", "m1", "m0"]
    assert told[0] == ("building m2", 0, 3)
    cache.build()
    assert builds == ["m2", "m1", "m0"]


def test_what_is_built_is_the_mode(cache: DeviceCache, bundle: Bundle) -> None:
    golden = bundle.golden()
    found = run(cache.model(bundle.mode("m1")), golden["input.input"])
    assert abs(found - golden["m1.logits"]).max() < 1e-4


@pytest.mark.parametrize("suffix", ["onnx", "sha256"])
@pytest.mark.parametrize("damage", [b"", b"damaged", b"\xff\xfe"])
def test_a_damaged_entry_is_built_again_with_a_warning(
    cache: DeviceCache, bundle: Bundle, builds: List[str], suffix: str, damage: bytes
) -> None:
    intact = cache.model(bundle.mode("m1"))
    (cache.path / f"m1.{suffix}").write_bytes(damage)
    with pytest.warns(UserWarning, match="cached model of mode 'm1' is damaged: building it again"):
        assert cache.model(bundle.mode("m1")) == intact
    assert cache.model(bundle.mode("m1")) == intact
    assert builds == ["m1", "m1"]


def test_another_device_s_entry_is_not_used(
    cache: DeviceCache, bundle: Bundle, builds: List[str], tmp_path: Path
) -> None:
    cache.model(bundle.mode("m1"))
    DeviceCache(tmp_path / "cache", bundle, dataclasses.replace(DEVICE, threads=2)).model(bundle.mode("m1"))
    assert builds == ["m1", "m1"]


def test_a_profile_is_read_as_it_was_written(cache: DeviceCache) -> None:
    assert cache.read_profiles("none") is None
    cache.write_profiles(PROFILES, meter="none", measured_at="2024-01-01T00:00:00+00:00")
    assert cache.read_profiles("none") == PROFILES


def edited(change: Callable[[Dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        members = json.loads(path.read_text())
        change(members)
        path.write_text(json.dumps(members))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"{"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b"[]"),
        lambda path: path.write_bytes(b'{"modes": 3}'),
        lambda path: (path.unlink(), path.mkdir()),
        edited(lambda members: members["modes"].pop("m1")),
        edited(lambda members: members["modes"].update(m9=members["modes"]["m1"])),
        edited(lambda members: members["modes"]["m1"].update(surprise=1)),
        edited(lambda members: members["modes"]["m1"].update(p50_ms=0)),
        edited(lambda members: members["modes"]["m1"].update(p50_ms=-1.0)),
        edited(lambda members: members["modes"]["m1"].update(p50_ms="fast")),
        edited(lambda members: members["modes"]["m1"].update(p99_ms=None)),
        edited(lambda members: members["modes"]["m1"].update(p99_ms=0.001)),
        edited(lambda members: members["modes"]["m1"].update(p95_ms=math.nan)),
        edited(lambda members: members["modes"]["m1"].update(p99_ms=math.inf)),
        edited(lambda members: members["modes"]["m1"].update(energy_mj="much")),
        edited(lambda members: members.update(bundle_sha256="another")),
        edited(lambda members: members["device"].update(threads=2)),
    ],
)
def test_a_damaged_or_foreign_profile_is_ignored_with_a_warning(
    cache: DeviceCache, damage: Callable[[Path], Any]
) -> None:
    cache.write_profiles(PROFILES, meter="none", measured_at="now")
    damage(cache.path / "profile.json")
    with pytest.warns(UserWarning, match="measuring again"):
        assert cache.read_profiles("none") is None


def test_an_intact_cache_warns_of_nothing(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    cache.write_profiles({name: Profile(1.0, 1.0, 1.0, 5) for name in MEDIANS_MS}, meter="none", measured_at="now")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.build()
        assert cache.read_profiles("none") is not None
    assert caught == []


def test_serving_from_a_warm_cache_never_imports_onnx(bundle_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from wenet_runtime.bundle import Bundle; from pathlib import Path;"
        "from wenet_runtime.builder import DeviceCache, this_device;"
        "DeviceCache(Path(sys.argv[2]), Bundle(Path(sys.argv[1])), this_device('ort', '1', 1)).build();"
        "print('onnx' in sys.modules)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(bundle_path), str(tmp_path / "c")],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            env={**os.environ},
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == [b"True", b"False"]


def test_a_profile_made_with_another_meter_is_measured_again(cache: DeviceCache) -> None:
    cache.write_profiles(PROFILES, meter="sim", measured_at="now")
    assert cache.read_profiles("none") is None
    assert cache.read_profiles("sim") == PROFILES
