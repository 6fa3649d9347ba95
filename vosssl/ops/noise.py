"""Random numbers that belong to a sample, not to a process: the same on any number of workers or GPUs."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, row b drawn from seed b alone.

    Args:
        seeds: (B,) int64 on the CPU.
        shape: shape of one row.

    Returns:
        (B, *shape) float32 on the CPU.
    """
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows)
