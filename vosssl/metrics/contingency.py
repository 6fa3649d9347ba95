"""Contingency tables: how many pixels of each true class lie in each predicted segment.

ARI and every IoU are functions of such a table, and tables of frames add up, so a video of any length is
scored with the memory of one frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.clip import VOID

CLASSES = VOID + 1  # a label is one byte


def check_labels(predicted: Tensor, truth: Tensor) -> None:
    """Raises ValueError unless both are uint8 label maps of one shape."""
    if predicted.shape != truth.shape:
        raise ValueError(
            f"prediction is {tuple(predicted.shape)}, truth is {tuple(truth.shape)}; "
            "resize the prediction to the truth's size first"
        )
    for name, labels in (("prediction", predicted), ("truth", truth)):
        if labels.dtype != torch.uint8:
            raise ValueError(f"{name} is {labels.dtype}, expected uint8 ids")


def full_contingency(predicted: Tensor, truth: Tensor) -> Tensor:
    """Counts every pair of ids, void left out.

    Args:
        predicted: (..., H, W) uint8 ids; 255 is a segment like any other.
        truth: (..., H, W) uint8 ids; pixels of 255 (void) are not counted.

    Returns:
        (255, 256) int64 on the CPU, where ratios of counts can have double precision (Apple's GPUs have
        none): row is the true id, column the predicted one. The axes before H and W are joined.

    Raises:
        ValueError: shapes that differ, or other dtypes than uint8.
    """
    check_labels(predicted, truth)
    pairs = truth.flatten().int().mul_(CLASSES).add_(predicted.flatten())
    counts = torch.bincount(pairs, minlength=CLASSES * CLASSES).view(CLASSES, CLASSES)
    return counts[:VOID].cpu()


def compact(table: Tensor) -> Tensor:
    """Drops empty rows but the first (background), and empty columns; no metric changes.

    Args:
        table: (C, K) counts.

    Returns:
        (c, k) counts with c <= C and k <= K.
    """
    rows = table.any(dim=1)
    rows[0] = True
    return table[rows][:, table.any(dim=0)]


def contingency(predicted: Tensor, truth: Tensor) -> Tensor:
    """The compact contingency table of a frame, or of a video as one long image.

    Args:
        predicted: (..., H, W) uint8 ids.
        truth: (..., H, W) uint8 ids, 0 background, 255 void.

    Returns:
        (c, k) int64 on the CPU: row 0 is the background, the other rows are the true ids that occur; columns
        are the segments that occur outside void.
    """
    return compact(full_contingency(predicted, truth))
