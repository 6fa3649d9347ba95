"""Memory attention: the features of a frame look at themselves and at what is remembered of an object.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4 and appendix D.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.projected_attention import ProjectedAttention
from vosssl.ops.narrow_attention import narrow_attention
from vosssl.ops.resize import Size
from vosssl.ops.rotary import axial_rotation, rotated
from vosssl.ops.row_blocks import row_blocks

POSITION_SCALE = 0.1  # of the sine positions that are added to the frame's features


class RotaryAttention(ProjectedAttention):
    """Attention of one head whose queries and keys are turned by their places.

    Args:
        dim: width of queries.
        memory_dim: width of keys and values before their projection.
    """

    def __init__(self, dim: int, *, memory_dim: int) -> None:
        super().__init__(dim, 1, memory_dim=memory_dim)

    def turned(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        rotation: Tensor,
        maps: int = 1,
        mask: Tensor | None = None,
    ) -> Tensor:
        """As `forward`; the keys of the first `maps` maps are turned like the queries, others are not.

        Args:
            queries: (B or 1, N, dim).
            keys: (B or 1, M, memory_dim): maps of N places, then keys without a place.
            values: (B or 1, M, memory_dim).
            rotation: (N, dim / 2) of `axial_rotation`.
            maps: how many maps.
            mask: (B, M) bool, False for keys that do not exist; None: all exist.

        Returns:
            (B, N, dim).
        """
        query, key = rotated(self.q_proj(queries), rotation), self.k_proj(keys)
        count = maps * len(rotation)
        turned = rotated(key[:, :count].unflatten(1, (maps, -1)), rotation).flatten(1, 2)
        key = turned if count == key.shape[1] else torch.cat([turned, key[:, count:]], dim=1)
        narrow = values.shape[-1] < query.shape[-1]
        if not narrow or query.is_cuda or torch.is_grad_enabled():  # fused kernels keep no scores
            return self.attend(query, key, self.v_proj(values), mask=mask)
        return self.out_proj(self.v_proj(narrow_attention(query, key, values, mask=mask)))


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to the memory, feed-forward network; a norm comes before each.

    Args:
        dim: C of the frame's features.
        memory_dim: of memories.
        feed_forward_dim: inside the feed-forward network.
        dropout: of what each part adds.
    """

    def __init__(self, dim: int, *, memory_dim: int, feed_forward_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(dim, memory_dim=dim)
        self.cross_attn_image = RotaryAttention(dim, memory_dim=memory_dim)
        self.linear1 = nn.Linear(dim, feed_forward_dim)
        self.linear2 = nn.Linear(feed_forward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def look_around(self, tokens: Tensor, rotation: Tensor) -> Tensor:
        """Self-attention: (B, N, dim) tokens of frames to the same shape."""
        normed = self.norm1(tokens)
        return tokens + self.dropout(self.self_attn.turned(normed, normed, normed, rotation=rotation))

    def look_back(
        self,
        tokens: Tensor,
        memory: Tensor,
        keys: Tensor,
        *,
        rotation: Tensor,
        maps: int,
        mask: Tensor | None,
    ) -> Tensor:
        """The rest: (B or 1, N, dim) tokens and (B, M, memory_dim) memories to (B, N, dim)."""
        seen = self.cross_attn_image.turned(
            self.norm2(tokens), keys, memory, rotation=rotation, maps=maps, mask=mask
        )
        tokens = tokens + self.dropout(seen)
        inner = self.dropout(F.relu(self.linear1(self.norm3(tokens)), inplace=True))
        return tokens + self.dropout(self.linear2(inner))


class MemoryAttention(nn.Module):
    """Layers of attention, then a norm.

    Args:
        dim: C of the frame's features, a multiple of 4.
        memory_dim: of memories.
        depth: number of layers.
        feed_forward_dim: inside their feed-forward networks.
        dropout: in training; published 0.1.
    """

    def __init__(
        self,
        dim: int = 256,
        *,
        memory_dim: int = 64,
        depth: int = 4,
        feed_forward_dim: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(
                dim, memory_dim=memory_dim, feed_forward_dim=feed_forward_dim, dropout=dropout
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        image: Tensor,
        positions: Tensor,
        memory: Tensor,
        memory_positions: Tensor,
        *,
        maps: int,
        mask: Tensor | None = None,
        emphasis: Tensor | None = None,
    ) -> Tensor:
        """Features of a frame that know what is remembered.

        Args:
            image: (B or 1, C, h, w); with 1 all rows look at one frame, and what needs no memory is computed
                once.
            positions: (1, C, h, w) of its places.
            memory: (B, M, memory_dim): so many `maps` of h * w places row by row, then object pointers.
            memory_positions: (B or 1, M, memory_dim), added to keys.
            maps: how many maps there are.
            mask: (B, M) bool, False for memories that do not exist (to batch different numbers); None: all
                exist.
            emphasis: (B, M) that keys are multiplied with; None: 1.

        Returns:
            (B, C, h, w).
        """
        size: Size = (image.shape[-2], image.shape[-1])
        tokens = (image + POSITION_SCALE * positions).flatten(2).transpose(1, 2)  # (B, h * w, C)
        keys = memory + memory_positions
        if emphasis is not None:
            keys = keys * emphasis[..., None].to(keys)
        rotation = axial_rotation(size, tokens.shape[-1], device=tokens.device)
        tokens = self.layers[0].look_around(tokens, rotation)  # type: ignore[operator]
        parts = [
            self._look_back(
                tokens if tokens.shape[0] == 1 else tokens[rows],
                memory[rows],
                keys[rows],
                rotation=rotation,
                maps=maps,
                mask=None if mask is None else mask[rows],
            )
            for rows in row_blocks(memory.shape[0], tokens)
        ]
        return torch.cat(parts).transpose(1, 2).unflatten(2, size)  # (B, h * w, C) -> (B, C, h, w)

    def _look_back(
        self,
        tokens: Tensor,
        memory: Tensor,
        keys: Tensor,
        *,
        rotation: Tensor,
        maps: int,
        mask: Tensor | None,
    ) -> Tensor:
        """All but the first look around: (B or 1, N, C) to (B, N, C)."""
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, MemoryAttentionLayer)
            if index:
                tokens = layer.look_around(tokens, rotation)
            tokens = layer.look_back(tokens, memory, keys, rotation=rotation, maps=maps, mask=mask)
        return self.norm(tokens)
