"""Batch norms of a slimmable network: statistics for each width level, with private or with shared γ and β."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm
from wenet_trainer.peers.slimmable_layers import check_arrival


class SharingBatchNorm(BatchNorm):
    """A batch norm of the first `channels` of another, with the other's γ and β but statistics of its own.

    Args:
        owner: has γ and β; at least as wide.
        channels: how many of its channels.
    """

    def __init__(self, owner: BatchNorm, channels: int) -> None:
        super().__init__(
            channels, owner.eps, owner.momentum, affine=False, track_running_stats=owner.running_mean is not None
        )
        # In a tuple, so that it is no submodule (its parameters are counted once), yet deepcopy follows it.
        self._owner = (owner,)

    def affine_in_use(self) -> list[Tensor]:
        """(channels,) γ and β as views of the owner's; none where it has none."""
        return [part[: self.num_features] for part in self._owner[0].parameters(recurse=False)]

    def forward(self, input: Tensor) -> Tensor:
        """(N, channels, …) → the same, normalised."""
        weight, bias = self.affine_in_use() or (None, None)
        momentum = self.momentum or 0.0
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # torch's word for a cumulative average
                momentum = 1.0 / float(self.num_batches_tracked)
        by_batch = self.training or self.running_mean is None
        return F.batch_norm(input, self.running_mean, self.running_var, weight, bias, by_batch, momentum, self.eps)


class SlimmableBatchNorm(nn.Module):
    """S-BN of a slimmable network: each width level has statistics of its own, of just its channels.

    γ and β are private to each level too, as in slimmable networks, or those of level 1, of which the others
    use the first channels, as in universally slimmable ones.

    Args:
        norm: what every level starts from; of a switchable one, pattern 1.
        outs: channels of each level, from level 1 on, descending.
        shared_affine: all levels use one γ and β.
    """

    def __init__(self, norm: BatchNorm, outs: Sequence[int], *, shared_affine: bool = False) -> None:
        super().__init__()
        kind = norm.plain if isinstance(norm, SwitchableBatchNorm) else type(norm)
        widest = kind(outs[0], norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.widths = nn.ModuleDict()
        for level, channels in enumerate(outs, start=1):
            own: BatchNorm = widest
            if level > 1 and shared_affine:
                own = SharingBatchNorm(widest, channels)
            elif level > 1:
                own = kind(channels, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
            sliced = {name: value[:channels] if value.dim() else value for name, value in norm.state_dict().items()}
            own.load_state_dict({name: sliced[name] for name in own.state_dict()})
            self.widths[str(level)] = own
        self.level = 1

    def active(self) -> BatchNorm:
        """The batch norm of the level in use."""
        norm = self.widths[str(self.level)]
        assert isinstance(norm, BatchNorm)
        return norm

    def affine_in_use(self) -> list[Tensor]:
        """γ and β of the level in use, as views; none where the norm has none."""
        norm = self.active()
        return norm.affine_in_use() if isinstance(norm, SharingBatchNorm) else list(norm.parameters())

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, …) → the same, normalised by the batch norm of the level in use."""
        norm = self.active()
        check_arrival(input.shape[1], norm.num_features)
        out: Tensor = norm(input)
        return out
