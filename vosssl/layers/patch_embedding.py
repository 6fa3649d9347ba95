"""A small U-shaped encoder: frames to unit-length embeddings of 2x2 patches, cheap enough for a CPU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8  # of the coarsest level; frames of other sizes are resized to a multiple
PATCH = 2
WAVES = 4  # wave lengths per axis of the position code


def wave_positions(height: int, width: int) -> Tensor:
    """Sines and cosines of where a patch is, wave lengths from twice the picture down to a quarter.

    Args:
        height: h.
        width: w.

    Returns:
        (h * w, 4 * WAVES).
    """
    frequencies = math.pi * 2.0 ** torch.arange(-1, WAVES - 1)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (rows, columns)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=-1)


class _Convolution(nn.Sequential):
    """Convolution, group norm, GELU."""

    def __init__(self, width_in: int, width_out: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False),
            nn.GroupNorm(8, width_out),
            nn.GELU(),
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = _Convolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class _Block(nn.Module):
    """Pre-norm transformer block over all patches of a frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, patches: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(patches)).unflatten(-1, (3, self.heads, -1))  # (N, P, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (N, heads, P, d)
        patches = patches + self.out_proj(mixed.transpose(1, 2).flatten(2))
        return patches + self.mlp(self.norm2(patches))


class PatchEmbedding(nn.Module):
    """Convolutions down to an eighth, transformer blocks there, and up again to half the resolution.

    Args:
        width: channels at half resolution; twice as many at a quarter, four times at an eighth.
        dim: C of the embeddings.
        depth: transformer blocks.
        heads: of the blocks.
    """

    def __init__(self, *, width: int = 32, dim: int = 32, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.dim = dim
        self.level2 = nn.Sequential(_Convolution(3, width, kernel=5, stride=2), _Residual(width))
        self.level4 = nn.Sequential(
            _Convolution(width, 2 * width, stride=2), _Residual(2 * width), _Residual(2 * width)
        )
        self.level8 = _Convolution(2 * width, 4 * width, stride=2)
        self.positions = nn.Linear(4 * WAVES, 4 * width)
        self.blocks = nn.ModuleList(_Block(4 * width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(4 * width)
        self.to_quarter = nn.Conv2d(4 * width, 2 * width, 1)
        self.up_quarter = _Residual(2 * width)
        self.to_half = nn.Conv2d(2 * width, width, 1)
        self.up_half = _Residual(width)
        self.head = nn.Conv2d(width, dim, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Embeds frames.

        Args:
            frames: (N, 3, H, W) RGB, uint8 or in [0, 1].

        Returns:
            (N, C, h, w) of unit length over C; h and w are half of H and W rounded to a multiple of 8.
        """
        images = frames if frames.is_floating_point() else frames.float() / 255
        height, width = (max(STRIDE, round(side / STRIDE) * STRIDE) for side in images.shape[-2:])
        if (height, width) != images.shape[-2:]:
            images = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
        half = self.level2((images - 0.5) * 4)
        quarter = self.level4(half)
        eighth = self.level8(quarter)
        grid = (eighth.shape[-2], eighth.shape[-1])
        patches = eighth.flatten(2).transpose(1, 2)  # (N, C8, h8, w8) -> (N, P8, C8)
        patches = patches + self.positions(wave_positions(*grid).to(patches))
        for block in self.blocks:
            patches = block(patches)
        eighth = self.norm(patches).transpose(1, 2).unflatten(-1, grid)  # (N, P8, C8) -> (N, C8, h8, w8)
        quarter = self.up_quarter(quarter + _doubled(self.to_quarter(eighth)))
        half = self.up_half(half + _doubled(self.to_half(quarter)))
        return F.normalize(self.head(half).float(), dim=1)


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
