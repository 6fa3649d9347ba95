"""Attention over channels, then over places, by what pooling shows of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """Weighs channels by what an MLP makes of their mean and their maximum."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, width // reduction)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        scores = self.mlp(maps.mean(dim=(2, 3))) + self.mlp(maps.amax(dim=(2, 3)))
        return maps * scores.sigmoid()[..., None, None]


class SpatialGate(nn.Module):
    """Weighs places by what a 7x7 convolution makes of the maximum and the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        pooled = torch.cat([maps.amax(dim=1, keepdim=True), maps.mean(dim=1, keepdim=True)], dim=1)
        return maps * self.spatial["conv"](pooled).sigmoid()


class CBAM(nn.Module):
    """Attention over channels, then over places.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, without batch norm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(width)
        self.SpatialGate = SpatialGate()

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        return self.SpatialGate(self.ChannelGate(maps))
