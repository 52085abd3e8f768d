"""Runs the daemon: socket, server, drain, exit code."""

import asyncio
import errno
import gc
import logging
import os
import socket
from contextlib import ExitStack
from typing import NamedTuple, NoReturn, Optional

import typer

from wenet_runtime.cli.ends import EXIT_BIND, EXIT_FAILURE, fail, say
from wenet_runtime.cli.progress import progress_shown
from wenet_runtime.errors import SettingsError
from wenet_runtime.service.admin_server import AdminServer, bind_admin, let_go
from wenet_runtime.service.connections import Connections
from wenet_runtime.service.daemon import Daemon, check_bind, open_daemon
from wenet_runtime.service.notify import Liveness, Notifier, status_of
from wenet_runtime.service.server import Server
from wenet_runtime.service.tls import Tls, tls_of
from wenet_runtime.settings import Settings


def serve_until_drained(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit 0, or 1 if accepted work was abandoned."""
    try:
        check_bind(settings)
    except SettingsError as error:
        fail(str(error), EXIT_BIND)
    tls = tls_of(settings)
    with ExitStack() as bound:
        listener = bound.enter_context(_bound(settings))
        admin = None
        if settings.admin_bind is not None:
            admin = _admin_bound(settings.admin_bind)
            bound.callback(let_go, settings.admin_bind, admin)
        with progress_shown() as progress:
            daemon = open_daemon(settings, progress)
        abandoned = 0
        try:
            abandoned = _serve(daemon, settings, Sockets(listener, admin, tls))
        finally:
            finished = daemon.close(timeout_s=0.0 if abandoned else settings.drain_timeout_s)
    try:
        if abandoned or not finished:
            fail(f"{max(1, abandoned)} accepted requests were abandoned after the drain's time", EXIT_FAILURE)
        say("drained")
        raise typer.Exit(0)
    except typer.Exit as end:
        if daemon.bundles.left_opening:  # its thread is in an engine's code, and would abort an interpreter that ends
            logging.shutdown()
            os._exit(end.exit_code)
        raise


class Sockets(NamedTuple):
    """What is listened on: for requests, for /admin if it has an address of its own, and with which certificate."""

    requests: socket.socket
    admin: Optional[socket.socket] = None
    tls: Optional[Tls] = None


def _serve(daemon: Daemon, settings: Settings, sockets: Sockets) -> int:
    """Serve until drained; returns how many accepted requests were abandoned."""
    notifier = Notifier(os.environ, lambda: status_of(daemon.runtime, daemon.log, simulated=settings.engine == "sim"))

    def ready() -> None:
        _announce(daemon, settings, sockets.requests.getsockname()[1])
        if notifier.wanted:
            notifier.start(Liveness(asyncio.get_running_loop(), lambda: daemon.bundles.runtimes))

    server = Server(
        daemon.app,
        daemon.bundles,
        host=settings.host,
        port=settings.port,
        drain_delay_s=settings.drain_delay_s,
        drain_timeout_s=settings.drain_timeout_s,
        on_ready=ready,
        on_drain=notifier.stopping,
        connections=Connections(settings.max_connections, refused=daemon.refused),
        tls=sockets.tls,
        beside=None
        if daemon.admin_app is None or sockets.admin is None
        else AdminServer(daemon.admin_app, sockets.admin, sockets.tls, refused=daemon.refused),
    )
    daemon.bundles.stop = lambda: server.drain()
    _listen(sockets.requests, settings)
    # What has been made until now stays: a full collection of it would stop requests for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        server.run(sockets=[sockets.requests])
    finally:
        notifier.close()
    return server.abandoned


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named because event loops turn Nagle's algorithm off only where it stands; with it
    # on, the second packet of a reply waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        _refuse(settings, error)
    return listener


def _admin_bound(address: str) -> socket.socket:
    try:
        return bind_admin(address)
    except OSError as error:
        fail(f"cannot listen on --admin-bind {address} ({error.strerror}): choose another address", EXIT_BIND)


def _listen(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.listen()
    except OSError as error:  # another daemon bound the same port and was quicker to listen
        _refuse(settings, error)


def _refuse(settings: Settings, error: OSError) -> NoReturn:
    where = f"cannot listen on {settings.host}:{settings.port}"
    if isinstance(error, socket.gaierror):
        fail(f"{where}: --host is no address, and no name that resolves here: give one of this machine's", EXIT_BIND)
    flag = "--host, one of this machine's addresses" if error.errno == errno.EADDRNOTAVAIL else "--port"
    fail(f"{where} ({error.strerror}): choose another {flag}", EXIT_BIND)


def _announce(daemon: Daemon, settings: Settings, port: int) -> None:
    profiles = daemon.runtime.controller.profiles
    modes = ", ".join(f"{mode_id} {profile.p50_ms:.2f} ms" for mode_id, profile in profiles.items())
    simulated = " (SIMULATED engine: answers are made up)" if settings.engine == "sim" else ""
    budget = "none" if settings.budget_ms is None else f"{settings.budget_ms:g} ms"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if daemon.chosen:
        say(daemon.chosen)
    say(f"modes{simulated}: {modes}")
    scheme = "http" if settings.tls_cert is None else "https"
    if settings.admin_bind is not None:
        say(f"/admin is on {settings.admin_bind} alone")
    say(f"serving {daemon.bundle.manifest.model} on {scheme}://{host}:{port} with budget {budget}; stop with Ctrl-C")
