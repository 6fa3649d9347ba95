from __future__ import annotations

import pytest
import torch

from vosssl.layers.positions import CoordinatePositions, coordinate_grid, patch_grid, resize_positions


def test_coordinates_run_from_minus_one_to_one_rows_first() -> None:
    grid = coordinate_grid(3, 2)
    assert grid[0].tolist() == [[-1, -1], [0, 0], [1, 1]]
    assert grid[1].tolist() == [[-1, 1], [-1, 1], [-1, 1]]


def test_a_grid_follows_the_aspect_ratio_of_the_image() -> None:
    assert patch_grid(196, 224, 224) == (14, 14)
    assert patch_grid(30 * 53, 480, 854) == (30, 53)
    assert patch_grid(12, 480, 640) == (3, 4)
    with pytest.raises(ValueError, match="do not fill a grid"):
        patch_grid(13, 10, 10)


def test_resizing_positions_keeps_a_constant_and_the_native_grid() -> None:
    embedding = torch.full((1, 12, 5), 2.0)
    assert resize_positions(embedding, (3, 4), (3, 4)) is embedding
    assert torch.allclose(resize_positions(embedding, (3, 4), (5, 7)), torch.full((1, 35, 5), 2.0))


def test_coordinate_positions_take_any_size() -> None:
    positions = CoordinatePositions(4, (6, 6))
    assert positions(torch.zeros(2, 4, 3, 5)).shape == (2, 4, 3, 5)
    corner = positions(torch.zeros(1, 4, 3, 5))[..., 0, 0]
    assert torch.allclose(corner, positions(torch.zeros(1, 4, 6, 6))[..., 0, 0])
