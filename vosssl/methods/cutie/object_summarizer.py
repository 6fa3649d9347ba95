"""Object summaries: an object and its surroundings in a few vectors, from values and masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosssl.methods.cutie.layers import SinePositions
from vosssl.ops.resize import mean_of_cells


class ObjectSummarizer(nn.Module):
    """Sums of features under learned weights, half of them inside the mask, half outside.

    Args:
        width: channels of values and summaries.
        queries: Q, summaries per object.
    """

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.pos_enc = SinePositions(width)
        self.input_proj = nn.Linear(width, width)
        self.feature_pred = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width)
        )
        self.weights_pred = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, queries)
        )

    def tokens(self, values: Tensor) -> Tensor:
        """Values (B, N, C, h, w) with their positions (B*N, h*w, C)."""
        height, width = values.shape[-2:]
        flat = values.flatten(0, 1).flatten(2).transpose(1, 2)  # (B, N, C, h, w) -> (B*N, h*w, C)
        return self.input_proj(flat) + self.pos_enc(height, width)

    def forward(self, masks: Tensor, values: Tensor) -> Tensor:
        """Summaries of one frame, to be added to those of earlier ones.

        Args:
            masks: (B, N, H, W) in [0, 1].
            values: (B, N, C, h, w).

        Returns:
            (B, N, Q, C + 1): sums of features, and behind them the sum of their weights.
        """
        inside = mean_of_cells(masks, (values.shape[-2], values.shape[-1])).flatten(0, 1).flatten(1)
        tokens = self.tokens(values)
        with torch.autocast(values.device.type, enabled=False):
            tokens = tokens.to(self.input_proj.weight.dtype)
            features = self.feature_pred(tokens)
            weights = self.weights_pred(tokens).sigmoid().transpose(1, 2)  # (B*N, h*w, Q) -> (B*N, Q, h*w)
            half = self.queries // 2
            weights = torch.cat(
                [weights[:, :half] * inside[:, None], weights[:, half:] * (1 - inside)[:, None]], dim=1
            )
            sums = weights @ features  # (B*N, Q, h*w) @ (B*N, h*w, C) -> (B*N, Q, C)
            summaries = torch.cat([sums, weights.sum(dim=-1, keepdim=True)], dim=-1)
        return summaries.unflatten(0, masks.shape[:2])  # -> (B, N, Q, C + 1)
