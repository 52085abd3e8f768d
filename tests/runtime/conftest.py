"""What the runtime's tests share: bundles written once, an environment of their own, a served application."""

import inspect
import os
import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest
from typer.testing import CliRunner

from tests.runtime.fakes import SLOW_MS, Client, SettableBackend, make_service
from tests.supernets import write_test_bundle
from wenet_runtime.bundle import Bundle
from wenet_runtime.cli.commands import app
from wenet_runtime.runtime import Runtime
from wenet_runtime.service.app import create_app
from wenet_runtime.service.daemon import allowed_hosts, open_daemon
from wenet_runtime.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No WENET_* variable, no user's cache or settings and none of the machine's sensors reaches a test."""
    for name in list(os.environ):
        if name.startswith("WENET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    monkeypatch.setattr("wenet_runtime.settings.SYSTEM_TOML", tmp_path / "no-system.toml")
    monkeypatch.setattr("wenet_runtime.meters.auto.SYSFS", tmp_path / "no-sysfs")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}  # click 8.1
    runner = CliRunner(**apart)  # type: ignore[arg-type]
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete bundle of three modes, never changed: copy it first (`own_bundle`)."""
    path = tmp_path_factory.mktemp("shared") / "bundle"
    write_test_bundle(path)
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """That bundle, opened."""
    return Bundle(bundle_path)


@pytest.fixture
def own_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(str(bundle_path), str(tmp_path / "bundle")))


@pytest.fixture(scope="session")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that stays warm through the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def client(bundle_path: Path, cache_path: Path) -> Iterator[Client]:
    """A client of the whole application on the real engine, as the daemon builds it."""
    daemon = open_daemon(Settings(bundle=bundle_path, cache_dir=cache_path, profile_rounds=10))
    yield Client(daemon.app)
    daemon.runtime.close()


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[SettableBackend]:
    """An engine whose runs a test can watch, hold and fail."""
    one = SettableBackend(bundle)
    yield one
    one.release()


@pytest.fixture
def runtime(bundle: Bundle, backend: SettableBackend) -> Iterator[Runtime]:
    """A runtime on that engine; its modes are said to take 0.1, 1 and 10 s."""
    one = make_service(bundle, backend, medians_ms=SLOW_MS).runtime
    yield one
    backend.release()
    one.close(timeout_s=5)


@pytest.fixture
def slow_client(bundle: Bundle, backend: SettableBackend) -> Iterator[Client]:
    """A client of an application whose modes are said to take 0.1, 1 and 10 s, and take none."""
    service = make_service(bundle, backend, medians_ms=SLOW_MS)
    yield Client(create_app(service), service)
    service.runtime.close(timeout_s=5)


@pytest.fixture
def held_client(bundle: Bundle, backend: SettableBackend) -> Iterator[Client]:
    """A client of an application on an engine that the test can hold."""
    service = make_service(bundle, backend, max_queue=2)
    hosts = allowed_hosts(Settings())
    yield Client(create_app(service, hosts=hosts), service)
    backend.release()
    service.runtime.close(timeout_s=5)
