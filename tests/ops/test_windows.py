"""Windows: their order, and what is left at the edges."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.windows import parted, to_map, to_windows, window_regions


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


@pytest.mark.parametrize(("most", "lengths"), [(1, [9, 9, 3, 6, 6, 2]), (18, [18, 3, 12, 2])])
def test_parts_end_between_windows(most: int, lengths: list[int]) -> None:
    parts = list(parted(window_regions((5, 7), 3), most))
    stops = [tokens.stop for tokens, _ in parts]
    assert [tokens.start for tokens, _ in parts] == [0, *stops[:-1]] and stops[-1] == 35
    assert [part.tokens.stop for _, part in parts] == lengths
    for tokens, part in parts:
        height, width = part.window
        assert part.tokens == slice(0, tokens.stop - tokens.start) and part.missing == 9 - height * width
        assert part.windows == (part.tokens.stop // (height * width), 1)
