"""Rotary embeddings of places in a map: pairs of neighbouring channels turn by the column or by the row."""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.ops.resize import Size


def axial_rotation(
    size: Size, channels: int, *, theta: float = 10_000.0, device: torch.device | str | None = None
) -> Tensor:
    """Half of the pairs turn by the column, the other half by the row, each with falling speed.

    Args:
        size: (h, w).
        channels: D, a multiple of 4.
        theta: the slowest pair turns 1 / theta as fast as the first, nearly.
        device: where to.

    Returns:
        (h * w, D / 2) complex64 of absolute value 1: the turns at the places, row by row.

    Source: Heo et al., "Rotary Position Embedding for Vision Transformer", ECCV 2024, section 3.2 (axial).
    """
    height, width = size
    speeds = theta ** -(torch.arange(0, channels, 4, dtype=torch.float32, device=device) / channels)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None, None] * speeds
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * speeds
    parts = columns.expand(height, -1, -1), rows.expand(-1, width, -1)  # each (h, w, D / 4)
    angles = torch.cat(parts, dim=-1).flatten(0, 1)  # (h, w, D / 2) -> (h * w, D / 2)
    return torch.complex(angles.cos(), angles.sin())


def rotated(tokens: Tensor, rotation: Tensor) -> Tensor:
    """Tokens turned, in float32: a product of complex numbers, a tenth of the time of products of halves.

    Args:
        tokens: (..., P, D) any float type, neighbouring channels are pairs.
        rotation: (P, D / 2) at the P places.

    Returns:
        (..., P, D) of the same type.
    """
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)))  # (..., P, D) -> (..., P, D / 2)
    return torch.view_as_real(pairs * rotation).flatten(-2).to(tokens.dtype)
