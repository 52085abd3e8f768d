"""`refused.json` in a device's cache: which of the modes that were built must not serve, and why."""

import json
import warnings
from pathlib import Path
from typing import Any, Dict, Mapping

from wenet_runtime.files import write_atomic

FILE = "refused.json"
MAX_BYTES = 1 << 20


def read_refused(folder: Path, *, built: str) -> Dict[str, str]:
    """Reasons by mode id; empty where all may serve.

    Args:
        folder: where the file lies.
        built: what tells the modes that are built now from others: reasons of others are not theirs.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        members: Any = json.loads(path.read_text())
        reasons = {str(mode_id): str(why) for mode_id, why in members["refused"].items()}
        return reasons if members["built"] == built else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(
            f"{path} is unreadable ({error}), so nobody knows which modes were refused: "
            "run `wenet-runtime build --verify` again",
            stacklevel=2,
        )
        return {}


def write_refused(folder: Path, reasons: Mapping[str, str], *, built: str) -> None:
    """Keep these reasons for what is built now; without any, the file goes."""
    path = folder / FILE
    if reasons:
        members = {"built": built, "refused": dict(reasons)}
        write_atomic(path, json.dumps(members, indent=1).encode(), mode=0o600)
    elif path.exists():
        path.unlink()
