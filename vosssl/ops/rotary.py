"""Rotary embeddings of places in a map: pairs of channels turn with the column, others with the row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.ops.resize import Size


class Rotation(NamedTuple):
    """Turns of D / 2 pairs of channels at P places.

    Attributes:
        cosine, sine: (P, D / 2).
    """

    cosine: Tensor
    sine: Tensor

    def repeated(self, times: int) -> Rotation:
        """The same places several times over: (times * P, D / 2)."""
        return Rotation(self.cosine.repeat(times, 1), self.sine.repeat(times, 1))


def axial_rotation(
    size: Size, channels: int, *, theta: float = 10_000.0, device: torch.device | str | None = None
) -> Rotation:
    """Half of the pairs turn by the column, the other half by the row, each with falling speed.

    Args:
        size: (h, w).
        channels: D, a multiple of 4.
        theta: the slowest pair turns 1 / theta as fast as the first, nearly.
        device: where to.

    Returns:
        The turns at h * w places, row by row.

    Source: Heo et al., "Rotary Position Embedding for Vision Transformer", ECCV 2024, section 3.2 (axial).
    """
    height, width = size
    speeds = theta ** -(torch.arange(0, channels, 4, dtype=torch.float32, device=device) / channels)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None, None] * speeds
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * speeds
    parts = columns.expand(height, -1, -1), rows.expand(-1, width, -1)  # each (h, w, D / 4)
    angles = torch.cat(parts, dim=-1).flatten(0, 1)  # (h, w, D / 2) -> (h * w, D / 2)
    return Rotation(angles.cos(), angles.sin())


def rotated(tokens: Tensor, rotation: Rotation) -> Tensor:
    """Tokens turned.

    Args:
        tokens: (..., P, D), the first parts of all pairs, then the second ones (see `halves_first`).
        rotation: at the P places.

    Returns:
        (..., P, D), in the same order.
    """
    first, second = tokens.chunk(2, dim=-1)
    cosine, sine = rotation.cosine.to(tokens.dtype), rotation.sine.to(tokens.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def halves_first(weights: Tensor) -> Tensor:
    """Rows of a projection whose neighbours are pairs, in the order that `rotated` reads.

    Args:
        weights: (D, ...): a weight or a bias. Attention does not care for the order of channels as long as
            queries and keys share it.

    Returns:
        (D, ...): even rows, then odd ones.
    """
    return weights.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
