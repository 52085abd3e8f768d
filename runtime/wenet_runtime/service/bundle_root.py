"""The folder that bundles may come from while the server runs, and what may be told of what lies there."""

import re
from pathlib import Path

from wenet_runtime.service.problems import Problem

MAX_PATH = 1024
# Enough of a path to say where things lie. A fraction or a ratio has no slash at its beginning.
_PATH = re.compile(r"(?<![\w.])(?:~|\.{1,2})?(?:/[^\s/:;,'\"()]+)+/?")


def place_of(root: Path, given: str) -> Path:
    """The directory that a request names, links resolved.

    Args:
        root: bundles may come from inside of it, at any depth.
        given: absolute, or relative to the root.

    Raises:
        Problem: bundle-invalid; it is not inside, or not there. Which of both is told only of what is inside.
    """
    if not given or len(given) > MAX_PATH or "\0" in given:
        raise Problem("bundle-invalid", f"'path' has {len(given)} characters: name a bundle's directory")
    wanted = Path(given)
    inside = root.resolve()
    try:
        place = (inside / wanted).resolve()
        if ".." in wanted.parts or place == inside or inside not in place.parents:
            raise Problem("bundle-invalid", "'path' is not inside the folder that bundles may come from: --bundle-root")
        if not place.is_dir():
            raise Problem("bundle-invalid", "there is no bundle: copy it below --bundle-root first")
    except (OSError, RuntimeError, ValueError):  # too long, not to be entered, a loop of links, no text
        raise Problem("bundle-invalid", "'path' cannot be looked at: name a bundle's directory") from None
    return place


def without_paths(text: str) -> str:
    """A message for whoever asks over the network, without where things lie on this machine."""
    return _PATH.sub("…", text)
