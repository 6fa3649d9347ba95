"""Outlines: where the labels of two videos change. All that J and F need, in a hundredth of the pixels.

A pixel whose right, lower and lower-right neighbours carry its own labels lies on no boundary, so only the
others are looked at: what they and their neighbours are gives every object's boundary, and since the labels
between two of them are constant along a row, the runs from one to the next give every area. Neither depends
on how many objects there are.

Frames lie one below the other in one *sheet* of rows, cropped to what is not background in any of them, and
kept apart by empty margins, so that neighbourhoods never reach into the next row's or frame's pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.metrics.contingency import check_labels
from vosssl.ops.boundary import boundary_radius, disc_runs, run_unions, set_pixels, union


class Outlines(NamedTuple):
    """P places on the sheet of T frames.

    Attributes:
        places: (P,) int64 positions on the sheet, rising; it holds all places where a label changes.
        lengths: (P,) int32: so many pixels, up to and with this one, have this one's labels.
        inside: (P,) uint8, 0 for places in the margins, which have no boundary.
        ends: (T,) int64: the places of frame t are ends[t - 1] to ends[t].
        frame: (P,) int64.
        predicted: (4, P) uint8 labels here, to the right, below, below to the right; beyond the image: here.
        truth: (4, P) uint8.
        stride: positions from one row to the next.
        size: positions on the sheet.
        radius: how far a boundary may be off, in pixels.
    """

    places: Tensor
    lengths: Tensor
    inside: Tensor
    ends: Tensor
    frame: Tensor
    predicted: Tensor
    truth: Tensor
    stride: int
    size: int
    radius: int

    @property
    def frames(self) -> int:
        """T."""
        return len(self.ends)


class _Sheet(NamedTuple):
    labels: Tensor  # (2, size) uint8, prediction and truth
    rows: int  # of a frame's window
    columns: int
    stride: int
    period: int  # rows from one frame to the next
    lead: int  # rows above the first frame
    last_row: int  # the image's, counted in the window; beyond it where the window ends before
    last_column: int


def trace(predicted: Tensor | Sequence[Tensor], truth: Tensor | Sequence[Tensor]) -> Outlines:
    """Finds where labels change.

    Args:
        predicted: (T, H, W) uint8 ids, or T times (H, W).
        truth: the same.

    Returns:
        The outlines of both.

    Raises:
        ValueError: shapes that differ, or other dtypes than uint8.
    """
    for pair in zip(predicted, truth, strict=True):
        check_labels(*pair)
    radius = boundary_radius(*truth[0].shape)
    sheet = _sheet(predicted, truth, margin=radius)
    places = set_pixels(_changes(sheet.labels, sheet.stride))
    row = places // sheet.stride
    column = places - row * sheet.stride
    count, device = len(truth), places.device
    step_down, valid, frame_of = (table.to(device) for table in _row_tables(sheet, count))
    right = (column != sheet.last_column).long()
    below = step_down.index_select(0, row)
    around = torch.cat([places, places + right, places + below, places + right + below])  # (4 P,)
    labels = [part.index_select(0, around).view(4, -1) for part in sheet.labels]
    starts = (torch.arange(1, count + 1, device=device) * sheet.period + sheet.lead) * sheet.stride
    return Outlines(
        places=places,
        lengths=places.diff(prepend=places.new_full((1,), -1)).int(),
        inside=(column < sheet.columns).view(torch.uint8) * valid.index_select(0, row),
        ends=torch.searchsorted(places, starts),
        frame=frame_of.index_select(0, row),
        predicted=labels[0],
        truth=labels[1],
        stride=sheet.stride,
        size=sheet.labels.shape[1],
        radius=radius,
    )


def _sheet(predicted: Tensor | Sequence[Tensor], truth: Tensor | Sequence[Tensor], *, margin: int) -> _Sheet:
    """Both videos on the joint bounding box of what is not background, and a pixel above and to the left."""
    frames, (height, width), device = len(truth), truth[0].shape, truth[0].device
    used = torch.zeros(height, width, dtype=torch.uint8, device=device)
    for maps in (predicted, truth):
        for frame in maps:
            used |= frame
    used_rows, used_columns = (used.amax(dim=axis).nonzero().flatten() for axis in (1, 0))
    window = [0, 1, 0, 1]
    if len(used_rows):
        first = torch.stack([used_rows[0] - 1, used_rows[-1] + 1, used_columns[0] - 1, used_columns[-1] + 1])
        window = first.clamp(min=0).tolist()
    top, bottom, left, right = window
    rows, columns = bottom - top, right - left
    stride = -(-(columns + margin) // 8) * 8  # whole 8-byte words, see `set_pixels`
    period, lead = rows + margin, margin + 2
    labels = torch.zeros(2, (lead + frames * period + 1) * stride, dtype=torch.uint8, device=device)
    cells = labels[:, lead * stride : -stride].view(2, frames, period, stride)[..., :rows, :columns]
    for video, maps in zip(cells, (predicted, truth), strict=True):
        for cell, frame in zip(video, maps, strict=True):
            cell.copy_(frame[top:bottom, left:right])
    return _Sheet(labels, rows, columns, stride, period, lead, height - 1 - top, width - 1 - left)


def _changes(labels: Tensor, stride: int) -> Tensor:
    """(size,) uint8, not 0 where a label of either video differs from its right, lower or lower-right one."""
    changed = torch.zeros_like(labels[0])
    count = len(changed) - stride - 1
    differs, difference = (
        changed[:count],
        torch.empty_like(changed[:count]),
    )  # large arrays are costly to make
    for video in labels:
        for shift in (1, stride, stride + 1):
            torch.bitwise_xor(video[:count], video[shift : shift + count], out=difference)
            differs |= difference
    return changed


def _row_tables(sheet: _Sheet, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each row: the way to the row below (0 in the image's last), whether it is image, its frame."""
    down, valid = torch.full((sheet.period,), sheet.stride), torch.zeros(sheet.period, dtype=torch.uint8)
    if sheet.last_row < sheet.period:
        down[sheet.last_row] = 0
    valid[: sheet.rows] = 1
    frame = torch.arange(frames).repeat_interleave(sheet.period)
    pad = (sheet.lead, 1)
    return (
        torch.nn.functional.pad(down.repeat(frames), pad),
        torch.nn.functional.pad(valid.repeat(frames), pad),
        torch.nn.functional.pad(frame, pad),
    )


def near(outlines: Outlines, edges: Tensor, wanted: Tensor) -> Tensor:
    """What lies within the exact disc around each place.

    Most boundaries are met within the largest square inside the disc; the whole disc is only looked at where
    something is still wanted, and lies within the square around it.

    Args:
        outlines: where the places are.
        edges: (M, P) uint8 bit maps: what lies at each place.
        wanted: (M, P) uint8: the bits that matter there.

    Returns:
        (M, P) uint8: right in the bits that are wanted.
    """
    places, stride, radius = outlines.places, outlines.stride, outlines.radius
    maps = torch.zeros(len(edges), outlines.size, dtype=torch.uint8, device=edges.device)
    for sheet, bits in zip(maps, edges, strict=True):
        sheet.scatter_(0, places, bits)
    unions = run_unions(maps, radius)
    half = math.isqrt(radius * radius // 2)
    squares = _squares(unions, 2 * half + 1, stride)
    found = _at(squares, places - half * (stride + 1))
    rest = union(wanted & ~found).nonzero().flatten()
    far = radius - half
    if 2 * radius <= 4 * half + 1:  # the squares around the four corners cover the square around the disc
        shifts = (-far - far * stride, far - far * stride, far * stride - far, far * stride + far)
        corners = torch.tensor(shifts, device=places.device)[:, None] + places[rest] - half * (stride + 1)
        around = union(_at(squares, corners.flatten()).unflatten(1, (4, -1)).transpose(0, 1))  # (M, R)
        rest = rest[union(wanted[:, rest] & around).nonzero().flatten()]
    if len(rest):
        found[:, rest] |= _discs(unions, places[rest], radius, stride)
    return found


def _squares(unions: list[Tensor], side: int, stride: int) -> Tensor:
    """Unions over the square whose top-left corner is here, from those over runs to the right."""
    level = side.bit_length() - 1
    rows = _overlap(unions[level], side - (1 << level))
    for step in range(level):
        rows = _overlap(rows, (1 << step) * stride)
    return _overlap(rows, (side - (1 << level)) * stride)


def _overlap(maps: Tensor, shift: int) -> Tensor:
    return maps[:, : maps.shape[1] - shift] | maps[:, shift:] if shift else maps


def _discs(unions: list[Tensor], places: Tensor, radius: int, stride: int) -> Tensor:
    """(M, P) unions over the exact disc, as runs of 1, 2, 4, ... pixels."""
    corner = places - radius * (stride + 1)
    found = torch.zeros(len(unions[0]), len(places), dtype=torch.uint8, device=places.device)
    for level, starts in disc_runs(radius, stride).items():
        runs = (torch.tensor(starts, device=places.device)[:, None] + corner).flatten()  # (S, 1) + (P,)
        found |= union(_at(unions[level], runs).unflatten(1, (len(starts), -1)).transpose(0, 1))
    return found


def _at(maps: Tensor, places: Tensor) -> Tensor:
    """(M, P): the maps (M, size) read at places."""
    return torch.stack([one.index_select(0, places) for one in maps])


def present_ids(labels: Tensor, outlines: Outlines, *, merge: bool = False) -> list[tuple[int, ...]]:
    """The object ids in each frame, without background and void: each has a last pixel, where it changes.

    Args:
        labels: `outlines.predicted` or `outlines.truth`.
        outlines: they belong to.
        merge: every value above 0, 255 included, is object 1.

    Returns:
        T tuples of rising ids.
    """
    size = VOID + 1
    counts = torch.bincount(outlines.frame * size + labels[0], minlength=outlines.frames * size)
    used = counts.view(-1, size).cpu()
    if merge:
        return [(1,) if bool(row[1:].any()) else () for row in used]
    used[:, 0] = used[:, VOID] = 0
    return [tuple(row.nonzero().flatten().tolist()) for row in used]


def contingency_tables(outlines: Outlines, pixels: int) -> list[Tensor]:
    """How many pixels of each true id carry each predicted one, frame by frame, void left out.

    Args:
        outlines: of T frames.
        pixels: of one frame, H * W.

    Returns:
        T tables (255, 256) int64: row is the true id, column the predicted one.
    """
    size = VOID + 1
    codes = outlines.truth[0].long() * size + outlines.predicted[0]
    tables, start = [], 0
    for end in outlines.ends.tolist():
        part = slice(start, end)
        counts = torch.bincount(codes[part], weights=outlines.lengths[part].double(), minlength=size * size)
        counts[0] = 0
        counts[0] = pixels - counts.sum()  # what was cropped is background in both
        tables.append(counts.long().view(size, size)[:VOID])
        start = end
    return tables
