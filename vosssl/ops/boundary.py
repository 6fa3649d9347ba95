"""Boundaries of masks, and exact discs around them.

Everything here works on *bit maps*: integers whose bit k says whether the pixel is in mask k. One map of
uint8 carries eight masks, so that the boundaries of all objects are found, and dilated, in one pass.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

BITS = 8  # masks in one map


def boundary_radius(height: int, width: int, *, ratio: float = 0.008) -> int:
    """How far a contour may be off: a share of the image diagonal, rounded up.

    Args:
        height: pixels.
        width: pixels.
        ratio: share of the diagonal.

    Returns:
        Pixels; 8 for 480 x 854.
    """
    return math.ceil(ratio * math.hypot(height, width))


def disc_half_widths(radius: int) -> list[int]:
    """Half width of the disc dx^2 + dy^2 <= r^2 in each of its rows, dy = -r .. r.

    OpenCV's MORPH_ELLIPSE is another shape for every r > 1.

    Args:
        radius: pixels.

    Returns:
        2 r + 1 half widths: row dy covers dx = -w .. w.
    """
    return [math.isqrt(radius * radius - dy * dy) for dy in range(-radius, radius + 1)]


def unpack_bits(bits: Tensor, count: int) -> Tensor:
    """Bit maps as one row per mask.

    Args:
        bits: (M, ...) uint8.
        count: N <= 8 M, masks wanted.

    Returns:
        (N, ...) uint8, 0 or 1.
    """
    shift = torch.arange(BITS, dtype=torch.uint8, device=bits.device).view(1, BITS, *[1] * (bits.ndim - 1))
    return ((bits.unsqueeze(1) >> shift) & 1).flatten(0, 1)[:count]  # (M, ...) -> (M, 8, ...) -> (N, ...)


def boundary_map(masks: Tensor) -> Tensor:
    """Where a mask differs from its right, lower or lower-right neighbour.

    In the last row only the right neighbour counts, in the last column only the lower one, and the
    bottom-right pixel is never set: the image border makes no boundary.

    Args:
        masks: (..., H, W) bool, or integers as bit maps (each bit is a mask of its own).

    Returns:
        (..., H, W) of the same dtype.

    Source: seg2bmap of Martin et al., PAMI 2004, as the DAVIS toolkit applies it.
    """
    height, width = masks.shape[-2:]
    edges = torch.empty(masks.shape, dtype=masks.dtype, device=masks.device)
    if height > 1 and width > 1:  # all at once; what wraps around at the end of a row is overwritten below
        flat, inner = masks.flatten(-2), height * width - width - 1
        here = flat[..., :inner]
        around = here ^ flat[..., 1 : inner + 1]
        around |= here ^ flat[..., width : inner + width]
        around |= here ^ flat[..., width + 1 :]
        edges.flatten(-2)[..., :inner] = around
    edges[..., :-1, -1] = masks[..., :-1, -1] ^ masks[..., 1:, -1]
    edges[..., -1, :-1] = masks[..., -1, :-1] ^ masks[..., -1, 1:]
    edges[..., -1, -1] = 0
    return edges


def run_unions(rows: Tensor, radius: int) -> list[Tensor]:
    """Unions of 1, 2, 4, ... positions to the right, up to the width of the disc.

    Args:
        rows: (..., L) bool or bit maps: rows of pixels one after the other, so that shifting is one
            contiguous operation. Where rows end, margins have to keep them apart.
        radius: r in pixels.

    Returns:
        Element j is (..., L - 2^j + 1): the union over the 2^j positions that start here.
    """
    unions = [rows]
    for level in range((2 * radius + 1).bit_length() - 1):
        unions.append(unions[-1][..., : -(1 << level)] | unions[-1][..., 1 << level :])
    return unions


@cache
def disc_runs(radius: int, stride: int) -> dict[int, list[int]]:
    """The disc as runs of 2^level pixels.

    Args:
        radius: r in pixels.
        stride: positions from one row to the next.

    Returns:
        level -> where runs of that length start, from the top-left corner of the disc's square.
    """
    runs: dict[int, list[int]] = {}
    for row, half in enumerate(disc_half_widths(radius)):
        level = (2 * half + 1).bit_length() - 1
        ends = {radius - half, radius + half + 1 - (1 << level)}  # two runs that overlap make any length
        runs.setdefault(level, []).extend(row * stride + start for start in sorted(ends))
    return runs


def dilate_disc(maps: Tensor, radius: int) -> Tensor:
    """Dilates by the exact disc dx^2 + dy^2 <= r^2; outside the image counts as unset.

    Args:
        maps: (..., H, W) bool or bit maps.
        radius: r in pixels.

    Returns:
        (..., H, W) of the same dtype.
    """
    height, width = maps.shape[-2:]
    stride = width + 2 * radius
    padded = torch.nn.functional.pad(maps, (radius,) * 4)  # (..., H + 2 r, W + 2 r)
    unions = run_unions(padded.flatten(-2), radius)
    dilated = maps.new_zeros(*maps.shape[:-2], height * stride)
    count = height * stride - 2 * radius  # up to the last pixel of the last row
    for level, starts in disc_runs(radius, stride).items():
        for start in starts:
            dilated[..., :count] |= unions[level][..., start : start + count]
    return dilated.unflatten(-1, (height, stride))[..., :width]


def set_pixels(image: Tensor) -> Tensor:
    """Flat indices of what is not zero, fast where little is set: eight pixels are looked at as one number.

    Args:
        image: (..., H, W) uint8.

    Returns:
        (P,) int64, rising.
    """
    flat = image.flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)) if len(flat) % 8 else flat
    words = flat.view(torch.int64)  # (H * W / 8,)
    used = words.nonzero().flatten()
    inside = words.index_select(0, used).view(torch.uint8).nonzero().flatten()  # byte of the used words
    return used.index_select(0, inside >> 3) * 8 + (inside & 7)


def union(rows: Tensor) -> Tensor:
    """Bitwise or over the first axis.

    Args:
        rows: (S, ...) bool or bit maps, S >= 1.

    Returns:
        (...) of the same dtype.
    """
    while (count := rows.shape[0]) > 1:
        half = count // 2
        merged = rows[:half] | rows[half : 2 * half]
        rows = torch.cat([merged, rows[2 * half :]]) if count % 2 else merged
    return rows[0]
