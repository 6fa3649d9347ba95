"""Correspondence between the patches of two pictures whose matches are known, from flow or from geometry."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def match_targets(matches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where each patch went, spread bilinearly over the four patches around that place.

    Args:
        matches: (N, P, 2) column and row in patches of the other picture, 0 at the first one's centre; NaN
            where unknown.
        grid: (h, w) of the other picture.

    Returns:
        (N, P, h*w) that sum to 1 over h*w; zero where unknown.
    """
    height, width = grid
    known = ~matches.isnan().any(dim=-1)  # (N, P)
    column, row = matches.nan_to_num(0.0).unbind(dim=-1)
    targets = matches.new_zeros(*known.shape, height * width)
    left, top = column.floor(), row.floor()
    for x, along in ((left, 1 - (column - left)), (left + 1, column - left)):
        for y, down in ((top, 1 - (row - top)), (top + 1, row - top)):
            patch = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
            targets.scatter_add_(-1, patch[..., None], (along * down * known)[..., None])
    return targets


def correspondence(first: Tensor, second: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Each patch shall pick its match among all patches of all second pictures of the batch.

    Args:
        first: (N, P, C) features.
        second: (N, Q, C) features.
        targets: (N, P, Q) from `match_targets`.
        temperature: divides cosine similarities; label propagation with the same one reads off what was
            trained.

    Returns:
        Scalar, the mean cross-entropy over patches with a known match; 0 without any.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation
        4, with soft positives.
    """
    images = torch.arange(len(first), device=first.device)
    queries = F.normalize(first.float(), dim=-1).flatten(0, 1)  # (N*P, C)
    keys = F.normalize(second.float(), dim=-1).flatten(0, 1)  # (N*Q, C)
    logits = (queries @ keys.T / temperature).unflatten(0, (len(first), -1))  # (N, P, N*Q)
    total = logits.logsumexp(dim=-1)  # (N, P)
    own = logits.unflatten(-1, (len(second), -1))[images, :, images]  # (N, P, N, Q) -> (N, P, Q)
    known = targets.sum(dim=-1)  # (N, P), 1 or 0
    entropies = total * known - (own * targets).sum(dim=-1)
    return entropies.sum() / known.sum().clamp(min=1)
