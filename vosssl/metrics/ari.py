"""Adjusted Rand index: do two segmentations agree on which pixels belong together?"""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.metrics.contingency import contingency


def adjusted_rand_index(table: Tensor) -> float:
    """ARI of a contingency table, by pair counts.

    It is 1.0 where chance already explains everything: both one cluster, each pixel its own cluster, or no
    pixel at all.

    Args:
        table: (C, K) counts. Leave out the background's row for FG-ARI.

    Returns:
        At most 1; 0 is chance, below 0 worse than chance.

    Source: Hubert and Arabie, Comparing Partitions, 1985; the form of Kipf et al., SAVi (2022).
    """
    counts = table.to(torch.float64)
    pixels = counts.sum()
    together = (counts * (counts - 1)).sum()
    true_pairs = (counts.sum(dim=1) * (counts.sum(dim=1) - 1)).sum()
    predicted_pairs = (counts.sum(dim=0) * (counts.sum(dim=0) - 1)).sum()
    expected = true_pairs * predicted_pairs / (pixels * (pixels - 1)).clamp(min=1)
    span = (true_pairs + predicted_pairs) / 2 - expected
    return 1.0 if span == 0 else float((together - expected) / span)


def video_ari(predicted: Tensor, truth: Tensor) -> float:
    """ARI of a whole video, background counted as a cluster; identities must hold over time.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids; void (255) is left out.

    Returns:
        ARI; 1.0 when nothing but void is left.
    """
    return adjusted_rand_index(contingency(predicted, truth))


def video_fg_ari(predicted: Tensor, truth: Tensor) -> float:
    """FG-ARI of a whole video: only pixels of true objects count, whatever segment they are in.

    A video without any object pixel scores 1.0, as in the published evaluations.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids, 0 background, 255 void.

    Returns:
        FG-ARI.
    """
    return adjusted_rand_index(contingency(predicted, truth)[1:])


def image_ari(predicted: Tensor, truth: Tensor) -> Tensor:
    """ARI of each frame.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids.

    Returns:
        (T,) float64.
    """
    values = [video_ari(*pair) for pair in zip(predicted, truth, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def image_fg_ari(predicted: Tensor, truth: Tensor) -> Tensor:
    """FG-ARI of each frame; a frame without objects scores 1.0 and counts, which inflates the mean.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids.

    Returns:
        (T,) float64.
    """
    values = [video_fg_ari(*pair) for pair in zip(predicted, truth, strict=True)]
    return torch.tensor(values, dtype=torch.float64)
