"""Transformer blocks of slot models: predictors among slots and allocators from patches to slots."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose logits are *multiplied* by sqrt(head width), as in VideoSAUR's code.

    Published weights depend on it: the official code divides the queries by head_dim^-0.5.

    Args:
        dim: width of queries and output.
        heads: number of heads.
        memory_dim: width of keys and values; `dim` when left out. Equal widths share one `qkv` matrix.
        qkv_dim: inner width; `dim` when left out.

    Raises:
        ValueError: inner width not a multiple of the heads.
    """

    def __init__(
        self, dim: int, heads: int, *, memory_dim: int | None = None, qkv_dim: int | None = None
    ) -> None:
        super().__init__()
        memory_dim = dim if memory_dim is None else memory_dim
        inner = dim if qkv_dim is None else qkv_dim
        if inner % heads:
            raise ValueError(
                f"attention width {inner} is not a multiple of {heads} heads; change one of them"
            )
        self.heads = heads
        self.inner = inner
        self.shared = memory_dim == dim
        if self.shared:
            self.qkv = nn.Linear(dim, 3 * inner)
            _xavier(self.qkv, parts=3)
        else:
            self.q = nn.Linear(dim, inner)
            self.kv = nn.Linear(memory_dim, 2 * inner)
            _xavier(self.q)
            _xavier(self.kv, parts=2)
        self.out_proj = nn.Linear(inner, dim)
        _xavier(self.out_proj)

    def _project(self, queries: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if memory is None:
            query, key, value = self.qkv(queries).chunk(3, dim=-1)
            return query, key, value
        if self.shared:
            weight_q, weight_kv = self.qkv.weight.split((self.inner, 2 * self.inner))
            bias_q, bias_kv = self.qkv.bias.split((self.inner, 2 * self.inner))
            query, key_value = F.linear(queries, weight_q, bias_q), F.linear(memory, weight_kv, bias_kv)
        else:
            query, key_value = self.q(queries), self.kv(memory)
        key, value = key_value.chunk(2, dim=-1)
        return query, key, value

    def forward(self, queries: Tensor, memory: Tensor | None = None) -> Tensor:
        """Attends to the queries themselves, or to `memory` instead.

        Args:
            queries: (B, N, dim), or (1, N, dim) when every row of a batch asks the same.
            memory: (B, M, memory_dim) or None.

        Returns:
            (B, N, dim).
        """
        query, key, value = self._project(queries, memory)
        split = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        query, key, value = split  # each (B, heads, N or M, d)
        if query.shape[0] != key.shape[0]:
            query = query.expand(key.shape[0], -1, -1, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=math.sqrt(self.inner // self.heads))
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, heads, N, d) -> (B, N, dim)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return inputs * self.gamma


class TransformerBlock(nn.Module):
    """Pre-norm block: attention (to itself or to a memory), then two linear layers, both residual."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden_dim: int | None = None,
        qkv_dim: int | None = None,
        memory_dim: int | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.activation = F.relu if activation == "relu" else F.gelu
        self.self_attn = Attention(dim, heads, memory_dim=memory_dim, qkv_dim=qkv_dim)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        scaled = residual_scale is not None
        self.scale1 = LayerScale(dim, residual_scale or 0.0) if scaled else nn.Identity()
        self.scale2 = LayerScale(dim, residual_scale or 0.0) if scaled else nn.Identity()

    def forward(self, tokens: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B or 1, N, dim) and memory (B, M, memory_dim) or None -> (B, N, dim)."""
        tokens = tokens + self.scale1(self.self_attn(self.norm1(tokens), memory))
        return tokens + self.scale2(self.linear2(self.activation(self.linear1(self.norm2(tokens)))))


class TransformerEncoder(nn.Module):
    """A stack of `TransformerBlock`s: VideoSAUR's predictor and, given a memory, the mixer's allocator.

    Args:
        dim: width of the tokens.
        blocks: number of blocks.
        heads: heads of each attention.
        hidden_dim: width between the two linear layers; 4 dim when left out.
        qkv_dim: inner width of the attention; `dim` when left out.
        memory_dim: width of a memory to attend to instead of the tokens themselves.
        activation: between the two linear layers.
        residual_scale: initial value of a learned scale on both residuals; none when left out.
    """

    def __init__(
        self,
        dim: int,
        blocks: int,
        *,
        heads: int = 4,
        hidden_dim: int | None = None,
        qkv_dim: int | None = None,
        memory_dim: int | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                heads,
                hidden_dim=hidden_dim,
                qkv_dim=qkv_dim,
                memory_dim=memory_dim,
                activation=activation,
                residual_scale=residual_scale,
            )
            for _ in range(blocks)
        )

    def forward(self, tokens: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B or 1, N, dim) and memory (B, M, memory_dim) or None -> (B, N, dim)."""
        for block in self.blocks:
            tokens = block(tokens, memory)
        return tokens


class PostNormPredictor(nn.Module):
    """SAVi's slot predictor: one block with the norms after the residuals and ordinary scaled attention.

    Args:
        dim: slot width.
        heads: attention heads.
        qkv_dim: inner width of the attention.
        hidden_dim: width between the two linear layers.

    Source: Kipf et al., "Conditional Object-Centric Learning from Video" (SAVi), ICLR 2022, section 2.
    """

    def __init__(self, dim: int, *, heads: int = 4, qkv_dim: int = 128, hidden_dim: int = 256) -> None:
        super().__init__()
        if qkv_dim % heads:
            raise ValueError(f"qkv_dim {qkv_dim} is not a multiple of {heads} heads; change one of them")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * qkv_dim)
        self.out_proj = nn.Linear(qkv_dim, dim)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        _xavier(self.qkv, parts=3)
        for linear in (self.out_proj, self.linear1, self.linear2):
            _xavier(linear)

    def forward(self, slots: Tensor) -> Tensor:
        """(B, K, dim) -> (B, K, dim)."""
        heads = self.qkv(slots).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])  # (B, heads, K, d)
        slots = self.norm1(slots + self.out_proj(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(slots + self.linear2(F.relu(self.linear1(slots))))


def _xavier(linear: nn.Linear, *, parts: int = 1) -> None:
    """Xavier-uniform weights for each of the `parts` matrices stacked in one linear layer, zero bias."""
    bound = math.sqrt(6.0 / (linear.weight.shape[0] // parts + linear.weight.shape[1]))
    nn.init.uniform_(linear.weight, -bound, bound)
    nn.init.zeros_(linear.bias)
