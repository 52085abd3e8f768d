"""One daemon for all that is sent to one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.daemon import Daemon


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon as a person starts it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell a process's memory")
    with Daemon(tmp_path_factory.mktemp("fuzz")) as one:
        yield one
