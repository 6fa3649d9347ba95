"""Masks of everything: grids, crops, doubles, and a network by hand that knows things by their grey."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.methods.mobile_sam_models import recorded_image, tiny_mobile_sam
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.propagation.image_prompting import EncodedImage, MaskCandidates, PromptRows
from vosssl.propagation.mask_generation import (
    FoundMasks,
    MaskGenerator,
    crop_windows,
    cut_off,
    mask_boxes,
    point_grid,
)


class Greys:
    """The object at a point is all that has its grey; besides a mask of it, a blurred one and everything."""

    mask_prompt_size = (60, 80)  # to which images are padded, with a grey that nothing has

    def encode_image(self, image: Tensor) -> EncodedImage:
        size = (image.shape[1], image.shape[2])
        padded = pad(image[None, :1], (0, 80 - size[1], 0, 60 - size[0]), value=-1.0)
        return EncodedImage((padded,), size, size)

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        assert multimask and prompts.points is not None
        grey = image.features[0][0, 0]  # (60, 80)
        x, y = prompts.points[:, 0].long().unbind(dim=1)
        own = 4 - 100 * (grey - grey[y, x][:, None, None]).abs()  # (P, 60, 80)
        logits = torch.stack([own, own * 0.01, torch.full_like(own, 9.0)], dim=1)
        quality = torch.tensor([0.95, 0.93, 0.5]).repeat(len(own), 1)
        quality[:, 0] -= 0.01 * grey[y, x]  # dark things are clearer
        return MaskCandidates(logits, quality)

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        return logits[..., : image.size[0], : image.size[1]]


def scene() -> Tensor:
    """Grey 0.2 behind two things, 0.6 and 1."""
    image = torch.full((3, 60, 80), 0.2)
    image[:, 10:30, 10:40] = 0.6
    image[:, 35:50, 50:75] = 1.0
    return image


def found(image: Tensor | None = None, **options: Any) -> FoundMasks:
    return MaskGenerator(Greys(), **{"points_per_side": 8} | options)(scene() if image is None else image)


def test_each_thing_is_found_once_and_what_is_unstable_or_unsure_is_not() -> None:
    masks = found()
    assert len(masks) == 3
    grey = scene()[0]
    for mask, value in zip(masks.masks, (0.2, 0.6, 1.0), strict=True):  # the most trusted first
        assert torch.equal(mask, grey == value)
    assert masks.boxes.tolist() == [[0, 0, 80, 60], [10, 10, 40, 30], [50, 35, 75, 50]]
    torch.testing.assert_close(masks.iou, torch.tensor([0.948, 0.944, 0.94]))
    assert masks.stability.tolist() == [1, 1, 1]
    x, y = masks.points.long().unbind(dim=1)
    assert torch.equal(grey[y, x], torch.tensor([0.2, 0.6, 1.0]))
    assert masks.crops.tolist() == [[0, 0, 80, 60]] * 3


def test_thresholds_decide() -> None:
    assert len(found(pred_iou_thresh=0.945)) == 1
    assert len(found(stability_score_thresh=0.0, box_nms_thresh=1.0)) == 2 * 64  # nothing counts as the same
    everything = found(pred_iou_thresh=0.4, box_nms_thresh=0.99)
    assert len(everything) == 3  # "everything" has the box of the background, which is trusted more
    assert len(found(pred_iou_thresh=0.99)) == 0


def test_batches_change_nothing() -> None:
    whole, parts = found(points_per_batch=64), found(points_per_batch=5)
    for name in ("masks", "boxes", "iou", "points"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_crops_find_what_is_small_and_leave_what_they_cut_off() -> None:
    image = scene()
    image[:, 2:6, 60:64] = 0.0
    assert len(found(image, points_per_side=4)) == 3  # the grid is too wide
    masks = found(image, points_per_side=4, crop_n_layers=2)
    assert len(masks) == 4
    small = int(masks.masks.flatten(1).sum(dim=1).argmin())
    assert torch.equal(masks.masks[small], image[0] == 0.0)
    assert masks.crops[small].tolist() != [0, 0, 80, 60]
    for mask, box in zip(masks.masks, masks.boxes, strict=True):
        assert torch.equal(mask_boxes(mask[None])[0] + torch.tensor([0, 0, 1, 1]), box)


def test_small_regions_go_and_what_has_become_alike_stays_once() -> None:
    image = scene()
    image[:, 20, 20] = 0.2  # a hole in a thing, an island of the background
    image[:, 2:4, 2:4] = 0.6  # an island of the thing far away
    masks = found(image, min_mask_region_area=10)
    assert len(masks) == 3
    clean = scene()[0]
    assert any(torch.equal(mask, clean == 0.6) for mask in masks.masks)
    assert any(box == [10, 10, 40, 30] for box in masks.boxes.tolist())


def test_the_label_map_has_small_things_on_top_and_starts_tracking() -> None:
    one = torch.zeros(4, 6, 8, dtype=torch.bool)
    one[0, :, :] = True
    one[1, 1:5, 1:5] = True
    one[2, 2:4, 2:4] = True
    one[3, 2:4, 2:4] = True  # hides the one before
    masks = FoundMasks(
        one, torch.zeros(4, 4), torch.ones(4), torch.ones(4), torch.zeros(4, 2), torch.zeros(4, 4)
    )
    labels = masks.labels()
    assert labels.dtype == torch.uint8 and labels.unique().tolist() == [1, 2, 3]
    assert labels[0, 0] == 1 and labels[1, 1] == 2 and labels[2, 2] == 3
    segmenter = CopyFirstMask()
    assert torch.equal(segmenter.step(torch.zeros(3, 6, 8), labels), labels)
    assert segmenter.object_ids == (1, 2, 3)


def test_of_more_masks_than_ids_the_most_trusted_are_drawn() -> None:
    masks = torch.eye(300, dtype=torch.bool).reshape(300, 15, 20)
    rest = [
        torch.zeros(300, 4),
        torch.arange(300.0),
        torch.ones(300),
        torch.zeros(300, 2),
        torch.zeros(300, 4),
    ]
    labels = FoundMasks(masks, *rest).labels().flatten()
    assert int(labels.max()) == 254 and not labels[:46].any() and labels[46:].all()
    none = FoundMasks(masks[:0], *(part[:0] for part in rest))
    assert len(none) == 0 and not none.labels().any()


def test_points_are_the_centres_of_cells() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_crops_overlap_and_cover_the_image() -> None:
    windows = crop_windows((60, 100), 1, overlap=0.2)
    assert windows[0] == (0, (0, 0, 100, 60))
    # 12 pixels are shared: (12 + 100) / 2 = 56 wide, (12 + 60) / 2 = 36 high
    expected = [(0, 0, 56, 36), (0, 24, 56, 60), (44, 0, 100, 36), (44, 24, 100, 60)]
    assert [window for _, window in windows[1:]] == expected
    covered = torch.zeros(61, 103, dtype=torch.int64)
    for layer, (left, top, right, bottom) in crop_windows((61, 103), 2, overlap=0.3)[1:]:
        covered[top:bottom, left:right] += layer == 2
    assert covered.min() >= 1


def test_masks_count_as_cut_off_only_at_edges_that_the_image_does_not_have() -> None:
    boxes = torch.tensor([[0.0, 0, 30, 30], [0, 0, 99, 30], [30, 30, 60, 60]])
    assert cut_off(boxes, (0, 0, 100, 100), (100, 200)).tolist() == [False, True, False]
    assert not cut_off(boxes, (0, 0, 100, 100), (100, 100)).any()


def test_boxes_name_first_and_last_pixels() -> None:
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 5, 2], [0, 0, 0, 0]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_a_real_network_runs_through() -> None:
    generator = MaskGenerator(
        tiny_mobile_sam(),
        points_per_side=3,
        pred_iou_thresh=-9.0,
        stability_score_thresh=0.0,
        crop_n_layers=1,
    )
    masks = generator(recorded_image(40, 50, 1))
    assert masks.masks.shape[1:] == (40, 50) and len(masks) > 0
    assert torch.equal(mask_boxes(masks.masks) + torch.tensor([0, 0, 1, 1]), masks.boxes)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"points_per_side": 0}, "points_per_side is 0, expected at least 1"),
        ({"points_per_batch": 0}, "expected at least 1"),
        ({"crop_n_layers": -1}, "crop_n_layers is -1"),
        ({"crop_overlap_ratio": 1.0}, "expected a share of 0 to 1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MaskGenerator(Greys(), **options)


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(3, H, W\)"):
        MaskGenerator(Greys())(torch.zeros(60, 80, 3))
