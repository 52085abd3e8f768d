"""The device's cache: built once, trusted only when intact and its own, readable by its owner alone."""

import dataclasses
import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np
import pytest

from tests.runtime.fakes import MEDIANS_MS, PATIENCE_S, profile
from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.device import Device
from wenet_runtime.engines.base import Artifact
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.errors import EngineError
from wenet_runtime.materialize import Supernet
from wenet_runtime.profile import Profile
from wenet_runtime.profile_file import DeviceProfile
from wenet_runtime.selection import Left, Selected

DEVICE = Device("x86_64", "a processor", "avx", 4, "ort", "1.0", 1)
PROFILES = {name: profile(p50_ms, energy_mj=1.5) for name, p50_ms in MEDIANS_MS.items()}


@pytest.fixture
def cache(bundle: Bundle, tmp_path: Path) -> DeviceCache:
    return DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend())


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the numbers are equal to the bit."""
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def answers_its_golden_input(cache: DeviceCache, bundle: Bundle, mode_id: str) -> bool:
    golden, mode = bundle.golden(), bundle.mode(mode_id)
    engine = OrtBackend().load(mode, lambda: cache.artifact(mode))
    try:
        found = engine.infer({"input": golden["input.input"]})["logits"]
    finally:
        engine.close()
    return float(abs(found - golden[f"{mode_id}.logits"]).max()) < 1e-4


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """The modes that were built, not read from the cache."""
    seen: List[str] = []
    build = OrtBackend.build

    def counted(self: OrtBackend, graph: Any, name: str) -> Artifact:
        seen.append(name)
        return build(self, graph, name)

    monkeypatch.setattr(OrtBackend, "build", counted)
    return seen


def test_it_lies_below_the_bundle_s_and_the_device_s_identity(
    bundle: Bundle, cache: DeviceCache, tmp_path: Path
) -> None:
    assert cache.path == tmp_path / "cache" / bundle.sha256 / DEVICE.fingerprint
    assert cache.path.is_dir()


def test_only_the_owner_may_read_it(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    cache.write_profile(DeviceProfile(PROFILES, "none", "now"))
    assert cache.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in cache.path.iterdir()} == {0o600}


def test_a_cache_that_others_could_read_is_closed_to_them(cache: DeviceCache, bundle: Bundle, tmp_path: Path) -> None:
    cache.path.chmod(0o755)
    DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend())
    assert cache.path.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_made_says_where_to_put_it(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="choose another --cache-dir"):
        DeviceCache(tmp_path / "file", bundle, DEVICE, OrtBackend())


def test_modes_are_built_once_and_then_read(cache: DeviceCache, bundle: Bundle, builds: List[str]) -> None:
    first, second = (cache.artifact(bundle.mode("m1")) for _ in range(2))
    assert first.model == second.model
    assert same(first.numbers, second.numbers)
    assert builds == ["m2", "m1", "m0"]


def test_building_makes_every_mode_and_tells_so(cache: DeviceCache, builds: List[str]) -> None:
    told: List[Tuple[str, int, int]] = []
    cache.build(lambda what, done, total: told.append((what, done, total)))
    assert builds == ["m2", "m1", "m0"]
    assert told == [("building m2", 0, 3), ("building m1", 1, 3), ("building m0", 2, 3)]
    cache.build()
    assert builds == ["m2", "m1", "m0"]


def test_another_start_reads_what_the_first_built(
    cache: DeviceCache, bundle: Bundle, builds: List[str], tmp_path: Path
) -> None:
    built = cache.artifact(bundle.mode("m0"))
    read = DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend()).artifact(bundle.mode("m0"))
    assert read.model == built.model
    assert same(read.numbers, built.numbers)
    assert len(builds) == 3


def test_what_is_built_is_the_mode(cache: DeviceCache, bundle: Bundle) -> None:
    for mode in bundle.modes:
        assert answers_its_golden_input(cache, bundle, mode.id)


def test_two_that_start_on_an_empty_cache_build_it_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building, finish, second_asked = threading.Event(), threading.Event(), threading.Event()
    built: List[str] = []
    backend = OrtBackend()
    build, flock = backend.build, fcntl.flock

    def slow(graph: Any, name: str) -> Artifact:
        building.set()
        assert finish.wait(PATIENCE_S)
        built.append(name)
        return build(graph, name)

    def asked(descriptor: int, how: int) -> None:
        if building.is_set():
            second_asked.set()
        flock(descriptor, how)

    monkeypatch.setattr(backend, "build", slow)
    monkeypatch.setattr("wenet_runtime.builder.fcntl.flock", asked)
    caches = [DeviceCache(tmp_path / "cache", bundle, DEVICE, backend) for _ in range(2)]
    first, second = (threading.Thread(target=one.build) for one in caches)
    first.start()
    assert building.wait(PATIENCE_S)
    second.start()
    assert second_asked.wait(PATIENCE_S)
    finish.set()
    for one in (first, second):
        one.join(PATIENCE_S)
    assert built == ["m2", "m1", "m0"]


def damaged(change: Callable[[Dict[str, Any]], Any]) -> Callable[[Path], None]:
    """An edit of the index."""

    def apply(folder: Path) -> None:
        members = json.loads((folder / "index.json").read_text())
        change(members)
        (folder / "index.json").write_text(json.dumps(members))

    return apply


def a_number(members: Dict[str, Any]) -> Dict[str, Any]:
    """The last number of mode m1."""
    found: Dict[str, Any] = list(members["modes"]["m1"]["numbers"].values())[-1]
    return found


def flip(name: str) -> Callable[[Path], None]:
    """A change of one byte of a file, its size left as it was."""

    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))

    return apply


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(str(folder / name), size)


def garbage(data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "index.json").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip("modes.bin"), "modes.bin has been changed"),
        (cut("modes.bin", 100), "modes.bin has 100 bytes"),
        (cut("modes.bin", 0), "modes.bin has 0 bytes"),
        (lambda folder: (folder / "modes.bin").unlink(), "lacks modes.bin"),
        (flip("m1.model"), "m1.model has been changed"),
        (cut("m1.model", 10), "m1.model has 10 bytes"),
        (lambda folder: (folder / "m1.model").unlink(), "lacks m1.model"),
        (garbage(b""), "its index is no index"),
        (garbage(b"{"), "its index is no index"),
        (garbage(b"\xff\xfe"), "its index is no index"),
        (garbage(b"[]"), "its index is no index"),
        (garbage(b"[" * 100_000), "its index is no index"),
        (garbage(b'{"version": 1}'), "its index is no index"),
        (damaged(lambda index: index.pop("blob_size")), "blob_size"),
        (damaged(lambda index: index.update(blob_size="9")), "blob_size"),
        (damaged(lambda index: index.update(blob_size=-1)), "impossible shape or place"),
        (damaged(lambda index: index.update(blob_size=index["blob_size"] + 64)), "modes.bin has"),
        (damaged(lambda index: index.update(blob_sha256="0" * 64)), "modes.bin has been changed"),
        (damaged(lambda index: index.update(version=2)), "its index is of version 2"),
        (damaged(lambda index: index["modes"].pop("m1")), r"holds the modes \['m0', 'm2'\]"),
        (damaged(lambda index: index["modes"].update({"../m9": index["modes"]["m1"]})), "holds the modes"),
        (damaged(lambda index: index["modes"]["m1"].update(size=-1)), "m1.model has"),
        (damaged(lambda index: index["modes"]["m1"].update(numbers=[])), "numbers"),
        (damaged(lambda index: a_number(index).update(offset=index["blob_size"])), "ends at"),
        (damaged(lambda index: a_number(index).update(offset=-64)), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(offset=1)), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(offset=64.0)), "offset"),
        (damaged(lambda index: a_number(index).update(shape=[-1, -8])), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(shape=[10**30])), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(shape=[0, 10**30])), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(shape=[1] * 65)), "impossible shape or place"),
        (damaged(lambda index: a_number(index).update(shape=[2000, 2000])), "ends at"),
        (damaged(lambda index: a_number(index).update(shape="big")), "shape"),
        (damaged(lambda index: a_number(index).update(dtype="object")), "dtype 'object'"),
        (damaged(lambda index: a_number(index).update(dtype="complex256")), "dtype 'complex256'"),
        (damaged(lambda index: index["identity"].update(bundle="f" * 64)), "another bundle"),
        (damaged(lambda index: index["identity"].update(engine="openvino")), r"another engine \('openvino'"),
        (damaged(lambda index: index["identity"].update(engine_version="0.9")), "another engine_version"),
        (damaged(lambda index: index["identity"].update(features="")), "another features"),
        (damaged(lambda index: index["identity"].update(plan="another")), "another plan"),
        (damaged(lambda index: index["identity"].pop("processor")), "another processor"),
        (damaged(lambda index: index["identity"].update(more="of it")), "another more"),
    ],
)
def test_a_damaged_or_foreign_cache_is_warned_of_and_built_again(
    cache: DeviceCache, bundle: Bundle, builds: List[str], tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    cache.build()
    damage(cache.path)
    again = DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend())
    with pytest.warns(UserWarning, match=f"{said}.*building all modes again"):
        again.build()
    assert answers_its_golden_input(again, bundle, "m1")
    assert len(builds) == 6
    DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend()).build()
    assert len(builds) == 6


def test_what_is_mapped_outlives_its_files(cache: DeviceCache, bundle: Bundle, tmp_path: Path) -> None:
    held = cache.artifact(bundle.mode("m1"))
    kept = {name: value.copy() for name, value in held.numbers.items()}
    flip("m0.model")(cache.path)
    with pytest.warns(UserWarning, match="building all modes again"):
        DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend()).build()
    assert same(held.numbers, kept)


def test_a_model_that_goes_while_serving_is_an_engine_error(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    (cache.path / "m1.model").unlink()
    with pytest.raises(EngineError, match="cached model of mode 'm1' has gone"):
        cache.artifact(bundle.mode("m1"))


def test_a_build_that_fails_leaves_no_part_of_a_blob(
    cache: DeviceCache, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*parts: Any) -> Any:
        raise EngineError("this engine does not take it")

    with monkeypatch.context() as patched:
        patched.setattr(OrtBackend, "build", fail)
        with pytest.raises(EngineError, match="does not take it"):
            cache.build()
    assert [path.name for path in cache.path.iterdir()] == ["lock"]
    cache.build()
    assert cache.artifact(bundle.mode("m0")).model


def test_what_a_killed_build_left_is_removed(cache: DeviceCache) -> None:
    for name in (".modes.bin.abc", ".m1.model.abc", ".index.json.abc"):
        (cache.path / name).write_bytes(b"half")
    cache.build()
    assert not list(cache.path.glob(".*"))


def test_a_refusal_holds_for_what_was_built_and_for_nothing_else(
    cache: DeviceCache, bundle: Bundle, tmp_path: Path
) -> None:
    assert cache.refused() == {}  # nothing is built
    cache.build()
    cache.refuse({"m1": "it deviates", "m9": "no such mode"})
    assert cache.refused() == {"m1": "it deviates"}
    again = DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend())
    assert again.refused() == {"m1": "it deviates"}

    index = json.loads((cache.path / "index.json").read_text())
    (cache.path / "index.json").write_text(json.dumps(index))  # the same modes, yet other bytes: another build
    assert cache.refused() == {}
    cache.refuse({"m0": "it deviates"})
    cache.refuse({})
    assert cache.refused() == {}
    assert not (cache.path / "refused.json").exists()


def test_a_refusal_that_cannot_be_kept_is_an_engine_error(cache: DeviceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*parts: Any, **how: Any) -> Any:
        raise OSError(28, "No space left on device")

    cache.build()
    monkeypatch.setattr("wenet_runtime.refused_file.write_atomic", full)
    with pytest.raises(EngineError, match=r"No space left on device.*choose another --cache-dir"):
        cache.refuse({"m1": "it deviates"})


def test_a_cache_that_cannot_be_written_says_where_to_put_it(
    cache: DeviceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wenet_runtime.mode_store.os.fsync", full)
    with pytest.raises(EngineError, match=r"No space left on device.*choose another --cache-dir"):
        cache.build()


def test_another_device_s_entry_is_not_used(
    cache: DeviceCache, bundle: Bundle, builds: List[str], tmp_path: Path
) -> None:
    cache.build()
    DeviceCache(tmp_path / "cache", bundle, dataclasses.replace(DEVICE, threads=2), OrtBackend()).build()
    assert builds == ["m2", "m1", "m0"] * 2


def test_layers_are_built_with_the_groups_that_the_plan_emits(bundle: Bundle, tmp_path: Path) -> None:
    asked: List[Mapping[str, int]] = []

    def dense(supernet: Supernet, mode: Mode, statistics: Mapping[str, Any]) -> Mapping[str, int]:
        assert statistics
        asked.append(mode.groups)
        return {layer.name: 1 for layer in supernet.layers}

    planned = DeviceCache(tmp_path / "planned", bundle, DEVICE, OrtBackend(), emitted=dense, plan_id="dense")
    plain = DeviceCache(tmp_path / "plain", bundle, DEVICE, OrtBackend())
    mode = bundle.mode("m0")
    sizes = [sum(value.nbytes for value in one.artifact(mode).numbers.values()) for one in (planned, plain)]
    assert sizes[0] > sizes[1]
    assert asked == [mode.groups for mode in bundle.modes]
    assert answers_its_golden_input(planned, bundle, "m0")


def test_modes_of_another_plan_lie_beside_these_and_leave_them_alone(
    cache: DeviceCache, bundle: Bundle, builds: List[str], tmp_path: Path
) -> None:
    cache.build()
    other = DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend(), plan_id="b")
    other.build()
    assert len(builds) == 6
    assert other.path != cache.path
    for mode_id in ("m0", "m1", "m2"):
        assert answers_its_golden_input(cache, bundle, mode_id)


def test_a_profile_of_modes_that_were_built_again_is_not_read(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    cache.write_profile(DeviceProfile(PROFILES, "none", "2024-01-01T00:00:00+00:00"))
    (cache.path / "modes.bin").write_bytes(b"damaged")
    again = DeviceCache(cache.path.parent.parent, bundle, DEVICE, OrtBackend())
    with pytest.warns(UserWarning, match="building all modes again"):
        again.build()
    assert again.read_profile() is None


def test_a_choice_of_modes_outlives_their_building(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    chosen = Selected(2, ("m2", "m0"), (Left("m1", "no faster than m2"),))
    cache.write_profile(DeviceProfile(PROFILES, "none", "2024-01-01T00:00:00+00:00", selected=chosen))
    (cache.path / "modes.bin").write_bytes(b"damaged")
    again = DeviceCache(cache.path.parent.parent, bundle, DEVICE, OrtBackend())
    with pytest.warns(UserWarning, match="building all modes again"):
        again.build()
    found = again.read_profile()
    assert found is not None
    assert (found.modes, found.selected) == ({}, chosen)


def test_a_profile_is_read_as_it_was_written(cache: DeviceCache) -> None:
    assert cache.read_profile() is None
    written = DeviceProfile(PROFILES, "none", "2024-01-01T00:00:00+00:00")
    cache.write_profile(written)
    assert cache.read_profile() == written


def test_a_profile_is_changed_from_what_lies_there_then(cache: DeviceCache) -> None:
    first = cache.update_profile(lambda now: DeviceProfile(PROFILES, "none" if now is None else "lost", "now"))
    assert (first.meter, cache.read_profile()) == ("none", first)
    other = DeviceCache(cache.path.parent.parent, cache.bundle, DEVICE, OrtBackend())
    chosen = Selected(2, ("m2", "m0"), ())
    other.update_profile(lambda now: dataclasses.replace(now or first, selected=chosen))
    last = cache.update_profile(lambda now: dataclasses.replace(first, selected=now and now.selected))
    assert last.selected == chosen


def test_a_profile_that_cannot_be_written_says_where_to_put_it(
    cache: DeviceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wenet_runtime.files.os.fsync", full)
    with pytest.raises(EngineError, match=r"No space left on device.*choose another --cache-dir"):
        cache.write_profile(DeviceProfile(PROFILES, "none", "now"))
    assert list(cache.path.iterdir()) == []


def usable(cache: DeviceCache) -> Any:
    """What a start would take of the profile that lies there."""
    found = cache.read_profile()
    return None if found is None else found.of("none", list(MEDIANS_MS))


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
        edited(lambda members: members["modes"]["m1"].update(threads=0)),
        edited(lambda members: members["modes"]["m1"].update(threads=2.0)),
        edited(lambda members: members["modes"]["m1"].update(threads=10**6)),
        edited(lambda members: members.update(bundle_sha256="another")),
        edited(lambda members: members["device"].update(threads=2)),
    ],
)
def test_a_damaged_or_foreign_profile_is_ignored_with_a_warning(
    cache: DeviceCache, damage: Callable[[Path], Any]
) -> None:
    cache.write_profile(DeviceProfile(PROFILES, "none", "now"))
    damage(cache.path / "profile.json")
    with pytest.warns(UserWarning, match="measuring again"):
        assert usable(cache) is None


def test_an_intact_cache_warns_of_nothing(cache: DeviceCache, bundle: Bundle) -> None:
    cache.build()
    cache.write_profile(DeviceProfile({name: Profile(1.0, 1.0, 1.0, 5) for name in MEDIANS_MS}, "none", "now"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.build()
        assert cache.read_profile() is not None
    assert caught == []


def test_serving_from_a_warm_cache_never_imports_onnx(bundle_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from wenet_runtime.bundle import Bundle; from pathlib import Path;"
        "from wenet_runtime.builder import DeviceCache; from wenet_runtime.device import this_device;"
        "from wenet_runtime.engines.ort import OrtBackend;"
        "bundle, engine = Bundle(Path(sys.argv[1])), OrtBackend();"
        "cache = DeviceCache(Path(sys.argv[2]), bundle, this_device('ort', '1', 1), engine);"
        "engine.load(bundle.modes[0], lambda: cache.artifact(bundle.modes[0]));"
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


def test_what_modes_take_is_known_once_they_are_built(cache: DeviceCache, bundle: Bundle) -> None:
    assert cache.footprints() is None
    cache.build()
    found = cache.footprints()
    assert found is not None
    assert list(found) == ["m2", "m1", "m0"]
    assert found["m2"].alone > found["m0"].alone > (cache.path / "m0.model").stat().st_size


def test_every_level_of_a_new_cache_is_its_owners(bundle: Bundle, tmp_path: Path) -> None:
    made = DeviceCache(tmp_path / "up/cache", bundle, DEVICE, OrtBackend(threads=1))
    for folder in (made.path, made.path.parent, tmp_path / "up/cache", tmp_path / "up"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_cache_that_others_may_write_to_is_used_with_a_warning(bundle: Bundle, tmp_path: Path, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.warns(UserWarning, match=rf"cache is open: .* \(mode {mode:04o}\) .*`chmod 700 {tmp_path}/cache`"):
        DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend(threads=1))
    (tmp_path / "cache").chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeviceCache(tmp_path / "cache", bundle, DEVICE, OrtBackend(threads=1))
