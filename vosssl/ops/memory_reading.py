"""Reading a memory of places with a query: how alike two places are, and what the memory says there.

Source: Cheng et al., "Rethinking Space-Time Networks with Improved Memory Coverage" (STCN), NeurIPS 2021,
section 3.2 (negative squared L2); Cheng and Schwing, "XMem", ECCV 2022, section 3.3 (shrinkage, selection).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.top_k import largest

SCORES = 1 << 20  # elements of the scores that exist at one time: 4 MB


class TopMatches(NamedTuple):
    """What Q queries take from a memory.

    Attributes:
        weights: (Q, k), summing to 1 over k.
        places: (Q, k) int64 places in the memory.
    """

    weights: Tensor
    places: Tensor


def memory_features(key: Tensor, shrinkage: Tensor | None, *, selects: bool) -> Tensor:
    """What is kept of remembered places: its product with `query_features` is their similarity.

    Args:
        key: (..., M, C).
        shrinkage: (..., M, 1), or None for 1.
        selects: whether queries select channels.

    Returns:
        (..., M, 2C + 1) with selection, (..., M, C + 1) without, float32.
    """
    key = key.float()
    squares = key.square()
    parts = (
        [2 * key, -squares, -torch.ones_like(key[..., :1])] if selects else [2 * key, -squares.sum(-1, True)]
    )
    features = torch.cat(parts, dim=-1) / math.sqrt(key.shape[-1])
    return features if shrinkage is None else features * shrinkage.float()


def query_features(key: Tensor, selection: Tensor | None) -> Tensor:
    """The queries' side of a similarity.

    Args:
        key: (..., Q, C).
        selection: (..., Q, C) weights of the channels, or None for 1 (the query's own square is left out
            then: it is the same for all places, and a softmax takes no notice of it).

    Returns:
        (..., Q, 2C + 1) with selection, (..., Q, C + 1) without, float32.
    """
    key = key.float()
    if selection is None:
        return F.pad(key, (0, 1), value=1.0)
    selection = selection.float()
    selected = key * selection
    return torch.cat([selected, selection, (selected * key).sum(-1, keepdim=True)], dim=-1)


def full_readout(queries: Tensor, memory: Tensor, values: Tensor) -> Tensor:
    """Means of the memory's values, weighted by a softmax over all of it; differentiable, for training.

    Args:
        queries: (B, Q, F) of `query_features`.
        memory: (B, M, F) of `memory_features`.
        values: (B, M, V).

    Returns:
        (B, Q, V).
    """
    affinity = (queries @ memory.transpose(1, 2)).softmax(dim=2)  # (B, Q, F) @ (B, F, M) -> (B, Q, M)
    return affinity.to(values.dtype) @ values


def top_readout(matches: TopMatches, values: Tensor) -> Tensor:
    """Weighted means of the values at the matched places; touches nothing else.

    Args:
        matches: of Q queries.
        values: (M, V).

    Returns:
        (Q, V).
    """
    weights = matches.weights.to(values.dtype)
    return F.embedding_bag(matches.places, values, mode="sum", per_sample_weights=weights)


def top_softmax(scores: Tensor, top_k: int | None) -> TopMatches:
    """The largest scores of each row and their softmax.

    Args:
        scores: (Q, M).
        top_k: how many; all of them when there are fewer, or with None.
    """
    values, places = largest(scores, scores.shape[1] if top_k is None else top_k)
    return TopMatches(values.softmax(dim=1), places)


def query_parts(queries: int, places: int, device: torch.device) -> list[slice]:
    """Cuts queries into parts whose scores against all places fit a core's cache, or a bit of a GPU."""
    room = SCORES if device.type == "cpu" else 64 * SCORES
    size = max(1, room // max(1, places))
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]
