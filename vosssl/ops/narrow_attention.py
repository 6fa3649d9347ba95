"""Attention whose values are narrower than its keys, on the CPU: gather first, project afterwards.

PyTorch's fused kernel wants values as wide as keys. Where these are a projection of something narrower, the
average of the narrow vectors can be projected instead of averaging projected ones: fewer products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1024  # queries and keys whose scores are kept at once: 4 MB stay in the processor's cache


def narrow_attention(query: Tensor, key: Tensor, values: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Averages of values, weighted by the softmax of products divided by sqrt(D).

    Args:
        query: (B or 1, N, D).
        key: (B or 1, M, D).
        values: (B or 1, M, E) of any width.
        mask: (B or 1, M) bool, False for keys that nobody may see; None: all are seen.

    Returns:
        (B, N, E).

    Source: blocks of keys by Dao et al., "FlashAttention", NeurIPS 2022, algorithm 1.
    """
    query = query * query.shape[-1] ** -0.5
    # shape[0] of an exported tensor is free; len() would be a number
    count = max(part.shape[0] for part in (query, key, values, key if mask is None else mask))
    query, key, values = (part.expand(count, -1, -1) for part in (query, key, values))
    seen = None if mask is None else mask.expand(count, -1)
    if torch.compiler.is_exporting():  # loops over rows and blocks would fix their number in the graph
        query, key, values = (part[:, None] for part in (query, key, values))  # ONNX asks for heads
        shown = None if seen is None else seen[:, None, None]
        return F.scaled_dot_product_attention(query, key, values, attn_mask=shown, scale=1.0)[:, 0]
    gathered = query.new_empty(*query.shape[:2], values.shape[-1])
    for index in range(count):
        chosen = slice(None) if seen is None else seen[index]
        keys, own = key[index, chosen], values[index, chosen]  # (m, D), (m, E)
        for start in range(0, query.shape[1], BLOCK):
            rows = slice(start, start + BLOCK)
            gathered[index, rows] = _average(query[index, rows], keys, own)
    return gathered


def _average(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(n, D) scaled queries, (m, D), (m, E) to (n, E): sums over keys, scaled anew for each block."""
    highest = queries.new_full((len(queries), 1), -torch.inf)
    total, gathered = torch.zeros_like(highest), queries.new_zeros(len(queries), values.shape[-1])
    for some, own in zip(keys.split(BLOCK), values.split(BLOCK), strict=True):
        scores = queries @ some.T  # (n, BLOCK)
        higher = torch.maximum(highest, scores.amax(dim=1, keepdim=True))
        weights = scores.sub_(higher).exp_()
        shrink = (highest - higher).exp_()
        total = total * shrink + weights.sum(dim=1, keepdim=True)
        gathered = torch.addmm(gathered * shrink, weights, own)
        highest = higher
    return gathered / total
