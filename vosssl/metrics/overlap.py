"""IoU of true classes and predicted segments: mean best overlap (mBO) and matched mean IoU.

Predictions keep all their segments. A class that does not occur counts neither up nor down; with no class
at all there is nothing to score and the value is NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosssl.metrics.contingency import contingency
from vosssl.ops.assignment import optimal_assignment


def pairwise_iou(table: Tensor) -> Tensor:
    """IoU of every true class with every segment.

    Args:
        table: (C, K) counts, all true pixels included: background pixels inside a segment make it worse.

    Returns:
        (C, K) float64; 0 where both are empty.
    """
    counts = table.to(torch.float64)
    union = counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts
    return counts / union.clamp(min=1)


def _present(table: Tensor, *, ignore_background: bool) -> Tensor:
    """IoUs of the classes that occur: (c, K) float64."""
    present = table.any(dim=1)
    if ignore_background:
        present[0] = False
    return pairwise_iou(table)[present]


def best_overlap(table: Tensor, *, ignore_background: bool = True) -> float:
    """mBO: for each true class the best IoU over all segments, then the mean over the classes that occur.

    A segment may serve several classes, so one segment per pixel is not punished for splitting others.

    Args:
        table: (C, K) counts, row 0 the background.
        ignore_background: the background is not a class to be found.

    Returns:
        [0, 1]; NaN without any class.

    Source: Pont-Tuset et al., MCG, PAMI 2016; Seitzer et al., DINOSAUR, ICLR 2023.
    """
    overlaps = _present(table, ignore_background=ignore_background)
    return float(overlaps.amax(dim=1).mean()) if overlaps.numel() else math.nan


def matched_overlap(table: Tensor, *, ignore_background: bool = True) -> float:
    """Matched mIoU: one segment per class, assigned for the largest sum; a class left without one scores 0.

    Args:
        table: (C, K) counts, row 0 the background.
        ignore_background: the background is not a class to be found.

    Returns:
        [0, 1]; NaN without any class.
    """
    overlaps = _present(table, ignore_background=ignore_background)
    if not overlaps.numel():
        return math.nan
    rows, columns = optimal_assignment(overlaps)
    return float(overlaps[rows, columns].sum()) / len(overlaps)


def video_mbo(predicted: Tensor, truth: Tensor, *, ignore_background: bool = True) -> float:
    """mBO of a whole video as one long image.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids, 0 background, 255 void.
        ignore_background: the background is not a class to be found.

    Returns:
        [0, 1]; NaN without any class.
    """
    return best_overlap(contingency(predicted, truth), ignore_background=ignore_background)


def video_miou(predicted: Tensor, truth: Tensor, *, ignore_background: bool = True) -> float:
    """Matched mIoU of a whole video as one long image.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids, 0 background, 255 void.
        ignore_background: the background is not a class to be found.

    Returns:
        [0, 1]; NaN without any class.
    """
    return matched_overlap(contingency(predicted, truth), ignore_background=ignore_background)


def image_mbo(predicted: Tensor, truth: Tensor, *, ignore_background: bool = True) -> Tensor:
    """mBO of each frame over the classes of that frame.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids.
        ignore_background: the background is not a class to be found.

    Returns:
        (T,) float64; NaN for a frame without any class, which a mean has to skip.
    """
    pairs = zip(predicted, truth, strict=True)
    values = [video_mbo(*pair, ignore_background=ignore_background) for pair in pairs]
    return torch.tensor(values, dtype=torch.float64)


def image_miou(predicted: Tensor, truth: Tensor, *, ignore_background: bool = True) -> Tensor:
    """Matched mIoU of each frame over the classes of that frame.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids.
        ignore_background: the background is not a class to be found.

    Returns:
        (T,) float64; NaN for a frame without any class.
    """
    pairs = zip(predicted, truth, strict=True)
    values = [video_miou(*pair, ignore_background=ignore_background) for pair in pairs]
    return torch.tensor(values, dtype=torch.float64)
