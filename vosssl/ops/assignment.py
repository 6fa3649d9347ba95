"""One-to-one assignment with the largest total score."""

from __future__ import annotations

import torch
from torch import Tensor


def optimal_assignment(score: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs rows with columns so that the sum of their scores is the largest possible.

    Args:
        score: (R, C) float, finite, any device.

    Returns:
        rows, columns: (min(R, C),) int64 on the CPU, rows rising. With more rows than columns some rows stay
        out, and the other way round.

    Raises:
        ValueError: when score is not a finite matrix.
    """
    if score.ndim != 2 or not bool(score.isfinite().all()):
        raise ValueError(f"score is {tuple(score.shape)}, expected a finite (R, C) matrix")
    from scipy.optimize import linear_sum_assignment  # half a second that J and F of given ids never need

    rows, columns = linear_sum_assignment(score.detach().cpu().numpy(), maximize=True)
    return torch.from_numpy(rows), torch.from_numpy(columns)
