"""`wenet-runtime`: the only place that exits, prints and configures logging."""

import sys

from wenet_runtime import __version__


def main() -> None:
    """Entry point of `wenet-runtime`. Its version is told before anything is loaded, which takes longer than that."""
    if sys.argv[1:] == ["--version"]:
        print(f"wenet-runtime {__version__}")
        return
    from wenet_runtime.cli.commands import app

    app()
