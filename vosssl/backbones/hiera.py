"""Hiera: a hierarchical ViT without convolutions between its stages; SAM 2's image trunk.

Tokens stay in the order of attention windows from one end of a stage to the other, so that windows are
views; attention over the whole map does not care for order. A window that reaches over the map's edge holds
no padding: all padded keys are equal, so that one key with the logarithm of their number on its logit stands
for them.

Source: Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", ICML 2023;
Bolya et al., "Window Attention is Bugged: How Not to Interpolate Position Embeddings", ICLR 2024 (positions);
Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.1 (global blocks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.linear_stack import LinearStack
from vosssl.ops.resize import Size
from vosssl.ops.row_blocks import goes_in_blocks
from vosssl.ops.windows import Region, parted, to_map, to_windows, window_regions

STRIDE = 4  # of the patches
EPS = 1e-6
TOKENS = 4096  # of windows that a CPU's thread takes through a block at once: .85 of the time of all 65,536


class PatchEmbed(nn.Module):
    """Overlapping patches: a 7 x 7 convolution of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, stride=STRIDE, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, h, w, width)."""
        maps = self.proj(images.contiguous(memory_format=torch.channels_last))
        return maps.permute(0, 2, 3, 1)  # (N, D, h, w) -> (N, h, w, D)


class WindowAttention(nn.Module):
    """Attention among the tokens of each window; queries may be pooled 2 x 2 first."""

    def __init__(self, width_in: int, width: int, heads: int, *, pool: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pool = pool
        self.qkv = nn.Linear(width_in, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, regions: tuple[Region, ...] | None) -> Tensor:
        """(N, T, width_in) in the order of windows, to (N, T, width), or T / 4 with pooling.

        `regions` are those of the windows; None: one window.
        """
        parts = self.qkv(tokens)
        if regions is None:
            gathered = self._attend(*parts.chunk(3, dim=-1), missing=0)
        else:
            gathered = torch.cat([self._region(parts[:, one.tokens], one) for one in regions], dim=1)
        return self.proj(gathered)

    def _region(self, parts: Tensor, region: Region) -> Tensor:
        """(N, tokens, 3 * width) of a region to (N, tokens, width), or a quarter of the tokens."""
        rows = len(parts)
        windows = parts.unflatten(1, (-1, math.prod(region.window))).flatten(0, 1)  # (N * windows, n, 3 * D)
        query, key, value = windows.chunk(3, dim=-1)
        if self.pool:
            query = pooled(query, region.window)
        return self._attend(query, key, value, missing=region.missing).unflatten(0, (rows, -1)).flatten(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, missing: int) -> Tensor:
        """Attention of (N, n, width) queries; `missing` keys are what the projection makes of zeros."""
        mask = None
        if missing:
            _, key_bias, value_bias = self.qkv.bias.to(key.dtype).chunk(3)
            key = torch.cat([key, key_bias.expand(len(key), 1, -1)], dim=1)
            value = torch.cat([value, value_bias.expand(len(key), 1, -1)], dim=1)
            mask = F.pad(key.new_zeros(key.shape[1] - 1), (0, 1), value=math.log(missing))[None]
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        gathered = F.scaled_dot_product_attention(*heads, attn_mask=mask)  # type: ignore[misc]
        return gathered.transpose(1, 2).flatten(2)  # (N, heads, n, d) -> (N, n, width)


class HieraBlock(nn.Module):
    """Window attention and a feed-forward network.

    Args:
        width_in: of tokens that come.
        width: of tokens that go.
        heads: of attention.
        pool: halve the map's sides, with what is strongest in 2 x 2 places.
        feed_forward_ratio: inner width of the feed-forward network in widths.
    """

    def __init__(
        self, width_in: int, width: int, heads: int, *, pool: bool, feed_forward_ratio: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width_in, eps=EPS)
        self.attn = WindowAttention(width_in, width, heads, pool=pool)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = LinearStack(
            width, width, hidden_dim=int(width * feed_forward_ratio), depth=2, activation="gelu"
        )
        self.proj = nn.Linear(width_in, width) if width_in != width else None

    def forward(self, tokens: Tensor, regions: tuple[Region, ...] | None) -> Tensor:
        """(N, T, width_in) in the order of windows, to (N, T, width), or T / 4 with pooling."""
        if regions is None or not goes_in_blocks(tokens):
            return self._together(tokens, regions)
        most = TOKENS * torch.get_num_threads()
        if tokens.shape[1] <= most:
            return self._together(tokens, regions)
        fewer = 4 if self.attn.pool else 1
        result = tokens.new_empty(len(tokens), tokens.shape[1] // fewer, self.attn.proj.out_features)
        for whole, part in parted(regions, most):
            places = slice(whole.start // fewer, whole.stop // fewer)
            result[:, places] = self._together(tokens[:, whole], (part,))
        return result

    def _together(self, tokens: Tensor, regions: tuple[Region, ...] | None) -> Tensor:
        """All tokens at once."""
        normed = self.norm1(tokens)
        shortcut = tokens if self.proj is None else self.proj(normed)
        if self.attn.pool:
            assert regions is not None
            shortcut = torch.cat([_pooled_region(shortcut, region) for region in regions], dim=1)
        attended = shortcut + self.attn(normed, regions)
        return attended + self.mlp(self.norm2(attended))


class Hiera(nn.Module):
    """The trunk; its defaults are SAM 2's tiny one.

    Args:
        width: D of the first stage; doubles from stage to stage.
        heads: of the first stage, likewise.
        depths: blocks of the stages.
        windows: side of the attention windows in each stage. The first block of a stage still has the
            window of the stage before it, and pools.
        global_blocks: indices of blocks that attend over the whole map.
        background_size: (h, w) of the learned positions that are stretched over the map.
        feed_forward_ratio: inner width of feed-forward networks in widths.

    Attributes:
        widths: of the stages.

    Raises:
        ValueError: as many windows as stages are needed; a pooling block cannot be global.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        heads: int = 1,
        depths: Sequence[int] = (1, 2, 7, 2),
        windows: Sequence[int] = (8, 4, 14, 7),
        global_blocks: Sequence[int] = (5, 7, 9),
        background_size: Size = (7, 7),
        feed_forward_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        starts = [sum(depths[:stage]) for stage in range(len(depths))]
        if len(windows) != len(depths):
            raise ValueError(f"{len(windows)} windows for {len(depths)} stages, expected one per stage")
        if set(starts) & set(global_blocks):
            raise ValueError(
                f"global_blocks are {tuple(global_blocks)}, but {', '.join(map(str, starts))} start stages "
                "and pool inside windows; choose others"
            )
        self.widths = tuple(width * 2**stage for stage in range(len(depths)))
        self.ends = tuple(start + depth - 1 for start, depth in zip(starts, depths, strict=True))
        self.pos_embed = nn.Parameter(torch.zeros(1, width, *background_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, width, windows[0], windows[0]))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList()
        self.windows: list[int] = []  # by block; 0: the whole map
        for stage, depth in enumerate(depths):
            for index in range(depth):
                pool = stage > 0 and index == 0
                window = windows[stage - 1 if pool else stage]
                self.windows.append(0 if len(self.blocks) in global_blocks else window)
                self.blocks.append(
                    HieraBlock(
                        self.widths[stage - 1 if pool else stage],
                        self.widths[stage],
                        heads * 2**stage,
                        pool=pool,
                        feed_forward_ratio=feed_forward_ratio,
                    )
                )
        self.orders = [window for window, depth in zip(windows, depths, strict=True) for _ in range(depth)]
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)

    @property
    def stride(self) -> int:
        """Pixels that the sides of images have to be multiples of."""
        return STRIDE * 2 ** (len(self.widths) - 1)

    def positions(self, size: Size) -> Tensor:
        """What is added to patches: a stretched table plus one that repeats in every window.

        Args:
            size: (h, w), multiples of the first stage's window.

        Returns:
            (1, D, h, w).
        """
        down, across = (
            _stretching(before, after).to(self.pos_embed)
            for before, after in zip(self.pos_embed.shape[-2:], size, strict=True)
        )
        stretched = down @ self.pos_embed @ across.T  # (1, D, a, b) -> (1, D, h, w)
        window = self.pos_embed_window
        repeats = -(-size[0] // window.shape[-2]), -(-size[1] // window.shape[-1])
        return stretched + window.tile(1, 1, *repeats)[..., : size[0], : size[1]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of all stages.

        Args:
            images: (N, 3, H, W), normalised, sides multiples of `stride`.

        Returns:
            (N, D * 2^i, h / 2^i, w / 2^i) of each stage i, (h, w) = (H, W) / 4; in channels-last memory.

        Raises:
            ValueError: sides that are no multiples of `stride`.
        """
        if images.shape[-2] % self.stride or images.shape[-1] % self.stride:
            raise ValueError(
                f"images are {tuple(images.shape)}; Hiera needs sides that are multiples of {self.stride}, "
                "resize or pad them"
            )
        patches = self.patch_embed(images)
        size = (patches.shape[1], patches.shape[2])
        maps = patches + self.positions(size).permute(0, 2, 3, 1)  # (1, D, h, w) -> (1, h, w, D)
        window = self.orders[0]
        regions = window_regions(size, window)
        tokens = to_windows(maps, regions)
        levels = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, HieraBlock)
            if block.attn.pool:  # still in the order, and in the windows, of the stage before
                tokens = block(tokens, regions)
                size = (size[0] // 2, size[1] // 2)
                regions = window_regions(size, window // 2)
                if window // 2 != self.orders[index]:
                    maps = to_map(tokens, regions)
                    regions = window_regions(size, self.orders[index])
                    tokens = to_windows(maps, regions)
                window = self.orders[index]
            else:
                tokens = block(tokens, regions if self.windows[index] else None)
            if index in self.ends:
                levels.append(to_map(tokens, regions).permute(0, 3, 1, 2))  # (N, h, w, D) -> (N, D, h, w)
        return levels


@cache
def _stretching(before: int, after: int) -> Tensor:
    """(after, before): bicubic interpolation of one axis as a matrix, faster than torch's of both."""
    with torch.inference_mode(False):
        columns = torch.eye(before)[None, None]  # interpolated along their rows
        return F.interpolate(columns, size=(after, before), mode="bicubic", align_corners=False)[0, 0]


def pooled(tokens: Tensor, window: Size) -> Tensor:
    """The largest of 2 x 2 places: (N, h * w, D) of windows (h, w) to (N, h * w / 4, D)."""
    height, width = window
    places = tokens.unflatten(1, (height // 2, 2, width // 2, 2))  # (N, h / 2, 2, w / 2, 2, D)
    upper, lower = places.unbind(2)  # `amax` over both dimensions took 40 times as long
    left, right = torch.maximum(upper, lower).unbind(3)
    return torch.maximum(left, right).flatten(1, 2)  # (N, h / 2, w / 2, D) -> (N, h * w / 4, D)


def _pooled_region(tokens: Tensor, region: Region) -> Tensor:
    """All tokens (N, T, D) to the pooled ones of a region."""
    windows = tokens[:, region.tokens].unflatten(1, (-1, math.prod(region.window)))
    return pooled(windows.flatten(0, 1), region.window).unflatten(0, (len(tokens), -1)).flatten(1, 2)
