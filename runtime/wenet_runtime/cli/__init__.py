"""`wenet-runtime`: the only place that exits, prints and configures logging."""

from wenet_runtime.cli.commands import main

__all__ = ["main"]
