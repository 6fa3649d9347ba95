"""Boundary maps and exact discs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vosssl.ops.boundary import (
    boundary_map,
    boundary_radius,
    dilate_disc,
    disc_half_widths,
    set_pixels,
    unpack_bits,
)

KERNELS = np.load(Path(__file__).parents[1] / "goldens" / "jf" / "kernels.npz")
CASES = sorted(name.split("/")[0] for name in KERNELS.files if name.endswith("/mask"))


def test_a_square_has_the_boundary_solved_by_hand() -> None:
    mask = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.uint8)
    expected = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert boundary_map(mask).tolist() == expected


def test_an_object_that_fills_the_image_has_no_boundary() -> None:
    assert not boundary_map(torch.ones(5, 7, dtype=torch.bool)).any()


@pytest.mark.parametrize("case", CASES)
def test_boundary_and_dilation_equal_the_official_ones(case: str) -> None:
    radius = int(case[1])
    mask = torch.from_numpy(KERNELS[f"{case}/mask"])
    edges = boundary_map(mask)
    assert np.array_equal(edges.numpy(), KERNELS[f"{case}/boundary"])
    assert np.array_equal(dilate_disc(edges, radius).numpy(), KERNELS[f"{case}/dilated"])


@pytest.mark.parametrize("radius", [1, 2, 3, 4, 5, 8])
def test_a_dilated_pixel_is_the_exact_disc(radius: int) -> None:
    name = "r8/disk" if radius == 8 else next(f"{case}/disk" for case in CASES if case[1] == str(radius))
    pixel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.uint8)
    pixel[radius, radius] = 1
    disc = dilate_disc(pixel, radius)
    assert np.array_equal(disc.numpy(), KERNELS[name])
    assert (2 * torch.tensor(disc_half_widths(radius)) + 1).tolist() == disc.sum(dim=1).tolist()


@pytest.mark.parametrize("size", [(1, 6), (6, 1), (1, 1), (2, 2), (5, 7)])
def test_the_boundary_map_follows_its_definition_at_any_size(size: tuple[int, int]) -> None:
    height, width = size
    mask = (
        torch.rand(width, height, generator=torch.Generator().manual_seed(height)).T < 0.5
    )  # not contiguous
    expected = torch.zeros(size, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            down, right = min(y + 1, height - 1), min(x + 1, width - 1)
            near = [mask[y, right], mask[down, x]]
            if down > y and right > x:
                near.append(mask[down, right])
            expected[y, x] = any(bool(other != mask[y, x]) for other in near)
    assert torch.equal(boundary_map(mask), expected)


def test_bits_come_apart_as_rows() -> None:
    maps = torch.tensor([[5, 0], [1, 128]], dtype=torch.uint8)
    assert unpack_bits(maps, 9)[:, 0].tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert unpack_bits(maps, 16)[15].tolist() == [0, 1]


def test_boundaries_of_bit_maps_are_those_of_each_mask() -> None:
    labels = torch.randint(0, 4, (9, 13), generator=torch.Generator().manual_seed(1)).byte()
    maps = sum(((labels == k + 1).byte() << k for k in range(3)), torch.zeros_like(labels))
    rows = unpack_bits(boundary_map(maps[None]), 3)
    assert all(torch.equal(rows[k].bool(), boundary_map(labels == k + 1)) for k in range(3))


def test_set_pixels_finds_what_is_set_at_any_size() -> None:
    image = (torch.rand(7, 11, generator=torch.Generator().manual_seed(0)) < 0.1).byte()
    assert torch.equal(set_pixels(image), image.flatten().nonzero().flatten())
    assert len(set_pixels(torch.zeros(3, 3, dtype=torch.uint8))) == 0


def test_the_radius_of_davis_frames_is_eight() -> None:
    assert boundary_radius(480, 854) == 8
    assert boundary_radius(120, 214) == 2
