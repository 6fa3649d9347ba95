"""Putting slots in one order over time, for networks whose slots change places between frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.assignment import optimal_assignment


class Continuation(NamedTuple):
    """How the slots of the first frame go on in a later one.

    Attributes:
        order: (K,) int64 on the CPU: entry k is the slot of this frame that continues slot k of the first.
        belief: (K, K) float64 on the CPU: how likely slot k of the first frame is the slot that was chosen to
            continue slot j; rows sum to 1.
    """

    order: Tensor
    belief: Tensor


def mask_overlap(before: Tensor, after: Tensor) -> Tensor:
    """Soft IoU of every slot before with every slot after.

    Args:
        before: (K, h, w), non-negative.
        after: (K, h, w).

    Returns:
        (K, K): rows are slots before, columns slots after.
    """
    rows, columns = before.flatten(1)[:, None], after.flatten(1)[None]  # (K, h, w) -> (K, 1, P), (1, K, P)
    return torch.minimum(rows, columns).sum(-1) / torch.maximum(rows, columns).sum(-1).clamp_min(1e-8)


def slot_similarity(before: Tensor, after: Tensor) -> Tensor:
    """Cosine similarity of every slot before with every slot after: (K, D), (K, D) -> (K, K)."""
    return F.normalize(before, dim=-1) @ F.normalize(after, dim=-1).transpose(-2, -1)


def continue_order(
    likeness: Tensor, belief: Tensor | None = None, *, temperature: float = 0.1
) -> Continuation:
    """One more link of a Markov chain over slots, matched one to one.

    Likeness becomes transition probabilities, which carry on the belief of the frame before. Half of the new
    belief is then given to what was decided: a bare product of transitions forgets the first frame within
    some fifty frames, since it tends to the chain's stationary distribution.

    Args:
        likeness: (K, K): rows are the slots of the frame before, in the first frame's order, columns those
            of this frame as they come.
        belief: of the frame before; None when that was the first.
        temperature: of the softmax over the slots of this frame.

    Returns:
        This frame's order, and its belief in that order.

    Source: after DINOSAVi (github.com/Interpause/dinosavi), `track_mode`; the halving is ours.
    """
    certain = torch.eye(len(likeness), dtype=torch.float64)
    link = (likeness.cpu().double() / temperature).softmax(dim=-1)
    reached = link if belief is None else belief @ link
    order = optimal_assignment(reached)[1]
    return Continuation(order, (reached[:, order] + certain) / 2)
