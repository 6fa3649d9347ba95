"""The colours of object ids, and frames with their labels drawn on."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID


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


def draw_labels(image: Tensor, labels: Tensor, *, opacity: float = 0.5, outline: bool = True) -> Tensor:
    """A frame with its objects tinted in their palette colours; background and void stay as they are.

    Args:
        image: (3, H, W) uint8 RGB.
        labels: (H, W) uint8 ids on the same device.
        opacity: of the tint, in [0, 1].
        outline: draw a border one pixel wide, inside each object, in its full colour.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: sizes that disagree.
    """
    if tuple(image.shape[1:]) != tuple(labels.shape):
        raise ValueError(
            f"labels are {tuple(labels.shape)} for an image of {tuple(image.shape)}, expected one id per "
            "pixel; resize the labels with ops.resize.resize_labels"
        )
    colours = davis_palette().to(image.device)[labels.long()].permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    weight = torch.where((labels > 0) & (labels != VOID), opacity, 0.0)  # (H, W)
    if outline:
        weight[_inner_border(labels) & (weight > 0)] = 1.0
    blended = image.float().lerp(colours.float(), weight)
    return blended.round().to(torch.uint8)


def _inner_border(labels: Tensor) -> Tensor:
    """(H, W) bool: pixels with a neighbour (4-connected) of another id."""
    padded = F.pad(labels[None, None].float(), (1, 1, 1, 1), mode="replicate")[0, 0]  # (H + 2, W + 2)
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return torch.stack([neighbour != centre for neighbour in neighbours]).any(0)
