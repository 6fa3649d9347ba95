"""The colours of object ids in label files."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def davis_palette() -> Tensor:
    """The palette of DAVIS annotations: id -> colour.

    Returns:
        (256, 3) uint8 RGB: 22 distinct colours, then greys; void is white.

    Source: the palette inside DAVIS-2017 PNGs: PASCAL VOC's bit pattern with 191 for 192, greys from 22 on.
    """
    ids = torch.arange(256)
    channels = [
        (128 * (ids >> bit & 1) + 64 * (ids >> (bit + 3) & 1)).clamp(max=191) for bit in range(3)
    ]  # 3 x (256,)
    palette = torch.stack(channels, dim=1)  # (256, 3)
    palette[22:] = ids[22:, None]
    return palette.to(torch.uint8)
