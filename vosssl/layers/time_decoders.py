"""Time decoders: slots of one frame become slots of several time steps, each of which is then decoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LinearTimeDecoder(nn.Module):
    """One linear layer per time step.

    Args:
        dim: slot width D.
        steps: S time steps, such as (0, 1): present and next frame.

    Source: after DINOSAVi (github.com/Interpause/dinosavi), `tline`.
    """

    def __init__(self, dim: int, steps: Sequence[int]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in self.steps)

    def forward(self, slots: Tensor) -> Tensor:
        """(N, K, D) -> (N, S, K, D)."""
        return torch.stack([layer(slots) for layer in self.layers], dim=1)


class AttentionTimeDecoder(nn.Module):
    """One multi-head self-attention among the slots per time step, residual.

    Args:
        dim: slot width D.
        steps: S time steps.
        heads: attention heads.

    Source: after DINOSAVi (github.com/Interpause/dinosavi), `attn`.
    """

    def __init__(self, dim: int, steps: Sequence[int], *, heads: int = 4) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleList(nn.MultiheadAttention(dim, heads, batch_first=True) for _ in self.steps)

    def forward(self, slots: Tensor) -> Tensor:
        """(N, K, D) -> (N, S, K, D)."""
        steps = [slots + layer(slots, slots, slots, need_weights=False)[0] for layer in self.layers]
        return torch.stack(steps, dim=1)


class SharedTimeDecoder(nn.Module):
    """The same slots for every time step.

    Args:
        steps: S time steps.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__()
        self.steps = tuple(steps)

    def forward(self, slots: Tensor) -> Tensor:
        """(N, K, D) -> (N, S, K, D)."""
        return slots[:, None].expand(-1, len(self.steps), -1, -1)
