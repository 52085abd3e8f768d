"""Switchable batch norm (paper III-C): a norm per weight-enabling pattern of the layer that feeds it."""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wenet_trainer.layers import WeightEnabled

BatchNorm = _BatchNorm  # torch's common base of its batch norms has no public name


class SwitchableBatchNorm(BatchNorm):
    """A batch norm per pattern, switched by the layer that feeds it.

    It is itself the norm of pattern 1, so the full network's parameter names stay those of a plain
    network; `patterns` holds the others. It may stand behind a depthwise convolution: `fed_by` is the
    weight-enabled layer whose pattern decides, not the module just before it.
    """

    plain: ClassVar[type[BatchNorm]]

    def __init__(
        self, channels: int, *, fed_by: WeightEnabled, eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        # In a tuple, so that it is no submodule (its weights are not ours), yet deepcopy follows it.
        self._fed_by = (fed_by,)
        self.patterns = nn.ModuleDict(
            {str(level): self.plain(channels, eps, momentum) for level in fed_by.groups_allowed if level > 1}
        )

    @property
    def fed_by(self) -> WeightEnabled:
        """The weight-enabled layer whose active pattern decides."""
        return self._fed_by[0]

    def norms(self) -> Iterator[tuple[int, BatchNorm]]:
        """Every pattern's batch norm, with pattern 1 being this module."""
        yield 1, self
        for level, norm in self.patterns.items():
            assert isinstance(norm, BatchNorm)
            yield int(level), norm

    def active_norm(self) -> BatchNorm:
        """The batch norm that the next forward uses; may be this module itself."""
        return dict(self.norms())[self.fed_by.active_groups]

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, …) → the same, normalised with the active pattern's parameters."""
        groups = self.fed_by.active_groups
        if groups == 1:
            return super().forward(input)
        out: Tensor = self.patterns[str(groups)](input)
        return out


class SwitchableBatchNorm1d(SwitchableBatchNorm, nn.BatchNorm1d):
    """Behind a dense layer: (N, C)."""

    plain = nn.BatchNorm1d


class SwitchableBatchNorm2d(SwitchableBatchNorm, nn.BatchNorm2d):
    """Behind a convolution: (N, C, H, W)."""

    plain = nn.BatchNorm2d
