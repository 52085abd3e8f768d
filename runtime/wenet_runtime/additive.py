"""A cost as a sum: the full network's, a term per layer and its groups, a term per pair of neighbours."""

from dataclasses import dataclass, field
from typing import Mapping, Tuple


@dataclass(frozen=True)
class PairTerm:
    """What two neighbouring layers cost together beyond their own terms, e.g. for the shuffle between them.

    Attributes:
        first, second: layer names, in the order in which they run.
        costs: by both layers' groups, as "4.16"; what is not there costs nothing.
    """

    first: str
    second: str
    costs: Mapping[str, float]

    def of(self, groups: Mapping[str, int]) -> float:
        """The term of a configuration."""
        return self.costs.get(f"{groups[self.first]}.{groups[self.second]}", 0.0)


@dataclass(frozen=True)
class AdditiveCost:
    """Milliseconds or millijoules of any configuration of one network on one device.

    Attributes:
        full: what the full network costs.
        terms: layer → groups → how much more it costs than with one group (mostly below 0).
        pairs: of neighbours.
    """

    full: float
    terms: Mapping[str, Mapping[int, float]]
    pairs: Tuple[PairTerm, ...] = field(default=())

    def of(self, groups: Mapping[str, int]) -> float:
        """What a configuration costs: groups by layer, one for every layer in `terms`.

        Raises:
            KeyError: a layer is missing, or has groups that were not measured.
        """
        alone = sum(levels[groups[name]] for name, levels in self.terms.items())
        return self.full + alone + sum(pair.of(groups) for pair in self.pairs)
