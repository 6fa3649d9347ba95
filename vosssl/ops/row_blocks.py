"""How many rows of a batch go through a network at once, where rows do not depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor


def goes_in_blocks(like: Tensor) -> bool:
    """Whether a computation goes in blocks, which a CPU's caches hold; not in training, nor in compiled or
    exported graphs, whose sizes are free.

    Args:
        like: a tensor of the computation.
    """
    if like.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return not (torch.compiler.is_compiling() or torch.compiler.is_exporting())


def row_blocks(rows: int, like: Tensor) -> list[slice]:
    """One row after the other where a computation goes in blocks; all at once elsewhere.

    Args:
        rows: of the batch.
        like: a tensor of the computation.

    Returns:
        Slices that cover all rows.
    """
    return [slice(row, row + 1) for row in range(rows)] if goes_in_blocks(like) else [slice(0, rows)]
