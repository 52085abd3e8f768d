"""/admin on an address of its own: what the port for requests is open to need not reach it."""

import asyncio
import contextlib
import os
import re
import socket
import stat
from pathlib import Path
from typing import Callable, Iterator, Optional, Union

import uvicorn

from wenet_runtime.errors import SettingsError
from wenet_runtime.service.connections import Connections
from wenet_runtime.service.envelope import App
from wenet_runtime.service.server import config_of
from wenet_runtime.service.tls import Tls

_ADDRESS = re.compile(r"\[?([^\[\]]+?)\]?:(\d{1,5})")


class AdminServer(uvicorn.Server):
    """Serves beside another server, in its event loop, which starts and ends it.

    Args:
        app: what it serves.
        listener: bound, see `bind_admin`.
        tls: for an address that is no file; None without.
        refused: told the problem's slug of each request that is answered before the application sees it.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        tls: Optional[Tls] = None,
        *,
        refused: Callable[[str], None] = lambda slug: None,
    ) -> None:
        self._connections = Connections(refused=refused)
        self._listener = listener
        unix = listener.family == socket.AF_UNIX
        super().__init__(config_of(app, self._connections, tls=None if unix else tls))
        self._task: Optional[asyncio.Task[None]] = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None of them: they are the other server's."""
        yield

    def start(self) -> None:
        """Begin to serve; on the event loop."""
        self._connections.watch(asyncio.get_running_loop())
        self._task = asyncio.ensure_future(self.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Serve no more, once what was asked is answered."""
        self.should_exit = True
        if self._task is not None:
            await self._task
        self._connections.close()


def bind_admin(address: str) -> socket.socket:
    """Bind `unix:PATH` or `HOST:PORT`.

    A file is for this user alone, and takes the place of one that nobody serves any more.

    Raises:
        SettingsError: it is neither.
        OSError: it is taken, or not ours to take.
    """
    if address.startswith("unix:"):
        return _bind_file(_file(address))
    host, port = parts_of(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bound(listener, (host, port))


def let_go(address: str, listener: socket.socket) -> None:
    """Close what `bind_admin` bound, and remove its file."""
    listener.close()
    if address.startswith("unix:"):
        with contextlib.suppress(FileNotFoundError):
            _file(address).unlink()


def _file(address: str) -> Path:
    return Path(address[len("unix:") :]).expanduser()


def parts_of(address: str) -> "tuple[str, int]":
    """`HOST:PORT`, an IPv6 host in brackets. Raises `SettingsError`."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found.group(2)) > 65535:
        raise SettingsError(f"--admin-bind is '{address}': give unix:PATH or HOST:PORT")
    return found.group(1), int(found.group(2))


def _bind_file(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"--admin-bind unix:{path} is a file that is no socket: choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # left behind by one that was killed
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        return _bound(listener, str(path))
    finally:
        os.umask(before)


def _bound(listener: socket.socket, address: "Union[str, tuple[str, int]]") -> socket.socket:
    try:
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
