"""A supernet whose answers are no numbers."""

import torch
from torch import Tensor

from wenet_trainer.models.tiny import TinyNet


class BrokenNet(TinyNet):
    """TinyNet with logits that are not a number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan
