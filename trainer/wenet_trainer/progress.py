"""Progress bars: nothing longer than two seconds runs in silence."""

from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

__all__ = ["tqdm"]
