"""The report of `bench`: where it is written, what is in it, and what is printed of it."""

import json
import os
import platform
import tempfile
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from wenet_runtime import __version__
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.client.load import Answer
    from wenet_runtime.client.readings import Reading


def check_out(out: Optional[str]) -> None:
    """Before minutes of load, not after them. Raises `SettingsError`."""
    if out is None:
        return
    path = Path(out).absolute()
    try:
        if not out or not path.parent.is_dir() or (path.exists() and not path.is_file()):
            raise SettingsError(f"--out is '{out}': name a file in a directory that is there")
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=str(path.parent)):
            pass
    except OSError as error:
        raise SettingsError(
            f"--out is '{out}', and nothing can be written to '{path.parent}' ({error.strerror}): name another"
        ) from None


def sender() -> Dict[str, Any]:
    """What sent it: a load from a busy machine says little of the server."""
    return {
        "wenet_runtime": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def write(
    path: Path,
    report: Dict[str, Any],
    served: Dict[str, Any],
    answers: "Sequence[Answer]",
    readings: "Sequence[Reading]",
) -> None:
    """Write all that is known of a load to a file. Raises `OSError`."""
    from wenet_runtime.client.load import Answer
    from wenet_runtime.files import write_atomic

    members = {
        **report,
        "modes": served["modes"],
        "readings": [asdict(one) for one in readings],
        "sample_fields": [one.name for one in fields(Answer)],
        "samples": [[round(one, 4) if isinstance(one, float) else one for one in astuple(each)] for each in answers],
    }
    write_atomic(path, json.dumps(members, separators=(",", ":")).encode() + b"\n")


def tell(report: Dict[str, Any], *, as_json: bool) -> None:
    """Print the report, or its summary for a person."""
    from wenet_runtime.client.load_report import lines

    if as_json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(lines(report["summary"])))
