"""Which patches of earlier frames look like a patch of this one: windowed top-k matches, and what they say.

The full (sources x h*w, h*w) matrix never exists: the target is cut into tiles, each of which meets only the
part of the sources that its windows reach, and of that only the best few are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vosssl.ops.top_k import largest

Shape = Literal["square", "disc", "circle"]

SCORES = 1 << 19  # elements of one tile's scores: 2 MB, which stay in a core's cache


class Matches(NamedTuple):
    """The best matches of every target patch.

    Attributes:
        scores: (P, k) similarities; -inf where a window holds fewer than k patches.
        places: (P, k) int64 numbers in the flattened sources (S * h * w).
    """

    scores: Tensor
    places: Tensor


class _Tile(NamedTuple):
    """Rows and columns of some target patches, and of the source patches that their windows reach."""

    rows: range
    columns: range
    source_rows: range
    source_columns: range


def window(dy: Tensor, dx: Tensor, *, radius: float, shape: Shape) -> Tensor:
    """Whether offsets, in patches, lie inside a window.

    Args:
        dy: offsets of rows.
        dx: offsets of columns, broadcast with dy.
        radius: of the window; 0 or less switches it off.
        shape: "square" |dy|, |dx| <= radius (DINO); "disc" distance < radius (CRW); "circle" distance <=
            radius (DINOv3).

    Returns:
        bool, of the broadcast shape.
    """
    if radius <= 0:
        return torch.ones(torch.broadcast_shapes(dy.shape, dx.shape), dtype=torch.bool, device=dy.device)
    if shape == "square":
        return torch.maximum(dy.abs(), dx.abs()) <= radius
    squared = dy.square() + dx.square()
    return squared < radius**2 if shape == "disc" else squared <= radius**2


def top_matches(
    target: Tensor,
    sources: Tensor,
    *,
    top_k: int,
    radius: float = 0,
    shape: Shape = "square",
    gates: tuple[Tensor, Tensor] | None = None,
    gate_strength: float = 1.0,
    temperature: float = 1.0,
) -> Matches:
    """The k most similar source patches of every target patch, inside a window around its place.

    Args:
        target: (h, w, D) features.
        sources: (S, h, w, D) features of the same grid.
        top_k: matches over all sources together.
        radius: of the window in patches; 0: everywhere.
        shape: of the window, see `window`.
        gates: (h, w, K) and (S, h, w, K) distributions over K groups, such as slots: the similarity of two
            patches becomes log(agreement) added to similarity / temperature, so that the exponential is
            multiplied by the probability that both belong to one group.
        gate_strength: exponent of that probability.
        temperature: divides similarities.

    Returns:
        The matches, scores already divided by the temperature, in no order.

    Raises:
        ValueError: shapes that do not fit, or k below 1.
    """
    height, width, channels = target.shape
    if sources.ndim != 4 or sources.shape[1:] != target.shape or top_k < 1:
        raise ValueError(
            f"sources are {tuple(sources.shape)} and top_k is {top_k}, expected (S, {height}, {width}, "
            f"{channels}) and 1 or more"
        )
    candidates = len(sources) * height * width
    scores = target.new_empty(height, width, min(top_k, candidates), dtype=torch.float32)
    index = torch.empty(scores.shape, dtype=torch.int64, device=target.device)
    for tile in _tiles(height, width, len(sources), radius):
        found = _tile_matches(
            target, sources, tile, gates, gate_strength, temperature, _outside(tile, radius, shape, target)
        )
        values, places = largest(found.flatten(1), scores.shape[-1])  # (n, S, y, x) -> (n, k)
        rows, columns = slice(tile.rows.start, tile.rows.stop), slice(tile.columns.start, tile.columns.stop)
        size = (len(tile.rows), len(tile.columns), -1)
        scores[rows, columns] = values.view(size)
        index[rows, columns] = _global(places, tile, height, width).view(size)
    return Matches(scores.flatten(0, 1), index.flatten(0, 1))


def merge(first: Matches, second: Matches, *, top_k: int, offset: int) -> Matches:
    """The best k of two sets of matches; the second's sources follow the first's `offset` patches."""
    scores = torch.cat([first.scores, second.scores], dim=1)  # (P, k1 + k2)
    places = torch.cat([first.places, second.places + offset], dim=1)
    best, order = scores.topk(min(top_k, scores.shape[1]), dim=1)
    return Matches(best, places.gather(1, order))


def read(matches: Matches, labels: Tensor) -> Tensor:
    """Weighted means of the matches' labels; weights are the softmax of the scores.

    Args:
        matches: of P target patches.
        labels: (S * h * w, C) of the sources.

    Returns:
        (P, C) float.
    """
    weights = matches.scores.softmax(dim=1).to(labels.dtype)  # (P, k)
    return (labels[matches.places] * weights[..., None]).sum(dim=1)  # (P, k, C) -> (P, C)


def _tiles(height: int, width: int, sources: int, radius: float) -> Iterator[_Tile]:
    """Cuts the grid so that no tile has more than SCORES scores."""
    reach = max(height, width) if radius <= 0 else int(radius)
    side = 16
    while (
        side > 1 and side**2 * sources * min(side + 2 * reach, height) * min(side + 2 * reach, width) > SCORES
    ):
        side -= 1
    for top in range(0, height, side):
        rows = range(top, min(top + side, height))
        for left in range(0, width, side):
            columns = range(left, min(left + side, width))
            yield _Tile(
                rows,
                columns,
                range(max(0, rows.start - reach), min(height, rows.stop + reach)),
                range(max(0, columns.start - reach), min(width, columns.stop + reach)),
            )


def _tile_matches(
    target: Tensor,
    sources: Tensor,
    tile: _Tile,
    gates: tuple[Tensor, Tensor] | None,
    gate_strength: float,
    temperature: float,
    outside: Tensor | None,
) -> Tensor:
    """(n, S, y, x) float scores of a tile's targets with what their windows reach, else -inf."""
    scores = _similarities(target, sources, tile)
    if temperature != 1:
        scores /= temperature
    if gates is not None:
        scores += gate_strength * _similarities(*gates, tile).clamp(min=1e-6).log()
    if outside is not None:
        scores += outside[:, None]
    return scores


def _similarities(target: Tensor, sources: Tensor, tile: _Tile) -> Tensor:
    """(n, S, y, x) float inner products."""
    here = target[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop].flatten(0, 1)
    there = sources[
        :,
        tile.source_rows.start : tile.source_rows.stop,
        tile.source_columns.start : tile.source_columns.stop,
    ]
    products = here.new_empty(len(here), *there.shape[:3], dtype=torch.float32)
    for place, source in enumerate(there):  # one at a time: their windows would all be copied at once else
        products[:, place] = (here @ source.flatten(0, 1).T).view(len(here), *source.shape[:2])
    return products


def _outside(tile: _Tile, radius: float, shape: Shape, like: Tensor) -> Tensor | None:
    """(n, y, x) of 0 inside the window and -inf outside; None where the window is switched off."""
    if radius <= 0:
        return None
    grid = [torch.tensor(list(part), dtype=torch.float32, device=like.device) for part in tile]
    dy = grid[0][:, None] - grid[2]  # (rows, y)
    dx = grid[1][:, None] - grid[3]  # (columns, x)
    inside = window(dy[:, None, :, None], dx[None, :, None, :], radius=radius, shape=shape)
    outside = torch.zeros(inside.shape, device=like.device).masked_fill_(~inside, -torch.inf)
    return outside.flatten(0, 1)  # (rows, columns, y, x) -> (n, y, x)


def _global(places: Tensor, tile: _Tile, height: int, width: int) -> Tensor:
    """Numbers inside a tile's sources (S, y, x) as numbers inside (S, h, w)."""
    columns = len(tile.source_columns)
    area = len(tile.source_rows) * columns
    source, rest = places.div(area, rounding_mode="floor"), places % area
    row = rest.div(columns, rounding_mode="floor") + tile.source_rows.start
    column = rest % columns + tile.source_columns.start
    return (source * height + row) * width + column
