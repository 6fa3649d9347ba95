"""Layer normalisation of feature maps: over the channels of each place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalises (N, C, h, w) over C; fastest on maps in channels-last memory, which it returns.

    Args:
        channels: C.
        eps: added to the variance; SAM's maps use 1e-6.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        tokens = maps.permute(0, 2, 3, 1)  # (N, C, h, w) -> (N, h, w, C)
        normed = F.layer_norm(tokens, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)  # (N, h, w, C) -> (N, C, h, w)
