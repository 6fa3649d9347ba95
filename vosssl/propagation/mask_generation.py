"""Masks of everything in an image: a grid of points asks, what is sure, stable and new stays.

Masks that the network does not trust are dropped before they are enlarged, and what is kept in between is at
the decoder's resolution: the same masks, in less time and memory.

Source: Kirillov et al., "Segment Anything", ICCV 2023, section 4 and appendix B ("Automatic mask
generation"), with the defaults of its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from vosssl.ops.images import require_rgb
from vosssl.ops.regions import remove_small_regions
from vosssl.ops.resize import Size
from vosssl.propagation.image_prompting import EncodedImage, ImagePrompter, PromptableNetwork, PromptRows

MAX_OBJECTS = 254  # ids of a label map
NEAR = 20  # pixels from the edge of a crop at which a mask counts as cut off
AT_ONCE = 32  # masks that are enlarged at once: bounds the memory


@dataclass(frozen=True)
class FoundMasks:
    """K masks of one image; they may overlap.

    Attributes:
        masks: (K, H, W) bool.
        boxes: (K, 4) float: left, top, right, bottom around each.
        iou: (K,), the network's own estimate of each mask's quality.
        stability: (K,), how little each mask depends on its threshold: 1 not at all.
        points: (K, 2) x and y that each mask answers; a pixel's centre is an integer.
        crops: (K, 4) left, top, right, bottom of the part of the image that it was found in.
    """

    masks: Tensor
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor
    crops: Tensor

    def __len__(self) -> int:
        return len(self.masks)

    def labels(self) -> Tensor:
        """A label map that can start tracking: small masks lie over large ones.

        Of more than 254 masks, those with the best estimates are drawn.

        Returns:
            (H, W) uint8, ids from 1 without gaps.
        """
        drawn = self.masks[self.iou.argsort(descending=True, stable=True)[:MAX_OBJECTS]]
        order = drawn.flatten(1).sum(dim=1).argsort(descending=True, stable=True)
        labels = torch.zeros(self.masks.shape[1:], dtype=torch.uint8, device=self.masks.device)
        for identity, mask in enumerate(drawn[order], start=1):
            labels = torch.where(mask, identity, labels)
        seen = torch.bincount(labels.flatten().long(), minlength=MAX_OBJECTS + 1) > 0
        seen[0] = False
        return (seen.cumsum(dim=0) * seen).byte()[labels.long()]


class _Candidates(NamedTuple):
    """K masks on their way, at the decoder's resolution; boxes include their last pixels."""

    low_res: Tensor
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor
    crops: Tensor

    def only(self, kept: Tensor) -> _Candidates:
        return _Candidates(*(values[kept] for values in self))


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    return _Candidates(*(torch.cat(values) for values in zip(*parts, strict=True)))


class MaskGenerator:
    """Finds masks without being asked.

        found = MaskGenerator(vosssl.create_model("mobile-sam", weights="mobile-sam"))(image)
        segmenter.step(image, found.labels())

    Args:
        network: in evaluation mode, on any device.
        points_per_side: of the grid.
        points_per_batch: that are decoded at once.
        pred_iou_thresh: masks have to be trusted more than this.
        stability_score_thresh: masks have to be at least this stable.
        stability_score_offset: how far the threshold of the logits is moved to find out.
        box_nms_thresh: overlap of boxes above which only the more trusted mask stays.
        crop_n_layers: how often the image is cut up further; layer n has 2^n by 2^n crops.
        crop_nms_thresh: as `box_nms_thresh`, between crops: that of the smaller crop stays.
        crop_overlap_ratio: of the image's shorter side, by which crops of the first layer overlap.
        crop_n_points_downscale_factor: by which grids have fewer points per side with each layer.
        min_mask_region_area: pixels; smaller holes are filled and smaller islands dropped.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        network: PromptableNetwork,
        *,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 0,
    ) -> None:
        whole = {
            "points_per_side": (points_per_side, 1),
            "crop_n_layers": (crop_n_layers, 0),
            "crop_n_points_downscale_factor": (crop_n_points_downscale_factor, 1),
            "min_mask_region_area": (min_mask_region_area, 0),
        }
        for name, (value, least) in whole.items():
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if not 0 <= crop_overlap_ratio < 1:
            raise ValueError(f"crop_overlap_ratio is {crop_overlap_ratio}, expected a share of 0 to 1")
        self.prompter = ImagePrompter(network, chunk_size=points_per_batch)
        self.points_per_side = points_per_side
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> FoundMasks:
        """Finds the masks of an image.

        Args:
            image: (3, H, W) RGB, uint8 or float in [0, 1].

        Returns:
            The masks on the network's device, perhaps none.

        Raises:
            ValueError: another shape, type or range.
        """
        require_rgb(image, "image")
        size = (image.shape[1], image.shape[2])
        crops = crop_windows(size, self.crop_n_layers, overlap=self.crop_overlap_ratio)
        views, parts = {}, []
        for layer, crop in crops:
            left, top, right, bottom = crop
            self.prompter.set_image(image[:, top:bottom, left:right])
            views[crop] = self.prompter.image._replace(features=())
            parts.append(self._in_crop(crop, layer, size))
        self.prompter.reset()
        found = _joined(parts)
        if len(crops) > 1:
            sides = found.crops[:, 2:] - found.crops[:, :2]
            found = found.only(nms(found.boxes, 1 / sides.prod(dim=1), self.crop_nms_thresh))
        masks = self._enlarged(found, views, size)
        if self.min_mask_region_area > 0:
            found, masks = self._without_small_regions(found, masks)
        edges = found.boxes + found.boxes.new_tensor([0, 0, 1, 1])
        return FoundMasks(masks, edges, found.iou, found.stability, found.points, found.crops)

    def _in_crop(self, crop: tuple[int, int, int, int], layer: int, size: Size) -> _Candidates:
        """What is found in the part of the image that was set."""
        left, top, right, bottom = crop
        image = self.prompter.image
        count = max(1, self.points_per_side // self.crop_n_points_downscale_factor**layer)
        device = image.features[0].device
        points = point_grid(count).to(device) * torch.tensor([right - left, bottom - top], device=device)
        parts = []
        for asked in points.split(self.prompter.chunk_size):
            labels = torch.ones(len(asked), 1, dtype=torch.int32, device=device)
            answer = self.prompter.decode(PromptRows(asked[:, None], labels), multimask=True)
            iou = answer.iou.flatten()  # (P, M) -> (P * M,)
            trusted = (iou > self.pred_iou_thresh).nonzero().flatten()
            low_res, origin = answer.logits.flatten(0, 1)[trusted], asked[trusted // answer.iou.shape[1]]
            stability, boxes = self._measured(image, low_res)
            shift = boxes.new_tensor([left, top, left, top])
            kept = (stability >= self.stability_score_thresh) & ~cut_off(boxes + shift, crop, size)
            parts.append(
                _Candidates(
                    low_res,
                    boxes + shift,
                    iou[trusted],
                    stability,
                    origin + shift[:2],
                    boxes.new_tensor(crop).expand(len(trusted), -1),
                ).only(kept)
            )
        found = _joined(parts)
        return found.only(nms(found.boxes, found.iou, self.box_nms_thresh))

    def _measured(self, image: EncodedImage, low_res: Tensor) -> tuple[Tensor, Tensor]:
        """Stability (K,) and boxes (K, 4) of masks at the crop's size; an empty mask's stability is -1."""
        offset = self.stability_score_offset
        stability, boxes = [low_res.new_zeros(0)], [low_res.new_zeros(0, 4)]
        for part in low_res.split(AT_ONCE):
            logits = self.prompter.network.at_image_size(image, part[:, None])[:, 0]  # (k, h, w) -> (k, H, W)
            inner, outer = ((logits > level).sum(dim=(1, 2)) for level in (offset, -offset))
            mask = logits > 0
            there = mask.flatten(1).any(dim=1)
            stability.append(torch.where(there, inner / outer.clamp(min=1), -1.0))
            boxes.append(mask_boxes(mask))
        return torch.cat(stability), torch.cat(boxes)

    def _enlarged(
        self, found: _Candidates, views: dict[tuple[int, int, int, int], EncodedImage], size: Size
    ) -> Tensor:
        masks = torch.zeros(len(found.iou), *size, dtype=torch.bool, device=found.iou.device)
        for index, (low_res, crop) in enumerate(zip(found.low_res, found.crops.int().tolist(), strict=True)):
            left, top, right, bottom = crop
            logits = self.prompter.network.at_image_size(views[left, top, right, bottom], low_res[None, None])
            masks[index, top:bottom, left:right] = logits[0, 0] > 0
        return masks

    def _without_small_regions(self, found: _Candidates, masks: Tensor) -> tuple[_Candidates, Tensor]:
        """Cleans masks; where two have become alike, the one that was clean before stays."""
        cleaned = [remove_small_regions(mask, self.min_mask_region_area) for mask in masks]
        if not cleaned:
            return found, masks
        unchanged = torch.tensor([new.equal(old) for new, old in zip(cleaned, masks, strict=True)]).float()
        masks = torch.stack(cleaned)
        found = found._replace(boxes=mask_boxes(masks))
        threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
        kept = nms(found.boxes, unchanged.to(found.boxes), threshold)
        return found.only(kept), masks[kept]


def point_grid(count: int) -> Tensor:
    """The centres of count x count cells: (count^2, 2) x and y in [0, 1], row by row."""
    centres = (torch.arange(count) + 0.5) / count
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def crop_windows(size: Size, layers: int, *, overlap: float) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The image, then its crops of each layer.

    Args:
        size: (H, W).
        layers: how many; layer n has 2^n by 2^n crops.
        overlap: share of the shorter side by which crops of the first layer overlap; less with each layer.

    Returns:
        Layer, and left, top, right, bottom (excluded) of each.
    """
    height, width = size
    windows = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        common = int(overlap * min(size) * 2 / count)
        tall, wide = (math.ceil((common * (count - 1) + side) / count) for side in size)
        windows += [
            (layer, (left, top, min(left + wide, width), min(top + tall, height)))
            for left in range(0, count * (wide - common), wide - common)
            for top in range(0, count * (tall - common), tall - common)
        ]
    return windows


def cut_off(boxes: Tensor, crop: tuple[int, int, int, int], size: Size) -> Tensor:
    """Whether masks end at the edge of a crop that is not the image's: another crop sees them whole.

    Args:
        boxes: (K, 4) within the image.
        crop: left, top, right, bottom.
        size: (H, W) of the image.

    Returns:
        (K,) bool.
    """
    edges, borders = boxes.new_tensor(crop), boxes.new_tensor([0, 0, size[1], size[0]])
    return (((boxes - edges).abs() <= NEAR) & ((boxes - borders).abs() > NEAR)).any(dim=1)


def mask_boxes(masks: Tensor) -> Tensor:
    """First and last pixels of masks.

    Args:
        masks: (K, H, W) bool.

    Returns:
        (K, 4) float left, top, right, bottom; the last pixels are included. Zeros for an empty mask.
    """
    sides = []
    for axis in (1, 2):  # over rows: columns, then rows
        there = masks.any(dim=axis).int()  # (K, W), then (K, H)
        first, last = there.argmax(dim=1), there.shape[1] - 1 - there.flip(1).argmax(dim=1)
        sides.append((first, last * there.any(dim=1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()
