"""Windows: their order, and what is left at the edges."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.windows import to_map, to_windows, window_regions


def test_windows_follow_each_other_row_by_row() -> None:
    maps = torch.arange(16).reshape(1, 4, 4, 1)
    tokens = to_windows(maps, window_regions((4, 4), 2))
    assert tokens.flatten().tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


def test_windows_at_the_edges_hold_only_what_is_on_the_map() -> None:
    regions = window_regions((5, 4), 3)
    assert [region.window for region in regions] == [(3, 3), (3, 1), (2, 3), (2, 1)]
    assert [region.missing for region in regions] == [0, 6, 3, 7]


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (2, 9), (2, 2)])
def test_a_map_comes_back_from_its_windows(size: tuple[int, int]) -> None:
    maps = torch.randn(2, *size, 3)
    regions = window_regions(size, 3)
    assert torch.equal(to_map(to_windows(maps, regions), regions), maps)
