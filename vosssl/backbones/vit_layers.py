"""The parts of the vision transformers of DINO, DINOv2 and DINOv3, under their official names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.ops.row_blocks import goes_in_blocks

TOKENS = 256  # whose hidden layer, four times as wide, exists at one time on a CPU that does not learn


class Rotation(NamedTuple):
    """Cosine and sine (h*w, head_dim) float32 of each patch's rotary angles."""

    cos: Tensor
    sin: Tensor

    def __call__(self, heads: Tensor) -> Tensor:
        """Rotates the patch tokens of (N, heads, T, head_dim), the last h*w, and leaves those before them."""
        prefix = heads.shape[-2] - self.cos.shape[-2]
        patches = heads[:, :, prefix:].to(self.cos.dtype)
        first, second = patches.chunk(2, dim=-1)
        turned = patches * self.cos + torch.cat([-second, first], dim=-1) * self.sin
        return torch.cat([heads[:, :, :prefix], turned.to(heads.dtype)], dim=-2)


class RotaryPositions(nn.Module):
    """Rotary embedding of patch coordinates, relative to each axis's extent.

    `periods` (head_dim / 4,) is a buffer of the checkpoint and is used as loaded. It stays float32 when the
    network is converted to another dtype. DINOv3's random shift, jitter and rescale in training are left out.
    """

    periods: Tensor

    def __init__(self, head_dim: int, *, base: float = 100.0) -> None:
        super().__init__()
        count = head_dim // 4
        self.register_buffer("periods", base ** (torch.arange(count, dtype=torch.float32) / count))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RotaryPositions:
        exact = self.periods
        super()._apply(fn, recurse)
        if self.periods.dtype != exact.dtype:
            self.periods = exact.to(self.periods.device)
        return self

    def forward(self, grid: tuple[int, int]) -> Rotation:
        """Angles of an (h, w) grid of patches: row angles, column angles, both repeated once."""
        axes = [
            2 * ((torch.arange(n, dtype=torch.float32, device=self.periods.device) + 0.5) / n) - 1
            for n in grid
        ]
        coordinates = torch.cartesian_prod(*axes)  # (h*w, 2) in [-1, 1]
        angles = 2 * math.pi * coordinates[:, :, None] / self.periods  # (h*w, 2, head_dim / 4)
        angles = angles.flatten(1).tile(2)  # (h*w, 2, head_dim / 4) -> (h*w, head_dim)
        return Rotation(angles.cos(), angles.sin())


class KeyUnbiasedLinear(nn.Linear):
    """The `qkv` layer of DINOv3: its buffer `bias_mask` switches the keys' bias off."""

    bias_mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias * self.bias_mask)


class Projected(NamedTuple):
    """What attention is computed from, each (N, heads, T, head_dim); `turned` where the model rotates."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    turned_queries: Tensor
    turned_keys: Tensor


class Attention(nn.Module):
    """Multi-head self-attention; fused unless `fused` is False."""

    def __init__(self, width: int, heads: int, *, key_bias: bool, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.qkv = nn.Linear(width, 3 * width) if key_bias else KeyUnbiasedLinear(width)
        self.proj = nn.Linear(width, width)

    def project(self, tokens: Tensor, rotation: Rotation | None = None) -> Projected:
        """Queries, keys and values of tokens (N, T, D)."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (N, T, 3, heads, head_dim)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind()  # (3, N, heads, T, head_dim)
        if rotation is None:
            return Projected(queries, keys, values, queries, keys)
        return Projected(queries, keys, values, rotation(queries), rotation(keys))

    def weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Softmax over keys: (N, heads, Q, head_dim), (N, heads, T, head_dim) -> (N, heads, Q, T)."""
        logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        return logits.softmax(dim=-1)

    def read(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What each query gathers, projected: (N, Q, D)."""
        if self.fused:
            gathered = F.scaled_dot_product_attention(queries, keys, values)
        else:
            gathered = self.weights(queries, keys) @ values
        return self.proj(merge_heads(gathered))

    def forward(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        parts = self.project(tokens, rotation)
        return self.read(parts.turned_queries, parts.turned_keys, parts.values)


class Mlp(nn.Module):
    """Two layers with exact (erf) GELU between them."""

    def __init__(self, width: int, *, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        if not goes_in_blocks(tokens):
            return self.fc2(F.gelu(self.fc1(tokens)))
        result = torch.empty_like(tokens)
        for start in range(0, tokens.shape[-2], TOKENS):
            hidden = torch.ops.aten.gelu_(self.fc1(tokens[..., start : start + TOKENS, :]))
            result[..., start : start + TOKENS, :] = self.fc2(hidden)
        return result


class LayerScale(nn.Module):
    """One learned gain per channel."""

    def __init__(self, width: int, *, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        norm_eps: float,
        layer_scale: float | None,
        key_bias: bool,
        fused: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, key_bias=key_bias, fused=fused)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, init=layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, init=layer_scale)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """The block's result for tokens (N, T, D) that have attended (N, T, D)."""
        tokens = tokens + self.ls1(attended)
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))

    def forward(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        return self.finish(tokens, self.attn(self.norm1(tokens), rotation))


class PatchEmbed(nn.Module):
    """Linear embedding of non-overlapping patches; pixels that fill no whole patch are dropped."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (N, D, h, w) -> (N, h*w, D)


def merge_heads(heads: Tensor) -> Tensor:
    """Heads side by side: (N, heads, T, head_dim) -> (N, T, D)."""
    return heads.transpose(1, 2).flatten(2)


def resize_positions(
    embedding: Tensor, grid: tuple[int, int], *, square: bool, positions: Literal["scale", "size"] = "scale"
) -> Tensor:
    """A learned position embedding for another grid of patches.

    Args:
        embedding: (1, 1 + g*g, D), the class token's first.
        grid: (h, w).
        square: whether the image has equal sides in pixels; DINO resamples any other, even to its own grid.
        positions: `scale` resamples by the factor (h + 0.1) / g without antialiasing, as DINO does; `size` to
            (h, w) with antialiasing, as timm does.

    Returns:
        (1, 1 + h*w, D). Resampled bicubically in float32.
    """
    side = math.isqrt(embedding.shape[1] - 1)
    if grid == (side, side) and (square or positions == "size"):
        return embedding
    patches = embedding[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, D, g, g)
    if positions == "scale":
        # the factor itself sets the sampling points; 0.1 keeps its product from falling below (h, w)
        factor = [(n + 0.1) / side for n in grid]
        resized = F.interpolate(patches, scale_factor=factor, mode="bicubic")
    else:
        resized = F.interpolate(patches, size=grid, mode="bicubic", antialias=True)
    assert tuple(resized.shape[-2:]) == grid
    flat = resized.flatten(2).transpose(1, 2).to(embedding.dtype)  # (1, D, h, w) -> (1, h*w, D)
    return torch.cat([embedding[:, :1], flat], dim=1)


def initialise(network: nn.Module) -> None:
    """Truncated normal of std 0.02 for matrices and for the network's own tokens, zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    for name, token in network.named_parameters(recurse=False):
        if name != "mask_token":
            nn.init.trunc_normal_(token, std=0.02)
