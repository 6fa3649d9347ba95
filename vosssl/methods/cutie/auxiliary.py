"""Auxiliary heads, used in training only; what the official checkpoints hold of them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class AuxiliaryLogits(NamedTuple):
    """Log-odds of objects that compete, background first.

    Attributes:
        sensory: (B, N + 1, h, w), from the sensory memory.
        queries: (B, N + 1, L, h, w), of the object transformer: before each block and behind the last.
    """

    sensory: Tensor
    queries: Tensor


class _SensoryHead(nn.Module):
    def __init__(self, sensory_width: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(sensory_width, width + 1, 1)


class AuxiliaryHeads(nn.Module):
    """Mask logits from the sensory memory: a filter per place and object, applied to the frame's features.

    Args:
        sensory_width: channels of the sensory memory.
        width: channels of the frame's features.
    """

    def __init__(self, sensory_width: int, width: int) -> None:
        super().__init__()
        self.sensory_aux = _SensoryHead(sensory_width, width)

    def forward(self, features: Tensor, sensory: Tensor) -> Tensor:
        """Features (B, C, h, w) and sensory memory (B, N, S, h, w) to logits (B, N, h, w)."""
        filters = self.sensory_aux.projection(sensory.flatten(0, 1)).unflatten(0, sensory.shape[:2])
        return (features.unsqueeze(1) * filters[:, :, :-1]).sum(dim=2) + filters[:, :, -1]
