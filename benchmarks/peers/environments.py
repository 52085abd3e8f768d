"""Environments of the peers, one each, because their dependencies exclude each other; and the table of peers."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import bare, bentoml, litserve, mlserver, triton, wenet
from benchmarks.peers.base import Peer

PEERS = (
    wenet.PEER,
    bare.ASGI,
    bare.FASTAPI,
    triton.PEER,
    litserve.PEER,
    mlserver.DEFAULT,
    mlserver.IN_PROCESS,
    bentoml.PEER,
)
SHARED = ("onnxruntime", "pillow")  # in every environment, of our versions
MADE = ".made"  # lies in an environment that is complete, and says of what
PYTHON = (3, 11)  # of which every peer has wheels


def interpreter(peer: Peer, environments: Path) -> Path:
    """The Python that runs a peer."""
    return Path(sys.executable) if peer.environment is None else environments / peer.environment / "bin" / "python"


def why_not(peer: Peer, environments: Path) -> str:
    """Why a peer cannot be started here; "" if it can."""
    if not interpreter(peer, environments).exists():
        return f"not installed: no {interpreter(peer, environments)}; run `make bench-peers`"
    wanted = dict(one.split("==") for one in peer.packages)
    found = {**installed(interpreter(peer, environments))} if peer.environment is not None else {}
    wrong = [
        f"{name} {found.get(name)} instead of {version}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    return f"other versions: {', '.join(wrong)}; make its environment again" if wrong else ""


def installed(python: Path) -> dict[str, str]:
    """Versions by distribution in lower case with dashes, of an environment that is not this one."""
    (packages,) = python.parents[1].glob("lib/python3*/site-packages")
    found = {}
    for folder in packages.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[name.lower().replace("_", "-")] = version
    return found


def wanted(peer: Peer) -> list[str]:
    """What pip is asked for."""
    return [*peer.packages, *(f"{name}=={importlib.metadata.version(name)}" for name in SHARED)]


def make(environments: Path) -> None:
    """Make every environment that is not there. Raises `CalledProcessError` as pip ends."""
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(f"peers need Python {PYTHON[0]}.{PYTHON[1]}, this is {sys.version.split()[0]}")
    for peer in PEERS:
        if peer.environment is None:
            continue
        folder = environments / peer.environment
        recipe = "\n".join(wanted(peer)) + "\n"
        made = folder / MADE
        if made.exists() and made.read_text() == recipe:
            continue
        print(f"installing {', '.join(peer.packages)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ]
        subprocess.run([*pip, *wanted(peer)], check=True)
        made.write_text(recipe)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
