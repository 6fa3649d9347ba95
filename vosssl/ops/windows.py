"""Maps cut into windows for attention: tokens in the order of windows, ragged ones at the far edges.

A window that reaches over the map's edge holds only what lies on the map. What it misses is known, so that
attention can account for padding without any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vosssl.ops.resize import Size


@dataclass(frozen=True)
class Region:
    """A part of a map whose windows have one size.

    Attributes:
        rows, columns: where it is.
        window: (height, width) of its windows.
        missing: places by which a window is smaller than a full one.
        tokens: where its places are in the order of windows.
    """

    rows: slice
    columns: slice
    window: Size
    missing: int
    tokens: slice

    @property
    def windows(self) -> Size:
        """How many windows there are, down and across."""
        return (
            (self.rows.stop - self.rows.start) // self.window[0],
            (self.columns.stop - self.columns.start) // self.window[1],
        )


def window_regions(size: Size, window: int) -> tuple[Region, ...]:
    """Cuts a map into at most four regions: full windows, and smaller ones right, below, and in the corner.

    Args:
        size: (H, W).
        window: side of a full window.

    Returns:
        The regions, row by row.
    """
    regions: list[Region] = []
    start = 0
    for rows, height in _stretches(size[0], window):
        for columns, width in _stretches(size[1], window):
            count = (rows.stop - rows.start) * (columns.stop - columns.start)
            tokens = slice(start, start + count)
            regions.append(Region(rows, columns, (height, width), window**2 - height * width, tokens))
            start += count
    return tuple(regions)


def to_windows(maps: Tensor, regions: tuple[Region, ...]) -> Tensor:
    """Places of a map in the order of windows.

    Args:
        maps: (B, H, W, C).
        regions: of (H, W).

    Returns:
        (B, H * W, C): region by region, window by window, row by row.
    """
    parts = []
    for region in regions:
        part = maps[:, region.rows, region.columns].unflatten(2, (-1, region.window[1]))
        part = part.unflatten(1, (-1, region.window[0]))  # (B, rows, columns, C) -> (B, m, wh, n, ww, C)
        parts.append(part.transpose(2, 3).flatten(1, 4))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def to_map(tokens: Tensor, regions: tuple[Region, ...]) -> Tensor:
    """The inverse of `to_windows`: (B, H * W, C) to (B, H, W, C)."""
    bands: dict[int, list[Tensor]] = {}
    for region in regions:
        part = tokens[:, region.tokens].unflatten(1, (*region.windows, *region.window))
        part = (
            part.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        )  # (B, m, n, wh, ww, C) -> (B, rows, columns, C)
        bands.setdefault(region.rows.start, []).append(part)
    joined = [band[0] if len(band) == 1 else torch.cat(band, dim=2) for band in bands.values()]
    return joined[0] if len(joined) == 1 else torch.cat(joined, dim=1)


def parted(regions: tuple[Region, ...], most: int) -> Iterator[tuple[slice, Region]]:
    """Cuts regions between windows, for what windows compute without each other.

    Args:
        regions: of a map.
        most: tokens of a part; at least one window is in each.

    Yields:
        Where the part's tokens are in the order of windows, and the part as a region of its own, whose
        windows stand below each other.
    """
    for region in regions:
        window = region.window[0] * region.window[1]
        step = max(most // window, 1) * window
        for start in range(region.tokens.start, region.tokens.stop, step):
            tokens = slice(start, min(start + step, region.tokens.stop))
            count = tokens.stop - tokens.start
            rows = slice(0, count // region.window[1])
            columns = slice(0, region.window[1])
            yield tokens, Region(rows, columns, region.window, region.missing, slice(0, count))


def _stretches(side: int, window: int) -> list[tuple[slice, int]]:
    """Where full windows are along a side, and what is left, each with its window's length."""
    full = side // window * window
    stretches = [(slice(0, full), window)] if full else []
    return [*stretches, (slice(full, side), side - full)] if full < side else stretches
