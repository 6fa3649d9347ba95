"""How many rows of a batch go through a network at once, where rows do not depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor


def row_blocks(rows: int, like: Tensor) -> list[slice]:
    """One row after the other on a CPU, whose caches hold no more; all at once elsewhere, in training and in
    exported graphs, whose number of rows is free.

    Args:
        rows: of the batch.
        like: a tensor of the computation.

    Returns:
        Slices that cover all rows.
    """
    if like.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_exporting():
        return [slice(row, row + 1) for row in range(rows)]
    return [slice(0, rows)]
