"""`--engine auto`: which engine is quickest for a bundle on this host, measured once and kept in the cache."""

import functools
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

import numpy as np

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.canary import Canary, golden_inputs
from wenet_runtime.device import this_device
from wenet_runtime.engines.auto import CANDIDATES, Selection, choose
from wenet_runtime.engines.base import Artifact, Backend, Engine
from wenet_runtime.errors import EngineError
from wenet_runtime.files import make_private, write_atomic
from wenet_runtime.profiler import sample

MakeBackend = Callable[[str], Backend]
ArtifactOf = Callable[[Backend, Mode], Artifact]


def choice_path(cache: Path, bundle: Bundle) -> Path:
    """Where the choice for a bundle lies below the cache's root."""
    return cache / bundle.sha256 / "engine.json"


def chosen_engine(
    path: Path, bundle: Bundle, make: MakeBackend, artifact_of: ArtifactOf, *, threads: int, plan_id: str, rounds: int
) -> Selection:
    """The engine chosen here earlier, or else the quickest of those that can run the bundle, measured now.

    Args:
        path: where the choice is kept.
        bundle: whose modes are run.
        make: opens an engine by name. Raises `EngineError` where it is not installed.
        artifact_of: a mode as an engine built it.
        threads, plan_id: of one inference, and how modes are emitted; a choice belongs to them.
        rounds: runs of each mode on each engine.

    Raises:
        EngineError: no engine can run the bundle here, or the choice cannot be kept.
    """
    identity = {"plan": plan_id, **_identity(bundle, make, threads)}
    known = _read(path, identity)
    if known is not None:
        return known
    inputs, canary = golden_inputs(bundle, rows=1), Canary(bundle, simulated=False)

    def load(backend: Backend, mode: Mode) -> Engine:
        return backend.load(mode, functools.partial(artifact_of, backend, mode))

    def measure(engines: Mapping[str, Engine]) -> Mapping[str, float]:
        return {name: float(np.median(taken)) for name, taken in sample(engines, inputs, rounds=rounds).items()}

    makers = {name: functools.partial(make, name) for name in CANDIDATES}
    found = choose(makers, bundle.modes, load=load, check=canary.check, measure=measure)
    members = {"identity": identity, **asdict(found)}
    try:
        make_private(path.parent)
        write_atomic(path, json.dumps(members, indent=1).encode(), mode=0o600)
    except OSError as error:
        raise EngineError(f"cannot write {path} ({error.strerror}): choose another --cache-dir") from None
    return found


def _identity(bundle: Bundle, make: MakeBackend, threads: int) -> Dict[str, str]:
    """What a choice depends on: an engine that was installed since, or another version, may be quicker."""
    versions = {}
    for name in CANDIDATES:
        try:
            backend = make(name)
        except EngineError:
            versions[name] = "not installed"
        else:
            versions[name] = backend.version
            backend.close()
    device = this_device("auto", " ".join(f"{name}={version}" for name, version in versions.items()), threads)
    return {"bundle": bundle.sha256, **{name: str(value) for name, value in asdict(device).items()}}


def _read(path: Path, identity: Mapping[str, str]) -> "Selection | None":
    try:
        members: Any = json.loads(path.read_text())
        if members.pop("identity") != identity:
            raise ValueError("it was made on another device, or with other engines")
        found = Selection(**members)
        if found.engine not in CANDIDATES:
            raise ValueError(f"it names '{found.engine}'")
        str(found)  # its members are what they should be
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(f"the choice of an engine cannot be used ({error}): measuring again", stacklevel=3)
        return None
    return found
