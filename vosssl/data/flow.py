"""Optical flow estimated from frames alone, for clips that come without it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.flow import consistent, warp
from vosssl.ops.images import as_float

TEXTURE = 0.08  # of [0, 1], change of grey to the right and down: flow of smoother places is guessed
PHOTOMETRIC = 0.06  # of [0, 1], mean over colours: more than this between matched pixels is no match


def estimate_flow(frames: Tensor) -> Tensor:
    """Forward flow of clips by dense inverse search (DIS), on the CPU.

    Args:
        frames: (T, 3, H, W) or (B, T, 3, H, W) RGB, uint8 or in [0, 1].

    Returns:
        (…, T, 2, H, W) float32 pixels (x, y) from each frame to the next; the last frame of a clip gets its
        backward flow with the sign turned, zero when it is alone.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (OpenCV's
        implementation, medium preset).
    """
    if frames.ndim == 5:
        return torch.stack([estimate_flow(clip) for clip in frames])
    pictures = frames if frames.dtype == torch.uint8 else (frames * 255).round().to(torch.uint8)
    grey = [
        cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        for picture in pictures.cpu().permute(0, 2, 3, 1).numpy()  # (T, 3, H, W) -> (T, H, W, 3)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # small frames: go down to full resolution
    search.setPatchSize(8)
    flow = [search.calc(first, second, None) for first, second in pairwise(grey)]  # type: ignore[call-overload]
    if len(grey) > 1:
        flow.append(-search.calc(grey[-1], grey[-2], None))  # type: ignore[call-overload]
    else:
        flow.append(np.zeros((*grey[0].shape, 2), np.float32))
    return torch.from_numpy(np.stack(flow)).permute(0, 3, 1, 2).contiguous().to(frames.device)


def estimate_reliable_flow(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Estimated flow and where to trust it: at texture, if going there and back ends at the start.

    Args:
        frames: (B, T, 3, H, W) RGB, uint8 or in [0, 1].

    Returns:
        Flow (B, T, 2, H, W) as `estimate_flow` gives it, and (B, T, H, W) bool.
    """
    flow = estimate_flow(frames)
    reliable = torch.zeros_like(flow[:, :, 0], dtype=torch.bool)
    if frames.shape[1] > 1:
        backward = estimate_flow(frames.flip(1)).flip(1)[:, 1:].flatten(0, 1)  # from frame t + 1 to t
        forward = flow[:, :-1].flatten(0, 1)
        pictures = as_float(frames)
        before, after = pictures[:, :-1].flatten(0, 1), pictures[:, 1:].flatten(0, 1)
        reliable[:, :-1] = _matched(before, after, forward, backward).unflatten(0, (len(frames), -1))
        returning = _matched(after, before, backward, forward).unflatten(0, (len(frames), -1))
        reliable[:, -1] = returning[:, -1]
    return flow, reliable


def _matched(before: Tensor, after: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """(N, H, W) bool: textured, the way there and back ends where it began, and meets the same colour."""
    alike = (warp(after, forward) - before).abs().mean(1) < PHOTOMETRIC
    grey = F.pad(before.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")  # (N, 1, H + 1, W + 1)
    here = grey[..., :-1, :-1]
    change = (grey[..., :-1, 1:] - here).abs() + (grey[..., 1:, :-1] - here).abs()
    textured = F.max_pool2d(change, 3, stride=1, padding=1)[:, 0] > TEXTURE
    return consistent(forward, backward) & alike & textured
