"""J&F as the object-centric papers compute it: IoU and overlap of boundary bands, matched per video or
per frame.

This is not the DAVIS contour F (`region_boundary`): the bands are thick and compared directly, without a
distance tolerance, and a frame in which neither object nor segment occurs scores 0 instead of 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID
from vosssl.metrics.contingency import check_labels, full_contingency
from vosssl.metrics.overlap import pairwise_iou
from vosssl.ops.assignment import optimal_assignment

NO_BAND = 255


class ObjectJF(NamedTuple):
    """Means over the true classes that occur, each in [0, 1]; NaN where none occurs."""

    j_and_f: float
    jaccard: float
    boundary: float


def band_width(height: int, width: int, *, ratio: float = 0.02) -> int:
    """Thickness of the boundary bands in pixels: a share of the image diagonal, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_bands(labels: Tensor, width: int) -> Tensor:
    """Keeps the ids of pixels within `width` (square neighbourhood) of another id or of the image border.

    Args:
        labels: (..., H, W) uint8 ids.
        width: band thickness in pixels.

    Returns:
        (..., H, W) uint8: the id inside the bands, 255 elsewhere.
    """
    ids = labels.reshape(-1, 1, *labels.shape[-2:]).to(torch.float16 if labels.is_cuda else torch.float32)
    window = 2 * width + 1
    largest = _row_column_max(ids, window, width)
    smallest = -_row_column_max(-ids, window, width)
    inside = (largest == smallest).view(labels.shape)
    inside[..., :width, :] = inside[..., -width:, :] = False
    inside[..., :, :width] = inside[..., :, -width:] = False
    return labels.masked_fill(inside, NO_BAND)


def _row_column_max(values: Tensor, window: int, width: int) -> Tensor:
    rows = F.max_pool2d(values, (1, window), stride=1, padding=(0, width))
    return F.max_pool2d(rows, (window, 1), stride=1, padding=(width, 0))


def pairwise_band_f(predicted: Tensor, truth: Tensor) -> Tensor:
    """F of the boundary bands of every true class and every segment of one frame.

    Args:
        predicted: (H, W) uint8 ids below 255.
        truth: (H, W) uint8 ids, 255 void.

    Returns:
        (255, 256) float64 on the CPU; 0 where either band is empty.
    """
    width = band_width(*truth.shape)
    predicted = predicted.masked_fill(truth == VOID, NO_BAND)  # void is cut out of both before the bands
    true_bands, predicted_bands = boundary_bands(truth, width), boundary_bands(predicted, width)
    shared = full_contingency(predicted_bands, true_bands).double()
    shared[:, NO_BAND] = 0
    true_size = torch.bincount(true_bands.flatten(), minlength=256)[:NO_BAND].cpu()
    predicted_size = torch.bincount(predicted_bands.flatten(), minlength=256).cpu()
    predicted_size[NO_BAND] = 0
    return 2 * shared / (true_size[:, None] + predicted_size[None]).clamp(min=1)


def matched_jf(
    present: Tensor,
    jaccard: Tensor,
    boundary: Tensor,
    *,
    ignore_background: bool = True,
    by_jaccard: bool = False,
) -> ObjectJF:
    """Assigns segments to the classes that occur, and averages over these.

    Args:
        present: (C,) bool, whether a class occurs; class 0 is the background.
        jaccard: (C, K) J of every class and segment.
        boundary: (C, K) F likewise.
        ignore_background: the background is not a class to be found.
        by_jaccard: match by J instead of J&F.

    Returns:
        The three means; NaN where no class occurs.
    """
    rows = _classes(present, ignore_background=ignore_background)
    jaccard, boundary = jaccard[rows], boundary[rows]
    if not len(jaccard):
        return ObjectJF(math.nan, math.nan, math.nan)
    both = (jaccard + boundary) / 2
    chosen = optimal_assignment(jaccard if by_jaccard else both)
    return ObjectJF(*(float(part[chosen].sum()) / len(jaccard) for part in (both, jaccard, boundary)))


def _classes(present: Tensor, *, ignore_background: bool) -> Tensor:
    present = present.clone()
    present[0] &= not ignore_background
    return present


def video_object_jf(
    predicted: Tensor, truth: Tensor, *, ignore_background: bool = True, by_jaccard: bool = False
) -> ObjectJF:
    """J and F averaged over all frames of the video, then matched once.

    Args:
        predicted: (T, H, W) uint8 ids below 255.
        truth: (T, H, W) uint8 ids, 0 background, 255 void.
        ignore_background: the background is not a class to be found.
        by_jaccard: match by J instead of J&F.

    Returns:
        The three means over the classes that occur anywhere in the video. A frame where a class is absent
        gives it 0, even if its segment is absent too.

    Source: metrics of Zadaianchuk et al., VideoSAUR, NeurIPS 2023.
    """
    check_labels(predicted, truth)
    present = torch.zeros(255, dtype=torch.bool)
    jaccard = torch.zeros(255, 256, dtype=torch.float64)
    boundary = torch.zeros_like(jaccard)
    for frame_predicted, frame_truth in zip(predicted, truth, strict=True):
        table = full_contingency(frame_predicted, frame_truth)
        present |= table.any(dim=1)
        jaccard += pairwise_iou(table) / len(truth)
        boundary += pairwise_band_f(frame_predicted, frame_truth) / len(truth)
    return matched_jf(present, jaccard, boundary, ignore_background=ignore_background, by_jaccard=by_jaccard)


def image_object_jf(
    predicted: Tensor, truth: Tensor, *, ignore_background: bool = True, by_jaccard: bool = False
) -> list[ObjectJF]:
    """J and F matched in every frame on its own.

    Args:
        predicted: (T, H, W) uint8 ids below 255.
        truth: (T, H, W) uint8 ids, 0 background, 255 void.
        ignore_background: the background is not a class to be found.
        by_jaccard: match by J instead of J&F.

    Returns:
        T triples; NaN for a frame without any class.
    """
    pairs = zip(predicted.unsqueeze(1), truth.unsqueeze(1), strict=True)  # (T, H, W) -> T x (1, H, W)
    return [
        video_object_jf(*pair, ignore_background=ignore_background, by_jaccard=by_jaccard) for pair in pairs
    ]
