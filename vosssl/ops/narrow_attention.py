"""Attention whose values are narrower than its keys, on the CPU: gather first, project afterwards.

PyTorch's fused kernel wants values as wide as keys. Where these are a projection of something narrower, the
average of the narrow vectors can be projected instead of averaging projected ones: fewer products.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES = 2**20  # kept at once: 4 MB, so that they stay in the processor's cache


def narrow_attention(query: Tensor, key: Tensor, values: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Averages of values, weighted by the softmax of products divided by sqrt(D).

    Args:
        query: (B or 1, N, D).
        key: (B or 1, M, D).
        values: (B or 1, M, E) of any width.
        mask: (B or 1, M) bool, False for keys that nobody may see; None: all are seen.

    Returns:
        (B, N, E).
    """
    step = max(1, SCORES // key.shape[1])
    query, keys = query * query.shape[-1] ** -0.5, key.transpose(1, 2)
    count = max(len(part) for part in (query, key, values, key if mask is None else mask))
    query, keys, values = (part.expand(count, -1, -1) for part in (query, keys, values))
    seen = None if mask is None else mask.expand(count, -1)
    rows = []
    for index in range(count):
        parts = []
        for queries in query[index].split(step):
            scores = queries @ keys[index]  # (n, M)
            if seen is not None:
                scores.masked_fill_(~seen[index], -torch.inf)
            parts.append(scores.softmax(dim=-1) @ values[index])
        rows.append(torch.cat(parts))
    return torch.stack(rows)
