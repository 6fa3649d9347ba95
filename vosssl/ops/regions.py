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
