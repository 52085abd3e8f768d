"""The space of configurations: which groups each layer may have and which layers move together."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import clip_groups
from wenet_trainer.supernet import Flexible, layer_blocks, weight_enabled

GRANULARITIES = ("layer", "block")


class GroupConfig(Mapping[str, int]):
    """One sub-network: layer name → groups. A value: hashable, equal by content, never changed."""

    __slots__ = ("_groups", "_hash")

    def __init__(self, groups: Mapping[str, int]) -> None:
        self._groups = dict(groups)
        self._hash = hash(frozenset(self._groups.items()))

    def __getitem__(self, name: str) -> int:
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupConfig) and self._groups == other._groups

    def __repr__(self) -> str:
        return f"GroupConfig({self._groups})"


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen.

    Attributes:
        allowed: layer name → its patterns, ascending from 1.
        knobs: layers that move together; each knob has the levels of its widest-ranging layer,
            the others are clipped.
    """

    allowed: Mapping[str, tuple[int, ...]]
    knobs: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, net: nn.Module, granularity: str = "layer") -> "SearchSpace":
        """The space of a supernet, with one knob per layer or per residual block."""
        if granularity not in GRANULARITIES:
            raise NetworkError(f"unknown granularity '{granularity}': known are {', '.join(GRANULARITIES)}")
        if isinstance(net, Flexible):
            return cls(net.levels, tuple((name,) for name in net.levels))
        allowed = {name: layer.groups_allowed for name, layer in weight_enabled(net).items()}
        if not allowed:
            raise NetworkError("the network has no weight-enabled layers: convert it or build it with them")
        knobs = layer_blocks(net) if granularity == "block" else tuple((name,) for name in allowed)
        return cls(allowed, tuple(knob for knob in knobs if any(len(allowed[name]) > 1 for name in knob)))

    def uniform(self, groups: int) -> GroupConfig:
        """The same pattern everywhere, clipped to what each layer allows."""
        return GroupConfig({name: clip_groups(groups, levels) for name, levels in self.allowed.items()})

    def full(self) -> GroupConfig:
        """The full network."""
        return self.uniform(1)

    def smallest(self) -> GroupConfig:
        """The network with every layer at its highest pattern."""
        return self.uniform(max(max(levels) for levels in self.allowed.values()))

    def uniforms(self) -> tuple[GroupConfig, ...]:
        """Every distinct uniform configuration, from the full network to the smallest."""
        levels = sorted({level for levels in self.allowed.values() for level in levels})
        return tuple(self.uniform(level) for level in levels)

    def sample(self, rng: random.Random) -> GroupConfig:
        """A configuration with every knob drawn uniformly and independently (Algorithm 1, line 13)."""
        groups = self.full()
        chosen = {knob: rng.choice(self.levels(knob)) for knob in self.knobs}
        for knob, level in chosen.items():
            groups = self._moved(groups, knob, level)
        return groups

    def neighbours(self, config: Mapping[str, int]) -> tuple[GroupConfig, ...]:
        """Every configuration with one knob raised by one level (Algorithm 2, line 5)."""
        raised = []
        for knob in self.knobs:
            current = max(config[name] for name in knob)
            higher = [level for level in self.levels(knob) if level > current]
            if higher:
                raised.append(self._moved(GroupConfig(config), knob, higher[0]))
        return tuple(raised)

    def levels(self, knob: tuple[str, ...]) -> tuple[int, ...]:
        """The patterns that a knob may be set to, ascending from 1."""
        return max((self.allowed[name] for name in knob), key=len)

    def vector(self, config: Mapping[str, int]) -> tuple[int, ...]:
        """A configuration as the index of every knob's level, in the knobs' order; all 0 is the full network.

        Raises:
            NetworkError: the layers of a knob are not at one level of it.
        """
        indices = []
        for knob in self.knobs:
            levels = self.levels(knob)
            level = max(config[name] for name in knob)
            if level not in levels or any(config[name] != clip_groups(level, self.allowed[name]) for name in knob):
                found = ", ".join(f"{name}: {config[name]}" for name in knob)
                raise NetworkError(
                    f"no level of a knob gives its layers these groups ({found}): search with granularity 'layer'"
                )
            indices.append(levels.index(level))
        return tuple(indices)

    def config(self, vector: Sequence[int]) -> GroupConfig:
        """The configuration whose knobs stand at these levels: what `vector` gives, backwards."""
        groups = dict(self.full())
        for knob, index in zip(self.knobs, vector, strict=True):
            level = self.levels(knob)[index]
            groups.update((name, clip_groups(level, self.allowed[name])) for name in knob)
        return GroupConfig(groups)

    def _moved(self, config: GroupConfig, knob: tuple[str, ...], level: int) -> GroupConfig:
        return GroupConfig({**config, **{name: clip_groups(level, self.allowed[name]) for name in knob}})
