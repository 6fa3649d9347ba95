"""3x3 convolutions with fewer multiplications."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vosssl.ops.winograd import convolve, transformed_kernels


@pytest.mark.parametrize(
    "shape", [(1, 3, 8, 8, 5), (2, 8, 30, 54, 4), (1, 4, 1, 1, 2), (1, 2, 5, 400, 64), (3, 1, 7, 6, 1)]
)
def test_results_are_those_of_a_direct_convolution(shape: tuple[int, int, int, int, int]) -> None:
    count, channels, height, width, wide = shape
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(count, channels, height, width, generator=random)
    weight = torch.randn(wide, channels, 3, 3, generator=random)
    bias = torch.randn(wide, generator=random)
    direct = F.conv2d(maps, weight, bias, padding=1)
    ours = convolve(maps, transformed_kernels(weight), bias)
    torch.testing.assert_close(ours, direct, rtol=0, atol=3e-5 * direct.abs().max().item())


def test_blocks_of_rows_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weight = torch.randn(2, 3, 37, 21), torch.randn(4, 3, 3, 3)
    whole = convolve(maps, transformed_kernels(weight))
    monkeypatch.setattr("vosssl.ops.winograd.PLACES", 3 * 6)  # three rows of tiles at a time
    torch.testing.assert_close(convolve(maps, transformed_kernels(weight)), whole)


def test_the_middle_tap_alone_copies_the_map() -> None:
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    maps = torch.arange(48.0).view(1, 1, 6, 8)
    torch.testing.assert_close(convolve(maps, transformed_kernels(weight)), maps)
