"""Slot groups: background and foreground slots, told apart by what the class token looks at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vosssl.ops.foreground import foreground_from_cls_attention


class ForegroundGroups(nn.Module):
    """Background slots see background patches, foreground slots the others.

    Args:
        dim: slot width D.
        counts: numbers of background and foreground slots; other numbers of slots are split in this
            proportion.
        strategy: restrict `always`, or only on the `initial` frame.

    Source: after DINOSAVi (github.com/Interpause/dinosavi), `bgfg`.
    """

    def __init__(
        self, dim: int, *, counts: tuple[int, int] = (5, 5), strategy: Literal["always", "initial"] = "always"
    ) -> None:
        super().__init__()
        self.counts = (counts[0], counts[1])
        self.strategy = strategy
        self.offsets = nn.Parameter(torch.randn(2, dim) * dim**-0.5)

    def group_of(self, num_slots: int) -> Tensor:
        """(K,) int64: 0 for background slots, which come first, 1 for foreground slots."""
        background = round(num_slots * self.counts[0] / sum(self.counts))
        return (torch.arange(num_slots, device=self.offsets.device) >= background).long()

    def forward(self, slots: Tensor) -> Tensor:
        """Adds each group's learned offset to initial slots: (B, K, D) -> (B, K, D)."""
        return slots + self.offsets[self.group_of(slots.shape[1])]

    def visible(self, cls_attention: Tensor | None, *, num_slots: int, first: bool) -> Tensor | None:
        """Which patches each slot may see.

        Args:
            cls_attention: (N, heads, P).
            num_slots: K.
            first: whether this is the first frame.

        Returns:
            (N, K, P) bool, or None where nothing is restricted.

        Raises:
            ValueError: the encoder gave no attention.
        """
        if self.strategy == "initial" and not first:
            return None
        if cls_attention is None:
            raise ValueError(
                "slot groups need the class token's attention; build the encoder with cls_attention"
            )
        foreground = foreground_from_cls_attention(cls_attention)  # (N, P)
        return foreground[:, None] == self.group_of(num_slots)[:, None].bool()  # (N, K, P)
