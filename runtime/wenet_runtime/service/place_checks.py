"""Checks of what the daemon reads, writes and listens on: bundle, cache, token file, port."""

import errno
import json
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any, Dict, List, Optional

from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import BundleError, SettingsError
from wenet_runtime.files import sha256_of
from wenet_runtime.refused_file import read_refused
from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check, problem

LEAST_FREE = 512 << 20  # engines of a few modes and what is written before they are whole
INDEX = "index.json"


def check_bundle(path: Optional[Path], cache: Path) -> List[Check]:
    """Whether the bundle is whole, and what has been built of it here; nothing without one."""
    if path is None:
        return [Check(name, SKIPPED, "no bundle is given (--bundle DIR)") for name in ("bundle", "engines")]
    try:
        bundle = Bundle(path)
    except BundleError as error:
        return [problem("bundle", FAIL, error), Check("engines", SKIPPED, "the bundle cannot be used")]
    found = f"{bundle.manifest.model}, {len(bundle.modes)} modes, every file as its manifest says"
    modes = [mode.id for mode in bundle.modes]
    whole = Check("bundle", OK, found, data={"sha256": bundle.sha256, "modes": modes})
    return [whole, _engines(cache / bundle.sha256)]


def _engines(folder: Path) -> Check:
    built, refused = [], {}
    for index in sorted(folder.glob(f"*/{INDEX}")):
        try:
            identity = json.loads(index.read_text())["identity"]
            built.append(f"{identity['engine']} {identity['engine_version']}")
            refused.update(read_refused(index.parent, built=sha256_of(index)))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the start will build it again
    if not built:
        remedy = "`wenet-runtime build` makes them now; else the first start does"
        return Check("engines", OK, "none are built yet", remedy, {"built": [], "refused": {}})
    data = {"built": built, "refused": refused}
    if refused:
        found = "; ".join(f"{mode_id} is refused, {why}" for mode_id, why in refused.items())
        return Check("engines", WARN, found, "choose another --engine, or build anew in an empty --cache-dir", data)
    return Check("engines", OK, ", ".join(built), data=data)


def check_cache(path: Path) -> Check:
    """Whether engines and profiles can be kept, and by nobody else changed."""
    there = next((one for one in (path, *path.parents) if one.exists()), path)
    data: Dict[str, Any] = {"path": str(path)}
    choose = "choose another --cache-dir"
    if not there.is_dir():
        return Check("cache", FAIL, f"{there} is no directory", choose, data)
    if not os.access(str(there), os.W_OK | os.X_OK):
        return Check("cache", FAIL, f"{there} cannot be written by user {os.geteuid()}", choose, data)
    free = shutil.disk_usage(str(there)).free
    data["free_mb"] = free >> 20
    if there == path:
        for folder, forbidden in ((path, 0o022), *((one.parent, 0o077) for one in path.glob(f"*/*/{INDEX}"))):
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode & forbidden:
                who = "others may write to it" if mode & 0o022 else "others may read it"
                return Check("cache", FAIL, f"{folder} is open: {who} (mode {mode:04o})", f"`chmod 700 {folder}`", data)
    if free < LEAST_FREE:
        return Check("cache", WARN, f"{there} has {free >> 20} MiB left", f"make room, or {choose}", data)
    will = "" if there == path else ", which will be made"
    return Check("cache", OK, f"{path}{will}, {free >> 30} GiB free", data=data)


def check_tokens(path: Optional[Path], host: str, *, insecure: bool) -> Check:
    """Whether the token file can be used, or none is needed.

    Args:
        path: of the token file, if one is set.
        host: address to listen on.
        insecure: whether an open address without tokens was accepted.
    """
    from wenet_runtime.service.daemon import is_loopback
    from wenet_runtime.service.tokens import read_tokens

    if path is not None:
        try:
            read_tokens(path)
        except SettingsError as error:
            return problem("token file", FAIL, error)
        return Check("token file", OK, str(path))
    if is_loopback(host):
        return Check("token file", SKIPPED, f"none is set, and only this machine reaches {host}")
    if insecure:
        return Check("token file", WARN, f"everybody who reaches {host} may ask", "give --token-file")
    return Check("token file", FAIL, f"--host {host} is open to other machines", "give --token-file")


def check_port(host: str, port: int) -> Check:
    """Whether the daemon could listen there now."""
    where = f"{host}:{port}"
    if port == 0:
        return Check("port", SKIPPED, "a free one will be taken")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Check("port", WARN, f"{where} is taken", "if not by this daemon, choose another --port")
        return Check("port", FAIL, f"{where} cannot be had ({error.strerror})", "choose another --host or --port")
    return Check("port", OK, f"{where} is free")
