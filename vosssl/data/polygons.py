"""Outlines to masks, by the rule of the COCO API, so that labels drawn here equal those drawn by its tools.

Coordinates are continuous: pixel (row, column) covers [column, column + 1) x [row, row + 1), and its centre
decides. A polygon's corner on a centre is COCO's to settle: it rounds corners to fifths of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vosssl.ops.resize import Size

_FINER = 5  # edges are walked on a grid of fifths of a pixel


def polygon_mask(points: Sequence[float] | np.ndarray, size: Size) -> Tensor:
    """The pixels inside a polygon; parts outside the image are cut off.

    Args:
        points: x0, y0, x1, y1, … or (N, 2), pixels, at least 3 corners; it is closed by itself.
        size: (H, W) of the mask.

    Returns:
        (H, W) bool, equal to pycocotools' `frPyObjects` and `decode`.

    Raises:
        ValueError: fewer than 3 corners, or coordinates that are no finite numbers.

    Source: rleFrPoly of the COCO API (maskApi.c): every edge is walked in fifths of a pixel, and where the
        walk changes column, the column's pixels from there on change sides.
    """
    try:
        corners = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a polygon is no list of coordinates x, y, x, y, …: {error}") from error
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise ValueError(f"a polygon has {len(corners)} corners, expected 3 or more, all finite")
    height, width = size
    # far outside, only the direction matters; without a limit the walk below would fill the memory
    limit = 4.0 * np.array([width, height]) + 64
    corners = np.clip(corners, -limit, limit)
    walked = _boundary(np.trunc(_FINER * corners + 0.5).astype(np.int64))  # (P, 2)
    before, after = walked[:-1], walked[1:]
    crossing = before[:, 0] != after[:, 0]
    before, after = before[crossing], after[crossing]
    column = (np.minimum(before[:, 0], after[:, 0] - (after[:, 0] > before[:, 0])) + 0.5) / _FINER - 0.5
    row = (np.minimum(before[:, 1], after[:, 1]) + 0.5) / _FINER - 0.5
    inside = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row[inside], 0, height)).astype(np.int64)
    return _filled(column[inside].astype(np.int64), row, size)


def _filled(columns: np.ndarray, rows: np.ndarray, size: Size) -> Tensor:
    """(H, W) bool: the pixels of a column change sides at each of these places; a row of H is its end."""
    mask = torch.zeros(size, dtype=torch.bool)
    if columns.size == 0:
        return mask
    left, top = columns.min(), rows.min()
    shape = (int(columns.max() - left) + 1, int(rows.max() - top) + 1)  # of the part that is not empty
    flips = np.bincount((columns - left) * shape[1] + rows - top, minlength=shape[0] * shape[1])
    inside = np.cumsum(flips.reshape(shape), axis=1)[:, :-1] % 2 == 1  # (w, h)
    part = torch.from_numpy(np.ascontiguousarray(inside.T))  # (w, h) -> (h, w)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _boundary(corners: np.ndarray) -> np.ndarray:
    """(P, 2) points of the closed outline on a whole-number grid, one per step of the longer axis."""
    start, end = corners, np.roll(corners, -1, axis=0)  # (N, 2) of every edge
    edges = np.arange(len(corners))
    reach = np.abs(end - start)
    along = np.where(reach[:, 0] >= reach[:, 1], 0, 1)  # the axis that is walked step by step
    backwards = (start[edges, along] > end[edges, along])[:, None]
    low, high = np.where(backwards, end, start), np.where(backwards, start, end)
    length = reach.max(1)
    slope = (high[edges, 1 - along] - low[edges, 1 - along]) / np.maximum(length, 1)
    edge = np.repeat(edges, length + 1)  # (P,), the edge of every point
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(backwards[edge, 0], length[edge] - step, step)
    points = np.empty((len(edge), 2), np.int64)
    places = np.arange(len(edge))
    points[places, along[edge]] = low[edge, along[edge]] + step
    points[places, 1 - along[edge]] = np.trunc(low[edge, 1 - along[edge]] + slope[edge] * step + 0.5)
    return points


def polygons_mask(polygons: Sequence[Sequence[float]], size: Size) -> Tensor:
    """(H, W) bool, the union of polygons; see `polygon_mask`."""
    mask = torch.zeros(size, dtype=torch.bool)
    for points in polygons:
        mask |= polygon_mask(points, size)
    return mask


def box_mask(
    left: float, top: float, right: float, bottom: float, size: Size, *, degrees: float = 0
) -> Tensor:
    """The pixels inside a rectangle, turned clockwise about its centre; (H, W) bool, see `polygon_mask`."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    if degrees:
        centre = corners.mean(0)
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        corners = (corners - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return polygon_mask(corners, size)


def ellipse_mask(x: float, y: float, across: float, down: float, size: Size, *, degrees: float = 0) -> Tensor:
    """The pixels whose centres lie in an ellipse.

    Args:
        x: of the centre, pixels.
        y: likewise.
        across: half its width, pixels.
        down: half its height, pixels.
        size: (H, W) of the mask.
        degrees: by which it is turned clockwise.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: a radius that is not above 0.
    """
    if not (across > 0 and down > 0):
        raise ValueError(f"an ellipse has the radii {across} and {down}, expected both above 0")
    rows = (torch.arange(size[0], dtype=torch.float64) + 0.5 - y)[:, None]  # (H, 1)
    columns = (torch.arange(size[1], dtype=torch.float64) + 0.5 - x)[None]  # (1, W)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along = (columns * cosine + rows * sine) / across  # (H, W)
    beside = (rows * cosine - columns * sine) / down
    return along.square() + beside.square() <= 1
