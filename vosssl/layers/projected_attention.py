"""Multi-head attention with its own projection of queries, keys and values, each from tokens of its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ProjectedAttention(nn.Module):
    """Scaled dot-product attention between two sets of tokens, as in Segment Anything.

    Args:
        dim: width of queries and of what comes back.
        heads: number of heads.
        memory_dim: width of keys and values before their projection; `dim` when left out.
        inner_dim: width behind the projections; `dim` when left out.

    Raises:
        ValueError: the inner width is not a multiple of the heads.
    """

    def __init__(
        self, dim: int, heads: int, *, memory_dim: int | None = None, inner_dim: int | None = None
    ) -> None:
        super().__init__()
        memory_dim = dim if memory_dim is None else memory_dim
        inner_dim = dim if inner_dim is None else inner_dim
        if inner_dim % heads:
            raise ValueError(
                f"attention width {inner_dim} is not a multiple of {heads} heads; change one of them"
            )
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(memory_dim, inner_dim)
        self.v_proj = nn.Linear(memory_dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Attends to `keys` and gathers `values`.

        A batch of 1 stands for any number of equal rows: it is projected once.

        Args:
            queries: (B or 1, N, dim).
            keys: (B or 1, M, memory_dim).
            values: (B or 1, M, memory_dim).
            mask: (B or 1, M) bool, False for keys that nobody may see; None: all are seen.

        Returns:
            (B, N, dim).
        """
        return self.attend(self.q_proj(queries), self.k_proj(keys), self.v_proj(values), mask=mask)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The part behind the projections.

        Args:
            query: (B or 1, N, inner_dim).
            key: (B or 1, M, inner_dim).
            value: (B or 1, M, inner_dim).
            mask: as in `forward`.

        Returns:
            (B, N, dim).
        """
        # shape[0] of an exported tensor is free; len() would be a number
        rows = max(tokens.shape[0] for tokens in (query, key, value, query if mask is None else mask))
        query, key, value = (
            tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(rows, -1, -1, -1)
            for tokens in (query, key, value)
        )  # (B or 1, N, inner_dim) -> (B, heads, N, d)
        seen = None if mask is None else mask[:, None, None]  # (B or 1, M) -> (B or 1, 1, 1, M)
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out_proj(gathered.transpose(1, 2).flatten(2))  # (B, heads, N, d) -> (B, N, dim)
