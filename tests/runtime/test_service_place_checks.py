"""What doctor says of the bundle, the cache, the token file and the port."""

import os
import socket
from pathlib import Path
from typing import Any, Dict

import pytest

from wenet_runtime.bundle import Bundle
from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check
from wenet_runtime.service.opening import open_cache
from wenet_runtime.service.place_checks import LEAST_FREE, check_bundle, check_cache, check_port, check_tokens
from wenet_runtime.settings import Settings


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


def bundles(path: Any, cache: Path) -> Dict[str, Check]:
    return {one.name: one for one in check_bundle(path, cache)}


def test_without_a_bundle_there_is_nothing_to_look_at(cache: Path) -> None:
    found = bundles(None, cache)
    assert {one.status for one in found.values()} == {SKIPPED}


def test_a_whole_bundle_is_told_and_that_nothing_is_built_yet(bundle: Bundle, cache: Path) -> None:
    found = bundles(bundle.path, cache)
    assert (found["bundle"].status, found["bundle"].data["sha256"]) == (OK, bundle.sha256)
    assert found["bundle"].found.startswith("tiny, 3 modes")
    assert (found["engines"].status, found["engines"].found) == (OK, "none are built yet")
    assert "wenet-runtime build" in found["engines"].remedy


def test_a_damaged_bundle_fails_and_names_the_file(own_bundle: Path, cache: Path) -> None:
    (own_bundle / "topology.onnx").write_bytes(b"")
    found = bundles(own_bundle, cache)
    assert found["bundle"].status == FAIL
    assert "topology.onnx" in found["bundle"].found
    assert found["bundle"].remedy == "copy or export the bundle again"
    assert found["engines"].status == SKIPPED
    assert bundles(own_bundle / "nowhere", cache)["bundle"].status == FAIL


def test_what_is_built_is_told_and_what_of_it_is_refused(bundle: Bundle, cache: Path) -> None:
    built = open_cache(Settings(bundle=bundle.path, cache_dir=cache, tune=False))
    built.build()
    found = bundles(bundle.path, cache)["engines"]
    assert (found.status, found.found) == (OK, f"ort {built.device.engine_version}")
    built.refuse({"m1": "it deviates"})
    found = bundles(bundle.path, cache)["engines"]
    assert (found.status, found.found) == (WARN, "m1 is refused, it deviates")
    (built.path / "index.json").write_text("{}")
    assert bundles(bundle.path, cache)["engines"].found == "none are built yet"


def test_a_cache_of_one_s_own_is_fine_and_one_that_is_not_there_will_be_made(cache: Path) -> None:
    assert check_cache(cache).status == OK
    assert check_cache(cache).found.startswith(f"{cache}, ")
    later = check_cache(cache / "a" / "b")
    assert (later.status, "which will be made" in later.found) == (OK, True)
    assert not (cache / "a").exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_may_write_to_fails(cache: Path, mode: int) -> None:
    cache.chmod(mode)
    found = check_cache(cache)
    assert (found.status, found.remedy) == (FAIL, f"`chmod 700 {cache}`")
    assert "others may write to it" in found.found


def test_engines_that_others_may_read_fail(cache: Path) -> None:
    cache.chmod(0o755)  # which is fine: what lies in it is private
    folder = cache / "bundle" / "device"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "index.json").touch()
    assert check_cache(cache).status == OK
    folder.chmod(0o750)
    found = check_cache(cache)
    assert (found.status, found.remedy) == (FAIL, f"`chmod 700 {folder}`")
    assert "others may read it" in found.found


def test_a_cache_that_cannot_be_written_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").touch()
    assert check_cache(cache / "file").status == FAIL
    assert check_cache(cache / "file" / "below").found == f"{cache / 'file'} is no directory"
    monkeypatch.setattr("wenet_runtime.service.place_checks.os.access", lambda path, how: False)
    for path in (cache, cache / "below"):
        found = check_cache(path)
        assert (found.status, found.remedy) == (FAIL, "choose another --cache-dir")
        assert found.found == f"{cache} cannot be written by user {os.geteuid()}"


@pytest.mark.parametrize(("free", "status"), [(LEAST_FREE - 1, WARN), (LEAST_FREE, OK)])
def test_a_full_disk_is_a_warning(free: int, status: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        pass

    Usage.free = free  # type: ignore[attr-defined]
    monkeypatch.setattr("wenet_runtime.service.place_checks.shutil.disk_usage", lambda path: Usage)
    assert check_cache(cache).status == status


def test_a_token_file_is_read_as_the_daemon_will(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef0123\n")
    path.chmod(0o600)
    assert check_tokens(path, "0.0.0.0", insecure=False).status == OK
    path.chmod(0o644)
    found = check_tokens(path, "127.0.0.1", insecure=False)
    assert (found.status, found.remedy) == (FAIL, f"`chmod 600 {path}`")
    assert check_tokens(tmp_path / "nowhere", "127.0.0.1", insecure=False).status == FAIL
    assert "0123456789abcdef0123" not in str(found)


@pytest.mark.parametrize(
    ("host", "insecure", "status"),
    [("127.0.0.1", False, SKIPPED), ("::1", False, SKIPPED), ("0.0.0.0", True, WARN), ("0.0.0.0", False, FAIL)],
)
def test_without_tokens_only_a_loopback_address_is_fine(host: str, insecure: bool, status: str) -> None:
    assert check_tokens(None, host, insecure=insecure).status == status


def test_a_port_is_free_or_taken_or_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = check_port("127.0.0.1", port)
        assert (found.status, found.found) == (WARN, f"127.0.0.1:{port} is taken")
    assert check_port("127.0.0.1", port).status == OK
    assert check_port("127.0.0.1", 0).status == SKIPPED
    assert check_port("192.0.2.1", 8000).status == FAIL  # an address for documents, which nobody has
