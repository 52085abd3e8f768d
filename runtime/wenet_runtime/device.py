"""What a device is: whatever an engine's form of a mode and its figures depend on."""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import FrozenSet

from wenet_runtime import __version__


@dataclass(frozen=True)
class Device:
    """What an engine's figures depend on.

    Attributes:
        features: hash of the processor's instruction sets: two of one name may differ in them, a virtual
            machine may hide some, and an optimised graph is made for the width of the vectors.
    """

    machine: str
    processor: str
    features: str
    cores: int
    engine: str
    engine_version: str
    threads: int
    runtime_version: str = __version__

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def this_device(engine: str, engine_version: str, threads: int) -> Device:
    """Describe the machine this runs on."""
    processor = _entry(("model name", "Model", "Hardware")) or platform.processor() or "unknown"
    features = " ".join(sorted(processor_flags()))
    return Device(
        machine=platform.machine(),
        processor=processor,
        features=hashlib.sha256(features.encode()).hexdigest()[:16],
        cores=os.cpu_count() or 1,
        engine=engine,
        engine_version=engine_version,
        threads=threads,
    )


def processor_flags() -> FrozenSet[str]:
    """The processor's instruction sets as the system names them; empty where it does not tell."""
    return frozenset(_entry(("flags", "Features")).split())


def _entry(names: "tuple[str, ...]") -> str:
    """The first value of any of these names in the system's description of its processors."""
    try:
        described = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""  # not Linux
    found = (line for line in described if line.startswith(names) and ":" in line)
    return next((line.split(":", 1)[1].strip() for line in found), "")
