"""Connected regions of masks."""

from __future__ import annotations

import torch
from torch import Tensor


def connected_regions(mask: Tensor) -> Tensor:
    """Numbers the regions of a mask; pixels that touch at a corner are connected.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) int64 on the mask's device: 0 outside, 1, 2, … in the order of their first pixels.
    """
    from scipy.ndimage import label  # only few callers need it

    numbered, _ = label(mask.cpu().numpy(), structure=[[1, 1, 1]] * 3)
    return torch.from_numpy(numbered).long().to(mask.device)


def remove_small_regions(mask: Tensor, min_area: int) -> Tensor:
    """Fills small holes, then drops small islands; of islands that are all small the largest stays.

    Args:
        mask: (H, W) bool.
        min_area: pixels of the smallest hole or island that is left alone.

    Returns:
        (H, W) bool; the same tensor where nothing had to change.
    """
    background = connected_regions(~mask)
    small = background.flatten().bincount() < min_area
    small[0] = False  # the mask itself
    if small.any():
        mask = mask | small[background]
    islands = connected_regions(mask)
    areas = islands.flatten().bincount()
    areas[0] = 0
    kept = areas >= min_area
    if len(areas) > 1 and not kept.any():
        kept[areas.argmax()] = True
    kept[0] = False
    return mask if bool(kept[1:].all()) else kept[islands]


def fill_holes(logits: Tensor, max_area: int, *, value: float = 0.1) -> Tensor:
    """Makes small holes in masks part of them.

    Args:
        logits: (..., H, W), masks where above 0.
        max_area: pixels of the largest region of the background that is filled; 0: none.
        value: what its logits become.

    Returns:
        (..., H, W); the same tensor where there is nothing to fill.

    Source: the video predictor of facebookresearch/sam2, which does so on GPUs, with a `max_area` of 8.
    """
    if max_area < 1:
        return logits
    filled = []
    for mask in logits.flatten(0, -3) if logits.ndim > 2 else logits[None]:
        numbered = connected_regions(mask <= 0)
        small = numbered.flatten().bincount() <= max_area
        small[0] = False  # the mask itself
        filled.append(torch.where(small[numbered], value, mask) if small.any() else mask)
    return torch.stack(filled).view_as(logits)
