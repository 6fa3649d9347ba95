"""Connected regions, holes and islands, by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.ops.regions import connected_regions, remove_small_regions


def mask(*rows: str) -> Tensor:
    return torch.tensor([[sign == "#" for sign in row] for row in rows])


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    assert connected_regions(mask("#..#", ".#..", "...#")).tolist() == [
        [1, 0, 0, 2],
        [0, 1, 0, 0],
        [0, 0, 0, 3],
    ]


def test_small_holes_are_filled_and_small_islands_dropped() -> None:
    before = mask("####..#", "#.##..#", "####...", "......#")
    assert torch.equal(remove_small_regions(before, 3), mask("####...", "####...", "####...", "......."))
    assert remove_small_regions(before, 1) is before
    assert torch.equal(remove_small_regions(before, 2), mask("####..#", "####..#", "####...", "......."))


def test_of_islands_that_are_all_small_the_largest_stays() -> None:
    assert torch.equal(remove_small_regions(mask("#" * 2 + "." * 30 + "#"), 10), mask("##" + "." * 31))


def test_empty_and_full_masks_stay() -> None:
    for value in (True, False):
        whole = torch.full((4, 5), value)
        assert remove_small_regions(whole, 3) is whole
