"""Linear layers with an activation between them, as Segment Anything names them: `layers.0`, `layers.1`, …"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class LinearStack(nn.Module):
    """A stack of linear layers; `layers` counts these alone.

    Args:
        input_dim: width of the input.
        output_dim: width of the output.
        hidden_dim: width between.
        depth: number of linear layers.
        activation: between them.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        hidden_dim: int,
        depth: int = 3,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (depth - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.activate = F.relu if activation == "relu" else F.gelu

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., input_dim) to (..., output_dim)."""
        values = inputs
        for layer in self.layers[:-1]:
            values = self.activate(layer(values))
        return self.layers[-1](values)
