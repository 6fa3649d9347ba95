"""Codes of places in a map: sines and cosines of rising wave lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosssl.ops.resize import Size


def sine_positions(size: Size, channels: int, *, device: torch.device | str | None = None) -> Tensor:
    """One code for every place: the row in the first half of the channels, the column in the second.

    Places count from 1 and are scaled to turns of the circle, 2 pi at the last one, then divided by wave
    lengths from 1 to 10,000; sine and cosine alternate.

    Args:
        size: (h, w).
        channels: C, a multiple of 4.
        device: where to.

    Returns:
        (1, C, h, w) float32.

    Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, appendix A.4
    (normalised, as in SAM 2).
    """
    quarter = channels // 4
    wave_lengths = 10_000 ** (torch.arange(quarter, dtype=torch.float32, device=device) * 2 / (channels // 2))
    codes = []
    for side in size:
        places = torch.arange(1, side + 1, dtype=torch.float32, device=device)
        angles = (places / (side + 1e-6) * (2 * math.pi))[:, None] / wave_lengths  # (side, C / 4)
        codes.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))  # (side, C / 2)
    rows = codes[0][:, None].expand(-1, size[1], -1)
    columns = codes[1][None].expand(size[0], -1, -1)
    return torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None]  # (h, w, C) -> (1, C, h, w)
