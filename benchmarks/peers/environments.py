"""Environments of the peers, one each, because their dependencies exclude each other; and the table of peers."""

import importlib.metadata
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
PYTHON = (3, 11)  # of which every peer has wheels


def interpreter(peer: Peer, environments: Path) -> Path:
    """The Python that runs a peer."""
    return Path(sys.executable) if peer.environment is None else environments / peer.environment / "bin" / "python"


def why_not(peer: Peer, environments: Path) -> str:
    """Why a peer cannot be started here; "" if it can."""
    python = interpreter(peer, environments)
    if not python.exists():
        return f"not installed: no {python}; run `make bench-peers`"
    if peer.environment is None:
        return ""
    found = installed(python)
    versions = (one.split("==") for one in wanted(peer))
    wrong = [f"{name} is {found.get(name)}, not {version}" for name, version in versions if found.get(name) != version]
    return f"its environment has other versions ({', '.join(wrong)}): run `make bench-peers`" if wrong else ""


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
    """Make every environment that is not there or has other versions.

    Raises:
        RuntimeError: this is no Python that the peers have wheels for.
        CalledProcessError: pip failed.
    """
    for peer in PEERS:
        if not why_not(peer, environments):
            continue
        if sys.version_info[:2] != PYTHON:
            raise RuntimeError(f"peers need Python {PYTHON[0]}.{PYTHON[1]}, this is {sys.version.split()[0]}")
        assert peer.environment is not None
        folder = environments / peer.environment
        print(f"installing {', '.join(peer.packages)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = (str(interpreter(peer, environments)), "-m", "pip", "install", "--disable-pip-version-check")
        subprocess.run([*pip, "--progress-bar", "off", *wanted(peer)], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
