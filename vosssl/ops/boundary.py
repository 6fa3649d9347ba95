"""Boundaries of masks, and exact discs around them.

Everything here works on *bit maps*: integers whose bit k says whether the pixel is in mask k. One map of
uint8 carries eight masks, so that the boundaries of all objects are found, and dilated, in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def pack_masks(labels: Tensor, ids: Sequence[int]) -> Tensor:
    """Label maps as bit maps.

    Args:
        labels: (..., H, W) uint8 ids.
        ids: N ids; bit k % 8 of map k // 8 belongs to the k-th.

    Returns:
        (ceil(N / 8), ..., H, W) uint8; at least one map.
    """
    maps = torch.zeros(max(1, -(-len(ids) // BITS)), *labels.shape, dtype=torch.uint8, device=labels.device)
    for place, identity in enumerate(ids):
        here = (~(labels ^ identity).bool()).view(torch.uint8)  # labels == identity, but vectorised
        maps[place // BITS] |= here << (place % BITS) if place % BITS else here
    return maps


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


def _row_unions(maps: Tensor, radius: int) -> list[Tensor]:
    """Unions of 1, 2, 4, ... pixels to the right, of maps padded by the radius on all sides.

    Rows lie one after the other, W + 2 r apart, so that shifting is one contiguous operation. Runs that cross
    the end of a row are wrong, and nobody reads them.

    Returns:
        Element j is (M, (H + 2 r) (W + 2 r) - 2^j + 1): the union over the 2^j pixels that start here.
    """
    unions = [torch.nn.functional.pad(maps, (radius,) * 4).flatten(-2)]
    for level in range((2 * radius + 1).bit_length() - 1):
        unions.append(unions[-1][..., : -(1 << level)] | unions[-1][..., 1 << level :])
    return unions


def _disc_runs(radius: int, stride: int) -> dict[int, list[int]]:
    """The disc as runs of 2^level pixels: level -> where they start, from the disc's top-left corner."""
    runs: dict[int, list[int]] = {}
    for row, half in enumerate(disc_half_widths(radius)):
        level = (2 * half + 1).bit_length() - 1
        ends = {radius - half, radius + half + 1 - (1 << level)}  # two runs that overlap make any length
        runs.setdefault(level, []).extend(row * stride + start for start in ends)
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
    unions = _row_unions(maps, radius)
    dilated = maps.new_zeros(*maps.shape[:-2], height * stride)
    count = height * stride - 2 * radius  # up to the last pixel of the last row
    for level, starts in _disc_runs(radius, stride).items():
        for start in starts:
            dilated[..., :count] |= unions[level][..., start : start + count]
    return dilated.unflatten(-1, (height, stride))[..., :width]


def set_pixels(image: Tensor) -> Tensor:
    """Flat indices of what is not zero, fast where little is set: eight pixels are looked at as one number.

    Args:
        image: (H, W) uint8.

    Returns:
        (P,) int64, rising.
    """
    flat = image.flatten()
    words = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)  # (H * W,) -> (-1, 8)
    used = words.view(torch.int64).flatten().nonzero().flatten()
    inside = words[used].nonzero()  # (P, 2): which used word, which byte of it
    return used[inside[:, 0]] * 8 + inside[:, 1]


def union(rows: Tensor) -> Tensor:
    """Bitwise or over the first axis.

    Args:
        rows: (S, ...) bool or bit maps, S >= 1.

    Returns:
        (...) of the same dtype.
    """
    while len(rows) > 1:
        half = len(rows) // 2
        merged = rows[:half] | rows[half : 2 * half]
        rows = torch.cat([merged, rows[2 * half :]]) if len(rows) % 2 else merged
    return rows[0]


def discs_at(maps: Tensor, pixels: Tensor, radius: int) -> Tensor:
    """What lies within the exact disc around some pixels: `dilate_disc` read at these pixels only.

    A boundary has few pixels, so reading 2 r + 1 row runs at each is far cheaper than dilating the image.

    Args:
        maps: (M, H, W) bit maps.
        pixels: (P,) int64 flat indices y * W + x.
        radius: r in pixels.

    Returns:
        (M, P) union of the bits within each disc.
    """
    width = maps.shape[-1]
    stride = width + 2 * radius
    corner = (pixels + pixels // width * (2 * radius)).int()  # flat index of the disc's top-left corner
    unions = _row_unions(maps, radius)
    found = torch.zeros(len(maps), len(pixels), dtype=maps.dtype, device=maps.device)
    for level, starts_of_level in _disc_runs(radius, stride).items():
        starts = torch.tensor(starts_of_level, dtype=torch.int32, device=maps.device)
        places = (starts[:, None] + corner).flatten()  # (S, 1) + (P,) -> (S * P,)
        for place, runs_here in enumerate(unions[level]):
            found[place] |= union(runs_here.index_select(0, places).view(len(starts), -1))
    return found
