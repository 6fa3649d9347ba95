"""Putting slots in one order over time, for networks whose slots change places between frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.assignment import optimal_assignment


def overlap_over_time(masks: Tensor) -> Tensor:
    """Soft IoU between the slots of consecutive frames.

    Args:
        masks: (T, K, h, w), non-negative.

    Returns:
        (T - 1, K, K): rows are slots of frame t, columns slots of frame t + 1.
    """
    flat = masks.flatten(2)  # (T, K, h, w) -> (T, K, P)
    before, after = flat[:-1, :, None], flat[1:, None]
    return torch.minimum(before, after).sum(-1) / torch.maximum(before, after).sum(-1).clamp_min(1e-8)


def similarity_over_time(slots: Tensor) -> Tensor:
    """Cosine similarity between the slots of consecutive frames: (T, K, D) -> (T - 1, K, K)."""
    unit = F.normalize(slots, dim=-1)
    return unit[:-1] @ unit[1:].transpose(-2, -1)


def order_over_time(similarity: Tensor, *, temperature: float = 0.1) -> Tensor:
    """The slot of each frame that continues each slot of the first frame.

    Similarities become transition probabilities, are chained over time as a Markov chain, and matched one
    to one.

    Args:
        similarity: (T - 1, K, K) between consecutive frames.
        temperature: of the softmax over the slots of the later frame.

    Returns:
        (T, K) int64 on the CPU: entry (t, k) is the slot of frame t that continues slot k of frame 0.
    """
    count = similarity.shape[-1]
    order = torch.arange(count).repeat(len(similarity) + 1, 1)
    chain = torch.eye(count, dtype=torch.float64)
    for time, step in enumerate((similarity.cpu().double() / temperature).softmax(dim=-1), start=1):
        chain = chain @ step
        order[time] = optimal_assignment(chain)[1]
    return order


def reorder(tensor: Tensor, order: Tensor) -> Tensor:
    """Applies `order_over_time` to slots or masks: (T, K, ...) -> (T, K, ...)."""
    frames = torch.arange(len(tensor), device=tensor.device)[:, None]
    return tensor[frames, order.to(tensor.device)]
