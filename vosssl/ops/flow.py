"""Optical flow as a map between frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetches each pixel from where the flow points: the next frame brought back onto this one.

    Args:
        image: (N, C, H, W) float, the frame that the flow points into.
        flow: (N, 2, H, W) pixels (x, y).

    Returns:
        (N, C, H, W), bilinear; pixels that come from outside take the nearest border.
    """
    height, width = image.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], dim=-1)
    return F.grid_sample(image, grid.to(image), align_corners=True, padding_mode="border")


def inside(flow: Tensor) -> Tensor:
    """Whether each pixel of (N, 2, H, W) still is in the picture after moving: (N, H, W) bool."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def consistent(forward: Tensor, backward: Tensor, *, tolerance: float = 1.0) -> Tensor:
    """Whether going forward and back returns to the same pixel; false where a pixel is hidden next.

    Args:
        forward: (N, 2, H, W) pixels, from this frame to the next.
        backward: (N, 2, H, W) pixels, from the next frame to this.
        tolerance: pixels.

    Returns:
        (N, H, W) bool.
    """
    round_trip = forward + warp(backward, forward)
    return (round_trip.norm(dim=1) < tolerance) & inside(forward)


def chained(flow: Tensor) -> Tensor:
    """Flow over several frames, following each pixel from frame to frame.

    Args:
        flow: (n, 2, H, W) pixels, from each frame to the next.

    Returns:
        (2, H, W) pixels from the first frame to the one after the last.
    """
    total = flow[0]
    for following in flow[1:]:
        total = total + warp(following[None], total[None])[0]
    return total


def turned_back(flow: Tensor) -> Tensor:
    """The flow from where pixels land to where they came from.

    Args:
        flow: (2, H, W) pixels, NaN where unknown.

    Returns:
        (2, H, W) pixels, NaN where nothing landed; where several did, one of them.
    """
    height, width = flow.shape[-2:]
    column = (torch.arange(width, device=flow.device) + flow[0]).round()
    row = (torch.arange(height, device=flow.device)[:, None] + flow[1]).round()
    landed = (column >= 0) & (column < width) & (row >= 0) & (row < height)  # false for NaN
    turned = torch.full_like(flow, torch.nan)
    turned[:, row[landed].long(), column[landed].long()] = -flow[:, landed]
    return turned
