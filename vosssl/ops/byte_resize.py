"""Resizing 8-bit images as Pillow does, bit for bit: networks of the SAM family were given such images.

Torch resizes bytes with coarser weights, and floats round elsewhere: single values differ by one. Weights
here are integers of 22 binary digits, and each axis is rounded on its own, columns before rows. Pillow 13
takes rows first where an image loses far more rows than columns; then values can differ by one from it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Filter = Literal["bilinear", "bicubic"]
PRECISION = 22  # binary digits of a weight: 8 of a pixel and 2 of overshoot remain of 32
REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of a filter to each side, in pixels of the smaller image


def resize_bytes(image: Tensor, size: tuple[int, int], *, kind: Filter = "bilinear") -> Tensor:
    """Resizes an image of bytes, antialiased when it shrinks.

    Args:
        image: (..., H, W) uint8.
        size: (height, width) wanted.
        kind: bilinear, or bicubic with a = -1/2.

    Returns:
        (..., height, width) uint8; the same tensor when the size fits already.

    Raises:
        ValueError: another type.

    Source: Pillow, `Image.resize` of 8-bit images.
    """
    if image.dtype != torch.uint8:
        raise ValueError(f"image is {image.dtype}, expected uint8; resize_image is for floats")
    for axis, length in ((-1, size[1]), (-2, size[0])):
        if image.shape[axis] != length:
            image = _resize_axis(image, axis, length, kind)
    return image


def _resize_axis(image: Tensor, axis: int, length: int, kind: Filter) -> Tensor:
    places, weights = (part.to(image.device) for part in _taps(image.shape[axis], length, kind))
    lines = image.movedim(axis, 0).flatten(1).contiguous()  # (H, rest): whole lines are picked fastest
    total = torch.full((length, lines.shape[1]), 1 << (PRECISION - 1), dtype=torch.int32, device=image.device)
    for place, weight in zip(places, weights, strict=True):
        total.addcmul_(lines.index_select(0, place).int(), weight[:, None])
    rest = image.movedim(axis, 0).shape[1:]
    resized = total.bitwise_right_shift_(PRECISION).clamp_(0, 255).byte().unflatten(1, rest)
    return resized.movedim(0, axis).contiguous()


def _taps(before: int, after: int, kind: Filter) -> tuple[Tensor, Tensor]:
    """Which K pixels make a new one: places (K, after) int64 and weights (K, after) int32."""
    scale = before / after
    stretch = max(scale, 1.0)
    reach = REACH[kind] * stretch
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    first = (centres - reach + 0.5).clamp(min=0).long()
    last = (centres + reach + 0.5).long().clamp(max=before)  # excluded
    places = first + torch.arange(2 * math.ceil(reach) + 1)[:, None]  # (K, after)
    weights = _filter((places - centres + 0.5) / stretch, kind) * (places < last)
    weights = weights / weights.sum(dim=0) * (1 << PRECISION)
    rounded = (weights + 0.5 * weights.sign()).trunc().int()
    return places.clamp(max=before - 1), rounded


def _filter(distance: Tensor, kind: Filter) -> Tensor:
    x = distance.abs()
    if kind == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
