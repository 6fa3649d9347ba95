"""Outlines become the masks that the COCO API draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vosssl.data.polygons import box_mask, ellipse_mask, polygon_mask, polygons_mask
from vosssl.data.rle import decode_rle

GOLDENS = Path(__file__).parents[1] / "goldens" / "polygons.json"  # masks of pycocotools 2.0.11


def test_masks_equal_those_of_pycocotools() -> None:
    for case in json.loads(GOLDENS.read_text()):
        height, width = case["size"]
        expected = decode_rle(case["counts"], (height, width))
        assert torch.equal(polygon_mask(case["points"], (height, width)), expected), case["points"]


def test_a_square_covers_the_pixels_whose_centres_it_holds() -> None:
    mask = polygon_mask([1, 1, 3, 1, 3, 3, 1, 3], (4, 5))
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[1:3, 1:3] = True
    assert torch.equal(mask, expected)
    assert torch.equal(box_mask(1, 1, 3, 3, (4, 5)), expected)


def test_a_triangle_by_hand() -> None:
    mask = polygon_mask([0, 0, 4, 0, 0, 4], (4, 4)).int()
    assert mask.sum(1).tolist() == [3, 2, 1, 0]  # centres on the slope are outside, as pycocotools has it
    assert all(row == sorted(row, reverse=True) for row in mask.tolist())


def test_what_lies_outside_the_image_is_cut_off() -> None:
    assert polygon_mask([-1e9, -5, 1e9, -5, 1e9, 100, -1e9, 100], (3, 4)).all()
    assert not polygon_mask([10, 10, 20, 10, 20, 20], (3, 4)).any()


def test_the_order_of_corners_and_the_first_one_do_not_matter() -> None:
    points = torch.tensor([[1.2, 0.3], [7.9, 2.2], [5.1, 8.8], [0.4, 6.0]]).numpy()
    mask = polygon_mask(points, (9, 9))
    assert 20 < mask.sum() < 60
    assert torch.equal(polygon_mask(points[[2, 3, 0, 1]], (9, 9)), mask)


def test_several_polygons_are_one_mask() -> None:
    two = polygons_mask([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 4, 1, 4, 4, 1, 4]], (4, 4))
    assert two.sum() == 4 + 9 - 1


def test_a_turned_box_is_where_it_should_be() -> None:
    upright = box_mask(1, 3, 7, 5, (8, 8))
    assert torch.equal(box_mask(1, 3, 7, 5, (8, 8), degrees=90), upright.T)
    assert torch.equal(box_mask(1, 3, 7, 5, (8, 8), degrees=180), upright)


def test_a_circle_holds_the_centres_within_its_radius() -> None:
    mask = ellipse_mask(2.5, 2.5, 1, 1, (5, 5))
    assert mask.nonzero().tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]
    wide = ellipse_mask(2.5, 2.5, 2, 1, (5, 5))
    assert torch.equal(ellipse_mask(2.5, 2.5, 2, 1, (5, 5), degrees=90), wide.T)


def test_what_is_no_outline_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 corners, expected 3 or more"):
        polygon_mask([0, 0, 1, 1], (4, 4))
    with pytest.raises(ValueError, match="no list of coordinates"):
        polygon_mask([0, 0, 1, 1, 2], (4, 4))
    with pytest.raises(ValueError, match="all finite"):
        polygon_mask([0, 0, 1, float("nan"), 2, 2], (4, 4))
    with pytest.raises(ValueError, match="expected both above 0"):
        ellipse_mask(1, 1, 0, 1, (4, 4))
