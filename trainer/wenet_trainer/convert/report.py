"""What a conversion gives back: the supernet, what was changed in it, and what was not and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Note:
    """Something that was left as it was, or that is good to know: the module's name and the reason."""

    module: str
    reason: str

    def __str__(self) -> str:
        return f"'{self.module}': {self.reason}"


@dataclass(frozen=True)
class Conversion:
    """A foreign network as a supernet.

    Attributes:
        net: the supernet, of the original's class; the original itself is unchanged.
        layers: its weight-enabled layers by module name, in the order in which they are called.
        norms: switched batch norm → the layer whose pattern switches it.
        shuffles: weight-enabled layer → the module behind it that shuffles its input first.
        notes: what was left as it was, and why.
    """

    net: nn.Module
    layers: tuple[str, ...]
    norms: Mapping[str, str]
    shuffles: Mapping[str, str]
    notes: tuple[Note, ...]

    def __str__(self) -> str:
        """A line on what was changed, then a line for every note."""
        done = (
            f"{len(self.layers)} weight-enabled convolutions, {len(self.norms)} switchable batch norms, "
            f"{len(self.shuffles)} channel shuffles"
        )
        return "\n".join((done, *(f"  {note}" for note in self.notes)))
