"""The object transformer: a few queries per object and its pixels read each other, told apart by masks.

Half of the queries may look at an object's foreground only, the other half at the rest of the frame.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.methods.cutie.layers import ChannelAttentionBlock, SinePositions
from vosssl.ops.masks import aggregated_log_odds


class MultiHeadAttention(nn.Module):
    """Attention with the parameter names of `torch.nn.MultiheadAttention`.

    Args:
        width: channels.
        heads: that share them.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        *,
        few: Literal["queries", "keys"] | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            query: (N, L, C).
            key: (N, M, C).
            value: (N, M, C).
            allowed: (N, 1, L, M) bool, where a query may look; None: everywhere.
            few: which side is much shorter than the other; where its length times the heads is below C, the
                same numbers take fewer products.

        Returns:
            (N, L, C).
        """
        width = query.shape[-1]
        if few == "queries" and self.heads * query.shape[1] < width:
            return self._of_few(query, key, value, allowed)
        if few == "keys" and allowed is None and self.heads * key.shape[1] < width:
            return self._of_many(query, key, value)
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        queries, keys, values = (
            F.linear(tokens, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )  # (N, L, C) -> (N, heads, L, C / heads)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _of_few(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """Attends where queries are few: their heads are projected, the many keys and values are not.

        (W_q q) . (W_k k) is (W_k' W_q q) . k, and a mean of projected values a projected mean; a bias of keys
        changes no softmax.

        Args: as `forward`.
        """
        heads, width = self.heads, query.shape[-1]
        of_query, of_key, of_value = self.in_proj_weight.view(3, heads, -1, width)  # (heads, d, C) each
        offset_query, _, offset_value = self.in_proj_bias.view(3, heads, 1, -1)
        asked = query[:, None] @ of_query.transpose(1, 2) + offset_query  # (N, 1, L, C) -> (N, heads, L, d)
        asked = (asked * asked.shape[-1] ** -0.5) @ of_key  # -> (N, heads, L, C)
        scores = (asked.flatten(1, 2) @ key.transpose(1, 2)).unflatten(1, (heads, -1))  # -> (N, heads, L, M)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        weights = scores.softmax(dim=-1)
        means = (weights.flatten(1, 2) @ value).unflatten(1, (heads, -1))  # -> (N, heads, L, C)
        mixed = means @ of_value.transpose(1, 2) + offset_value  # -> (N, heads, L, d)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _of_many(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends where keys are few: these are projected as the many queries, and as the result, would be.

        Args: as `forward`.
        """
        heads, width = self.heads, query.shape[-1]
        of_query, of_key, of_value = self.in_proj_weight.view(3, heads, -1, width)  # (heads, d, C) each
        offset_query, offset_key, offset_value = self.in_proj_bias.view(3, heads, 1, -1)
        keys = key[:, None] @ of_key.transpose(1, 2) + offset_key  # (N, 1, M, C) -> (N, heads, M, d)
        keys = keys * keys.shape[-1] ** -0.5
        shown = (keys @ of_query).flatten(1, 2)  # -> (N, heads * M, C)
        lift = (keys @ offset_query.transpose(1, 2)).flatten(1)  # (N, heads, M, 1) -> (N, heads * M)
        values = value[:, None] @ of_value.transpose(1, 2) + offset_value  # (N, heads, M, d)
        given = values @ self.out_proj.weight.view(width, heads, -1).permute(1, 2, 0)  # -> (N, heads, M, C)
        scores = torch.baddbmm(lift[:, None], query, shown.transpose(1, 2))  # (N, L, heads * M)
        weights = scores.unflatten(-1, (heads, -1)).softmax(dim=-1).flatten(2)
        return torch.baddbmm(self.out_proj.bias, weights, given.flatten(1, 2))  # -> (N, L, C)


class CrossAttention(nn.Module):
    """Reads from other tokens; the residual is what the norm gave, not what came in.

    Args:
        width: channels.
        heads: of the attention.
        norm: whether there is one before it.
    """

    def __init__(self, width: int, heads: int, *, norm: bool) -> None:
        super().__init__()
        self.cross_attn = MultiHeadAttention(width, heads)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()


class SelfAttention(nn.Module):
    """Reads from each other; the residual is what the norm gave.

    Args:
        width: channels.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(N, L, C) and their positions to (N, L, C)."""
        tokens = self.norm(tokens)
        placed = tokens + positions
        return tokens + self.self_attn(placed, placed, tokens)


class FeedForward(nn.Module):
    """Two layers behind a norm, added to the input.

    Args:
        width: channels.
        inner: channels between the layers.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, C) to (N, L, C)."""
        return tokens + self.linear2(self.linear1(self.norm(tokens)).relu_())


class _PixelFeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = ChannelAttentionBlock(width)


class ObjectTransformerBlock(nn.Module):
    """Queries read pixels, then each other; then pixels read the queries.

    Args:
        width: channels.
        heads: of the attentions.
        inner: width between the layers of the queries' feed-forward network.
    """

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.read_from_pixel = CrossAttention(width, heads, norm=True)
        self.self_attn = SelfAttention(width, heads)
        self.ffn = FeedForward(width, inner)
        self.read_from_query = CrossAttention(width, heads, norm=False)
        self.pixel_ffn = _PixelFeedForward(width)

    def forward(
        self,
        queries: Tensor,
        pixels: Tensor,
        query_positions: Tensor,
        pixel_positions: Tensor,
        allowed: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Exchanges what objects and pixels know. N objects of all videos.

        Args:
            queries: (N, Q, C).
            pixels: (N, C, h, w).
            query_positions: (N, Q, C).
            pixel_positions: (N, h*w, C).
            allowed: (N, 1, Q, h*w) bool, where queries may look.

        Returns:
            Queries and pixels, shaped as they came.
        """
        tokens = pixels.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
        placed = tokens + pixel_positions
        queries = self.read_from_pixel.norm(queries)
        queries = queries + self.read_from_pixel.cross_attn(
            queries + query_positions, placed, tokens, allowed, few="queries"
        )
        queries = self.ffn(self.self_attn(queries, query_positions))
        tokens = tokens + self.read_from_query.cross_attn(
            placed, queries + query_positions, queries, few="keys"
        )
        pixels = tokens.transpose(1, 2).unflatten(-1, pixels.shape[-2:])  # (N, h*w, C) -> (N, C, h, w)
        return queries, self.pixel_ffn.conv(pixels)


class ObjectTransformer(nn.Module):
    """Refines what was read per pixel with what is known per object.

    Args:
        width: C, channels.
        heads: of the attentions.
        blocks: how many.
        queries: Q per object, an even number: the first half looks at the foreground.
        inner: width between the layers of the queries' feed-forward networks.

    Source: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024, section 3.2.
    """

    def __init__(
        self, width: int, *, heads: int = 8, blocks: int = 3, queries: int = 16, inner: int = 2048
    ) -> None:
        super().__init__()
        if queries % 2 or blocks < 1:
            raise ValueError(
                f"{queries} queries and {blocks} blocks, expected an even number and at least one"
            )
        self.queries = queries
        self.query_init = nn.Embedding(queries, width)
        self.query_emb = nn.Embedding(queries, width)
        self.summary_to_query_init = nn.Linear(width, width)
        self.summary_to_query_emb = nn.Linear(width, width)
        self.pixel_init_proj = nn.Conv2d(width, width, 1)
        self.pixel_emb_proj = nn.Conv2d(width, width, 1)
        self.spatial_pe = SinePositions(width)
        self.blocks = nn.ModuleList(ObjectTransformerBlock(width, heads, inner) for _ in range(blocks))
        self.mask_pred = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(width, 1, 1)) for _ in range(blocks + 1)
        )

    def forward(
        self, pixels: Tensor, summaries: Tensor, selector: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Refines the pixels of objects that compete for the queries' attention.

        Args:
            pixels: (B, N, C, h, w).
            summaries: (B, N, Q, C + 1).
            selector: (B, N), 1 where there is an object; None: everywhere.

        Returns:
            (B, N, C, h, w), and the mask logits (B, N, h, w) that guided each block. `level_logits` gives
            those behind the last block, which guide nothing.
        """
        videos, height, width = len(pixels), *pixels.shape[-2:]
        queries, query_positions = self.initial_queries(summaries.flatten(0, 1))
        pixels = pixels.flatten(0, 1)
        embedded = self.pixel_emb_proj(pixels).flatten(2).transpose(1, 2)  # -> (B*N, h*w, C)
        pixel_positions = embedded + self.spatial_pe(height, width).to(embedded.dtype)
        pixels = self.pixel_init_proj(pixels)
        levels = []
        for level, block in enumerate(self.blocks):
            levels.append(self.level_logits(pixels.unflatten(0, (videos, -1)), level))
            allowed = attention_masks(levels[-1], self.queries, selector)
            queries, pixels = block(queries, pixels, query_positions, pixel_positions, allowed)
        return pixels.unflatten(0, (videos, -1)), levels

    def initial_queries(self, summaries: Tensor) -> tuple[Tensor, Tensor]:
        """Summaries (N, Q, C + 1) to queries and their positions, both (N, Q, C)."""
        means = summaries[..., :-1] / (summaries[..., -1:] + 1e-4)
        queries = self.query_init.weight + self.summary_to_query_init(means)
        return queries, self.query_emb.weight + self.summary_to_query_emb(means)

    def level_logits(self, pixels: Tensor, level: int) -> Tensor:
        """Mask logits (B, N, h, w) of pixels (B, N, C, h, w) before block `level`, or behind the last."""
        return self.mask_pred[level](pixels.flatten(0, 1)).squeeze(1).unflatten(0, pixels.shape[:2])


@torch.no_grad()
def attention_masks(logits: Tensor, queries: int, selector: Tensor | None = None) -> Tensor:
    """Where queries may look: the first half where their object is the strongest, the others elsewhere.

    Args:
        logits: (B, N, h, w) of objects that compete; ties count as foreground.
        queries: Q.
        selector: (B, N), 1 where there is an object; None: everywhere.

    Returns:
        (B*N, 1, Q, h*w) bool. A query with nothing to look at looks everywhere.
    """
    probabilities = logits.sigmoid()
    if selector is not None:
        probabilities = probabilities * selector[..., None, None]
    rows = aggregated_log_odds(probabilities)  # (B, N, h, w) -> (B, N + 1, h, w)
    foreground = (rows[:, 1:] >= rows.amax(dim=1, keepdim=True)).flatten(0, 1).flatten(1)  # -> (B*N, h*w)
    sides = torch.stack([foreground, ~foreground], dim=1)  # -> (B*N, 2, h*w)
    sides = sides | ~sides.any(dim=-1, keepdim=True)
    return sides.repeat_interleave(queries // 2, dim=1).unsqueeze(1)  # -> (B*N, 1, Q, h*w)
