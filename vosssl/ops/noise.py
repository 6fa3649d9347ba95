"""Random numbers that belong to a sample, not to a process: the same on any number of workers or GPUs."""

from __future__ import annotations

import math

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


def mix(values: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of 64-bit integers that looks random.

    Args:
        values: any shape, int64.

    Returns:
        The same shape, int64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), figure 16.
    """
    values = (values ^ _shift(values, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    values = (values ^ _shift(values, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    return (values >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts keep the sign, the mask drops it


def uniform(keys: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on each key alone.

    Args:
        keys: (B,) int64.
        count: how many numbers per key.

    Returns:
        (B, count) float32 with 24 random bits.
    """
    counter = torch.arange(1, count + 1, dtype=torch.int64) * -7046029254386353131  # 0x9E3779B97F4A7C15
    words = mix(mix(keys)[:, None] + counter)  # (B, count)
    return _shift(words, 40).float() / 2.0**24


class Numbers:
    """Deals out the columns of a matrix of uniform numbers, one row per key.

    Args:
        keys: (B,) int64.
        count: how many numbers per key.
    """

    def __init__(self, keys: Tensor, count: int) -> None:
        self.values = uniform(keys, count)  # (B, count)
        self.used = 0

    def take(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) uniform in [low, high)."""
        count = math.prod(shape)
        values = self.values[:, self.used : self.used + count]
        assert values.shape[1] == count, "more numbers are drawn than were made"
        self.used += count
        return (low + (high - low) * values).reshape(-1, *shape)  # (B, count) -> (B, *shape)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """(B, *shape) bool."""
        return self.take(*shape) < probability
