"""Maps of the plane: affine changes as torchvision makes them, splines through their control points."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, affine

from vosssl.clip import Clip
from vosssl.data.warps import warp_clip
from vosssl.ops.planar import (
    affine_map,
    mapped,
    mapped_pixels,
    pixel_centres,
    thin_plate_spline,
    window_map,
)


def points(*values: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_quarter_turn_is_clockwise_about_the_centre() -> None:
    turned = mapped(points((2.0, 0.0), (1.0, 1.0)), affine_map((2, 2), angle=90))
    torch.testing.assert_close(turned, points((2.0, 2.0), (1.0, 1.0)))


def test_mirroring_comes_before_the_turn() -> None:
    assert mapped(points((0.0, 1.0)), affine_map((2, 4), mirror=True)).tolist() == [[4.0, 1.0]]
    both = affine_map((4, 4), mirror=True, angle=30, zoom=2.0, shear=5)
    apart = affine_map((4, 4), angle=30, zoom=2.0, shear=5) @ affine_map((4, 4), mirror=True)
    torch.testing.assert_close(both, apart)


def test_a_window_shows_its_corners() -> None:
    matrix = window_map(2, 3, (4, 6), (8, 8))
    torch.testing.assert_close(mapped(points((0, 0), (8, 8)), matrix), points((3, 2), (9, 6)))


def test_pixels_are_mapped_like_their_centres() -> None:
    matrix = affine_map((5, 7), angle=20, zoom=1.3, shear=8)
    torch.testing.assert_close(mapped_pixels((5, 7), matrix), mapped(pixel_centres((5, 7)), matrix))
    assert pixel_centres((2, 3))[1, 2].tolist() == [2.5, 1.5]


@pytest.mark.parametrize(("angle", "zoom", "shear"), [(20.0, 1.0, 0.0), (0.0, 1.4, 0.0), (-15.0, 0.8, 10.0)])
def test_an_affine_change_is_the_one_of_torchvision(angle: float, zoom: float, shear: float) -> None:
    size = (40, 56)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
    back = torch.linalg.inv(affine_map(size, angle=angle, zoom=zoom, shear=shear))
    ours = warp_clip(Clip("a", frames), mapped_pixels(size, back)[None], colour=(0, 0, 0)).frames
    theirs = affine(
        frames.float(), angle, [0, 0], zoom, [shear, 0], interpolation=InterpolationMode.BILINEAR
    ).round()
    assert (ours.float() - theirs).abs().max() <= 1  # the rounding of a coordinate


def test_a_spline_without_displacement_moves_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    control = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    grid = torch.rand(5, 6, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(thin_plate_spline(grid, control, control), grid, atol=1e-10, rtol=0)


def test_a_spline_takes_its_control_points_exactly_where_they_go() -> None:
    generator = torch.Generator().manual_seed(0)
    sources = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    targets = sources + 0.02 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(thin_plate_spline(sources, sources, targets), targets, atol=1e-9, rtol=0)


def test_a_spline_of_an_affine_change_is_that_change() -> None:
    generator = torch.Generator().manual_seed(0)
    sources, places = torch.rand(2, 9, 2, generator=generator, dtype=torch.float64)
    matrix = affine_map((3, 4), angle=30, zoom=1.2, shear=12)
    bent = thin_plate_spline(places, sources, mapped(sources, matrix))
    torch.testing.assert_close(bent, mapped(places, matrix), atol=1e-9, rtol=0)


def test_control_points_in_one_line_are_refused() -> None:
    line = points((0, 0), (1, 1), (2, 2), (3, 3))
    with pytest.raises(ValueError, match="in one line"):
        thin_plate_spline(line, line, line + 1)
    with pytest.raises(ValueError, match="N of 3 or more"):
        thin_plate_spline(line, line[:2], line[:2])
