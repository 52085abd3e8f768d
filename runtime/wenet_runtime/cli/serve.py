"""Runs the daemon: socket, server, drain, exit code."""

import asyncio
import gc
import logging
import os
import socket
from typing import NoReturn

import typer

from wenet_runtime.cli.ends import EXIT_BIND, EXIT_FAILURE, fail, say
from wenet_runtime.cli.progress import progress_shown
from wenet_runtime.errors import SettingsError
from wenet_runtime.service.daemon import Daemon, check_bind, open_daemon
from wenet_runtime.service.notify import Liveness, Notifier, status_of
from wenet_runtime.service.server import Server
from wenet_runtime.settings import Settings


def serve_until_drained(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit 0, or 1 if accepted work was abandoned."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        check_bind(settings)
    except SettingsError as error:
        fail(str(error), EXIT_BIND)
    with _bound(settings) as listener:
        with progress_shown() as progress:
            daemon = open_daemon(settings, progress)
        abandoned = 0
        try:
            abandoned = _serve(daemon, settings, listener)
        finally:
            finished = daemon.close(timeout_s=0.0 if abandoned else settings.drain_timeout_s)
    if abandoned or not finished:
        fail(f"{max(1, abandoned)} accepted requests were abandoned after the drain's time", EXIT_FAILURE)
    say("drained")
    raise typer.Exit(0)


def _serve(daemon: Daemon, settings: Settings, listener: socket.socket) -> int:
    """Serve until drained; returns how many accepted requests were abandoned."""
    notifier = Notifier(os.environ, lambda: status_of(daemon.runtime, daemon.log, simulated=settings.engine == "sim"))

    def ready() -> None:
        _announce(daemon, settings, listener.getsockname()[1])
        if notifier.wanted:
            notifier.start(Liveness(asyncio.get_running_loop(), daemon.runtime))

    server = Server(
        daemon.app,
        daemon.runtime,
        host=settings.host,
        port=settings.port,
        drain_delay_s=settings.drain_delay_s,
        drain_timeout_s=settings.drain_timeout_s,
        on_ready=ready,
        on_drain=notifier.stopping,
    )
    _listen(listener, settings)
    # What has been made until now stays: a full collection of it would stop requests for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        server.run(sockets=[listener])
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


def _listen(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.listen()
    except OSError as error:  # another daemon bound the same port and was quicker to listen
        _refuse(settings, error)


def _refuse(settings: Settings, error: OSError) -> NoReturn:
    fail(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another --port", EXIT_BIND)


def _announce(daemon: Daemon, settings: Settings, port: int) -> None:
    profiles = daemon.runtime.controller.profiles
    modes = ", ".join(f"{mode_id} {profile.p50_ms:.2f} ms" for mode_id, profile in profiles.items())
    simulated = " (SIMULATED engine: answers are made up)" if settings.engine == "sim" else ""
    budget = "none" if settings.budget_ms is None else f"{settings.budget_ms:g} ms"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if daemon.chosen:
        say(daemon.chosen)
    say(f"modes{simulated}: {modes}")
    say(f"serving {daemon.bundle.manifest.model} on http://{host}:{port} with budget {budget}; stop with Ctrl-C")
