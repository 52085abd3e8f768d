"""Files of sysfs that are read many times a second: a file object would cost more than the reading."""

import os
from pathlib import Path


def read_file(path: Path) -> bytes:
    """The beginning of a file, which holds a name or a number. Raises `OSError`."""
    opened = os.open(path, os.O_RDONLY)
    try:
        return os.read(opened, 64)
    finally:
        os.close(opened)


def read_number(path: Path) -> int:
    """The whole number that a file holds. Raises `OSError`, `ValueError`."""
    return int(read_file(path))
