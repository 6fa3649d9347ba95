"""Patches cut from frames on a jittered grid, on the frames' device, from a sample's own random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.noise import uniform

TRIES = 10  # draws of a box before it settles for the whole, as torchvision's crop does
_NUMBERS = 2 * TRIES + 2  # uniform numbers per box: area and ratio of every try, then the place


def random_boxes(
    numbers: Tensor, *, scale: Sequence[float], ratio: Sequence[float] = (3 / 4, 4 / 3), aspect: float = 1.0
) -> Tensor:
    """Boxes inside a picture: the random resized crop of torchvision, with fractions of pixels.

    Args:
        numbers: (..., 22) uniform in [0, 1).
        scale: (least, largest) area as a share of the picture's.
        ratio: (least, largest) width / height of the box in pixels.
        aspect: width / height of the picture.

    Returns:
        (..., 4): top, left, height, width as shares of the picture. Of ten draws the first that fits; where
        none does, the first, with its sides cut off.
    """
    area = scale[0] + (scale[1] - scale[0]) * numbers[..., :TRIES]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = (low + (high - low) * numbers[..., TRIES : 2 * TRIES]).exp()
    width, height = (area * shape / aspect).sqrt(), (area / shape * aspect).sqrt()  # (..., tries)
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(-1, keepdim=True)  # 0 also where none fits
    height = height.gather(-1, first)[..., 0].clamp(max=1)
    width = width.gather(-1, first)[..., 0].clamp(max=1)
    top, left = (1 - height) * numbers[..., -2], (1 - width) * numbers[..., -1]
    return torch.stack([top, left, height, width], dim=-1)


def grid_boxes(
    keys: Tensor,
    frames: int,
    *,
    side: int,
    patch: float,
    aspect: float = 1.0,
    frame_scale: Sequence[float] | None = (0.8, 0.95),
    frame_ratio: Sequence[float] = (0.7, 1.3),
    patch_scale: Sequence[float] | None = (0.7, 0.9),
    patch_ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Boxes of overlapping patches: a random crop of each frame, a grid over it, a random crop of each cell.

    Args:
        keys: (B,) int64 seeds of the samples, on the CPU.
        frames: T.
        side: patches along each side; N is its square.
        patch: side of a cell as a share of the crop's; cells lie evenly between its borders.
        aspect: width / height of the frames.
        frame_scale: area of a frame's crop; None: the whole frame.
        frame_ratio: of its width to its height.
        patch_scale: area of a patch in its cell; None: the whole cell.
        patch_ratio: of its width to its height.

    Returns:
        (B, T, N, 4) top, left, height, width as shares of the frame. The crops of all frames and patches are
        independent of each other.
    """
    count = frames * (1 + side**2)
    numbers = uniform(keys, count * _NUMBERS).view(len(keys), frames, 1 + side**2, _NUMBERS)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    crop = whole.expand(len(keys), frames, 1, 4)
    if frame_scale is not None:
        crop = random_boxes(numbers[:, :, :1], scale=frame_scale, ratio=frame_ratio, aspect=aspect)
    jitter = whole.expand(len(keys), frames, side**2, 4)
    if patch_scale is not None:
        jitter = random_boxes(numbers[:, :, 1:], scale=patch_scale, ratio=patch_ratio)
    places = torch.linspace(0, 1 - patch, side)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    cells = torch.stack([rows, columns, torch.full_like(rows, patch), torch.full_like(rows, patch)], -1)
    return _inside(_inside(jitter, cells.flatten(0, 1)), crop)


def _inside(inner: Tensor, outer: Tensor) -> Tensor:
    """Boxes given as shares of other boxes, as shares of what those are given in."""
    corner = outer[..., :2] + inner[..., :2] * outer[..., 2:]
    return torch.cat([corner.expand((*inner.shape[:-1], 2)), inner[..., 2:] * outer[..., 2:]], dim=-1)


def cut_patches(frames: Tensor, boxes: Tensor, *, size: int) -> Tensor:
    """What lies in boxes, bilinear, without antialiasing.

    Args:
        frames: (B, T, 3, H, W) float.
        boxes: (B, T, N, 4) top, left, height, width as shares of the frame.
        size: side of the patches that come out.

    Returns:
        (B, T, N, 3, size, size).
    """
    clips, times, count = boxes.shape[:3]
    steps = (torch.arange(size, device=frames.device) + 0.5) / size  # centres of pixels
    top, left, height, width = boxes.to(frames.device).flatten(0, 1).unbind(-1)  # (B*T, N) each
    rows = (top[..., None] + height[..., None] * steps) * 2 - 1  # (B*T, N, size)
    columns = (left[..., None] + width[..., None] * steps) * 2 - 1
    shape = (*rows.shape[:2], size, size)
    grid = torch.stack([columns[:, :, None].expand(shape), rows[..., None].expand(shape)], dim=-1)
    cut = F.grid_sample(
        frames.flatten(0, 1), grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False
    )  # (B*T, 3, N * size, size)
    return cut.unflatten(2, (count, size)).transpose(1, 2).unflatten(0, (clips, times))
