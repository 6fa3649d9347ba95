"""Patches on a grid: where they lie, what they show, and that they belong to their sample."""

from __future__ import annotations

import torch

from vosssl.ops.patch_grid import cut_patches, grid_boxes, random_boxes


def test_without_jitter_the_grid_is_that_of_sliding_windows() -> None:
    boxes = grid_boxes(torch.tensor([1]), 2, side=7, patch=0.25, frame_scale=None, patch_scale=None)
    assert boxes.shape == (1, 2, 49, 4)
    frames = torch.rand(1, 2, 3, 256, 256)
    patches = cut_patches(frames, boxes, size=64)
    windows = frames.unfold(3, 64, 32).unfold(4, 64, 32)  # (1, 2, 3, 7, 7, 64, 64)
    windows = windows.permute(0, 1, 3, 4, 2, 5, 6).flatten(2, 3)
    torch.testing.assert_close(patches, windows, atol=1e-3, rtol=0)


def test_crops_lie_inside_and_have_the_wanted_area_and_ratio() -> None:
    boxes = random_boxes(torch.rand(4000, 22), scale=(0.7, 0.9))
    top, left, height, width = boxes.unbind(-1)
    assert bool((boxes[:, :2] >= 0).all()) and float((top + height).max()) <= 1 + 1e-6
    assert float((left + width).max()) <= 1 + 1e-6
    area, ratio = height * width, width / height
    assert float(area.min()) > 0.69 and float(area.max()) < 0.91
    assert float(ratio.min()) > 0.74 and float(ratio.max()) < 1.34


def test_a_ratio_is_one_of_pixels() -> None:
    boxes = random_boxes(torch.rand(2000, 22), scale=(0.3, 0.4), ratio=(0.9, 1.1), aspect=2.0)
    ratio = 2 * boxes[:, 3] / boxes[:, 2]
    assert float(ratio.min()) > 0.89 and float(ratio.max()) < 1.11


def test_boxes_depend_on_the_key_alone_and_differ_between_frames() -> None:
    both = grid_boxes(torch.tensor([3, 4]), 3, side=4, patch=0.25)
    alone = grid_boxes(torch.tensor([4]), 3, side=4, patch=0.25)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(alone[:, 0], alone[:, 1])
    assert float(both.min()) >= 0 and float((both[..., :2] + both[..., 2:]).max()) <= 1 + 1e-6


def test_a_box_shows_what_lies_in_it() -> None:
    ramp = torch.arange(32.0).expand(1, 1, 3, 32, 32)
    box = torch.tensor([0.0, 0.25, 1.0, 0.5]).view(1, 1, 1, 4)
    patch = cut_patches(ramp, box, size=16)[0, 0, 0, 0]
    torch.testing.assert_close(patch, torch.arange(8.0, 24).expand(16, 16))
