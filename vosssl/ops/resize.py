"""Changing the size of images, masks and label maps: every align_corners, antialias and padding choice.

One convention throughout: pixel centres at half-integers (align_corners=False). Images are antialiased when
they shrink; masks are not, so that a soft mask keeps its values where it is flat.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.byte_resize import resize_bytes

Size = tuple[int, int]


class Padding(NamedTuple):
    """Pixels added on each side of an image."""

    left: int
    right: int
    top: int
    bottom: int


def _with_batch(tensor: Tensor) -> Tensor:
    """(..., C, H, W) or (H, W) as the four axes that torch's interpolation wants."""
    if tensor.ndim < 2:
        raise ValueError(f"expected at least (H, W), got {tuple(tensor.shape)}")
    if tensor.ndim == 2:
        return tensor[None, None]  # (H, W) -> (1, 1, H, W)
    if tensor.ndim == 4:
        return tensor  # a view of one image would lose its layout
    return tensor.reshape(-1, *tensor.shape[-3:]) if tensor.ndim > 3 else tensor[None]


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resizes images, bilinear, antialiased when shrinking.

    Args:
        image: (..., C, H, W) float.
        size: (height, width) wanted.

    Returns:
        (..., C, height, width), the same tensor when the size fits already.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    resized = F.interpolate(
        _with_batch(image), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.reshape(*image.shape[:-2], *size)


def resize_to_longest(image: Tensor, length: int) -> Tensor:
    """Resizes an image, up or down, so that its longer side has a given length; the aspect is kept.

    Bytes stay bytes, those that Pillow gives.

    Args:
        image: (C, H, W), uint8 or float.
        length: pixels.

    Returns:
        (C, height, width) of the same dtype.
    """
    scale = length / max(image.shape[-2:])
    height, width = (max(1, int(side * scale + 0.5)) for side in image.shape[-2:])
    if image.dtype == torch.uint8:
        return resize_bytes(image, (height, width))
    return resize_image(image, (height, width))


def resize_masks(masks: Tensor, size: Size) -> Tensor:
    """Resizes soft masks or logits, bilinear without antialiasing (as all slot papers and STCN do).

    Args:
        masks: (..., N, h, w) float.
        size: (height, width) wanted.

    Returns:
        (..., N, height, width). Sums over N are kept.
    """
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks
    resized = F.interpolate(_with_batch(masks), size=size, mode="bilinear", align_corners=False)
    return resized if masks.ndim == 4 else resized.reshape(*masks.shape[:-2], *size)


def mean_of_cells(masks: Tensor, size: Size) -> Tensor:
    """Means over the cells of a coarser grid.

    Args:
        masks: (B, N, H, W) float.
        size: (h, w); in exported graphs, whose sizes are free, H and W have to be multiples of it.

    Returns:
        (B, N, h, w).
    """
    if torch.compiler.is_exporting():  # ONNX has no pooling to a size that is not known yet
        return masks.unflatten(3, (size[1], -1)).unflatten(2, (size[0], -1)).mean(dim=(3, 5))
    return F.interpolate(masks, size=size, mode="area")


def resize_labels(labels: Tensor, size: Size) -> Tensor:
    """Resizes label maps by the nearest pixel centre, so that no new id appears.

    Args:
        labels: (..., H, W) integer ids.
        size: (height, width) wanted.

    Returns:
        (..., height, width) of the same dtype.
    """
    height, width = labels.shape[-2:]
    if (height, width) == tuple(size):
        return labels
    rows = ((torch.arange(size[0], device=labels.device) + 0.5) * (height / size[0])).long()
    columns = ((torch.arange(size[1], device=labels.device) + 0.5) * (width / size[1])).long()
    rows, columns = rows.clamp(max=height - 1), columns.clamp(max=width - 1)
    if labels.dtype == torch.uint8 and labels.ndim == 2 and labels.device.type == "cpu":
        picked = labels.numpy()[rows.numpy()].take(columns.numpy(), axis=1)  # torch takes thrice as long
        return torch.from_numpy(picked)
    return labels.index_select(-2, rows).index_select(-1, columns)


def shorter_side(size: Size, limit: int) -> Size:
    """The size whose shorter side is at most `limit`, same aspect; never larger than `size`.

    Args:
        size: (height, width).
        limit: pixels.

    Returns:
        (height, width).
    """
    height, width = size
    shorter = min(height, width)
    if shorter <= limit:
        return size
    return round(height * limit / shorter), round(width * limit / shorter)


def padding_to(size: Size, multiple: int) -> Padding:
    """The padding that makes both sides a multiple, half on each side, the odd pixel right and below.

    Args:
        size: (height, width).
        multiple: pixels, such as the stride of an encoder.

    Returns:
        The padding.
    """
    rows, columns = -size[0] % multiple, -size[1] % multiple
    return Padding(columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)


def pad(tensor: Tensor, padding: Padding, *, value: float = 0.0) -> Tensor:
    """Pads the last two axes with a constant.

    Args:
        tensor: (..., H, W).
        padding: pixels per side.
        value: what the new pixels hold.

    Returns:
        (..., H + top + bottom, W + left + right).
    """
    return tensor if not any(padding) else F.pad(tensor, tuple(padding), value=value)


def unpad(tensor: Tensor, padding: Padding) -> Tensor:
    """Takes the padding off again.

    Args:
        tensor: (..., H + top + bottom, W + left + right).
        padding: pixels per side.

    Returns:
        (..., H, W), a view.
    """
    height, width = tensor.shape[-2:]
    return tensor[..., padding.top : height - padding.bottom, padding.left : width - padding.right]


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps at points between their pixels, bilinear; beyond the border a map is 0.

    Args:
        maps: (B, C, H, W) float.
        points: (B, P, 2) as (x, y), 0 at the left or upper edge of the map and 1 at the other.

    Returns:
        (B, C, P). Within half a pixel of an edge the zeros beyond it weigh in.
    """
    grid = (2 * points - 1).unsqueeze(2)  # (B, P, 2) -> (B, P, 1, 2)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(3)
