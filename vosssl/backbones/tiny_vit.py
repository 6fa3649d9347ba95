"""TinyViT as MobileSAM uses it: convolutions, then window attention, at strides of 4 to 16, and a neck.

`state_dict()` has the keys of MobileSAM's image encoder in their order. Maps are channels last in memory, so
that convolutions and tokens read the same numbers without a copy. In evaluation each batch norm is folded
into its convolution, on the fly: weights may change at any time, and gradients pass.

Source: Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022; Zhang et
al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications", 2023 (the 5 M variant, the
last stage without its downsampling, SAM's neck).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.channel_norm import ChannelNorm


class TinyViTMaps(NamedTuple):
    """What the encoder computes on its way, all (N, C, h, w).

    Attributes:
        stem: of stride 4.
        stages: after each stage and its downsampling.
        neck: the image embedding.
    """

    stem: Tensor
    stages: tuple[Tensor, ...]
    neck: Tensor


class NormedConvolution(nn.Module):
    """A convolution without bias and its batch norm; of 3x3 or 1x1, "same" padding.

    Args:
        channels: of the input.
        width: of the output.
        kernel: 1 or 3.
        stride: of the convolution.
        depthwise: one kernel per channel.
    """

    def __init__(
        self, channels: int, width: int, *, kernel: int = 1, stride: int = 1, depthwise: bool = False
    ) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.c = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, width, H / stride, W / stride)."""
        if self.bn.training:
            return self.bn(self.c(maps))
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None
        scale = self.bn.weight * (variance + self.bn.eps).rsqrt()
        kernel = self.c.weight * scale[:, None, None, None]
        offset = self.bn.bias - mean * scale
        if kernel.shape[2] == 1:
            return F.linear(maps.permute(0, 2, 3, 1), kernel.flatten(1), offset).permute(0, 3, 1, 2)
        return F.conv2d(maps, kernel, offset, self.c.stride, self.c.padding, groups=self.c.groups)


def gelu(maps: Tensor) -> Tensor:
    """GELU; in place where no gradient is wanted, as fresh memory costs more than the function."""
    return F.gelu(maps) if torch.is_grad_enabled() else torch.ops.aten.gelu_(maps)


class Stem(nn.Module):
    """Two 3x3 convolutions of stride 2: images to maps of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.ModuleDict(  # named as in a sequence with GELU in the middle
            {
                "0": NormedConvolution(3, width // 2, kernel=3, stride=2),
                "2": NormedConvolution(width // 2, width, kernel=3, stride=2),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, width, H / 4, W / 4)."""
        return self.seq["2"](gelu(self.seq["0"](images)))


class MobileBlock(nn.Module):
    """An inverted bottleneck: wider, 3x3 of each channel, narrow again, around a residual.

    Args:
        width: of input and output.
        expansion: how many times wider it is inside.
    """

    def __init__(self, width: int, *, expansion: int = 4) -> None:
        super().__init__()
        inner = expansion * width
        self.conv1 = NormedConvolution(width, inner)
        self.conv2 = NormedConvolution(inner, inner, kernel=3, depthwise=True)
        self.conv3 = NormedConvolution(inner, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        inner = gelu(self.conv2(gelu(self.conv1(maps))))
        return gelu(maps + self.conv3(inner))


class Downsampling(nn.Module):
    """Between two stages: another width, and half the size unless the stride is 1."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = NormedConvolution(channels, width)
        self.conv2 = NormedConvolution(width, width, kernel=3, stride=stride, depthwise=True)
        self.conv3 = NormedConvolution(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) to (N, width, h / stride, w / stride)."""
        return self.conv3(gelu(self.conv2(gelu(self.conv1(maps)))))


class WindowAttention(nn.Module):
    """Attention inside windows, with a learned bias per head and distance along both axes.

    Args:
        width: of the tokens.
        heads: that it is divided into.
        window: side of a window in tokens.
    """

    bias_index: Tensor

    def __init__(self, width: int, heads: int, *, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("bias_index", distance_index(window), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, h, w, C) to the same; zeros that fill the last windows take part."""
        batch, height, width, channels = maps.shape
        side = self.window
        right, below = -width % side, -height % side
        if right or below:
            maps = F.pad(maps, (0, 0, 0, right, 0, below))
        rows, columns = maps.shape[1] // side, maps.shape[2] // side
        windows = maps.unflatten(1, (rows, side)).unflatten(3, (columns, side)).transpose(2, 3)
        tokens = self._attend(windows.reshape(-1, side * side, channels))  # (N*rows*columns, side^2, C)
        windows = tokens.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        maps = windows.reshape(batch, rows * side, columns * side, channels)
        return maps[:, :height, :width]

    def _attend(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(self.norm(tokens)).unflatten(-1, (self.heads, -1))  # (B, P, heads, 3 d)
        query, key, value = parts.transpose(1, 2).chunk(3, dim=-1)  # each (B, heads, P, d)
        bias = self.attention_biases[:, self.bias_index].to(query.dtype)  # (heads, P, P)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.proj(mixed.transpose(1, 2).flatten(2))


def distance_index(window: int) -> Tensor:
    """Which bias belongs to each pair of places in a window.

    Biases are numbered by the first row of pairs: absolute distances (|dy|, |dx|), row by row.

    Args:
        window: side in tokens.

    Returns:
        (window^2, window^2) int64.
    """
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # (P, 2)
    distances = (places[:, None] - places).abs()  # (P, P, 2)
    return distances[..., 0] * window + distances[..., 1]


class FeedForward(nn.Module):
    """Norm, then two linear layers with GELU between."""

    def __init__(self, width: int, *, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, expansion * width)
        self.fc2 = nn.Linear(expansion * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., width) to the same."""
        return self.fc2(gelu(self.fc1(self.norm(tokens))))


class AttentionBlock(nn.Module):
    """Window attention, a 3x3 of each channel (which has no residual), two linear layers."""

    def __init__(self, width: int, heads: int, *, window: int, expansion: int = 4) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window=window)
        self.mlp = FeedForward(width, expansion=expansion)
        self.local_conv = NormedConvolution(width, width, kernel=3, depthwise=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        tokens = maps.permute(0, 2, 3, 1)  # (N, C, h, w) -> (N, h, w, C)
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = tokens + self.mlp(tokens)
        return tokens.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, and what leads to the next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h', w')."""
        for block in self.blocks:
            maps = block(maps)
        return maps if self.downsample is None else self.downsample(maps)


class TinyViT(nn.Module):
    """The image encoder: normalised images to embeddings.

    The classifier of the published weights is kept under its names, untrained and unused.

    Args:
        widths: of the four stages; the first has convolutions only.
        depths: blocks of each.
        heads: of each; the first is not used.
        windows: side of the windows of each; the first is not used.
        strides: of the downsampling after each stage but the last. The last 1 is MobileSAM's.
        expansion: inner width of blocks, in widths.
        neck_width: channels of the embedding.
        classes: of the unused classifier.

    Raises:
        ValueError: stages of different number, or a width that is no multiple of its heads.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        strides: Sequence[int] = (2, 2, 1),
        expansion: int = 4,
        neck_width: int = 256,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        _check_stages(widths, depths, heads, windows, strides)
        self.channels = neck_width
        self.stride = 4
        for stride in strides:
            self.stride *= stride
        joints: list[Downsampling | None] = [
            Downsampling(channels, width, stride=stride)
            for (channels, width), stride in zip(pairwise(widths), strides, strict=True)
        ]
        first, *later = zip(widths, depths, heads, windows, [*joints, None], strict=True)
        self.patch_embed = Stem(widths[0])
        self.layers = nn.ModuleList(
            [Stage([MobileBlock(widths[0], expansion=expansion) for _ in range(first[1])], first[-1])]
        )
        for width, depth, count, window, joint in later:
            blocks = [AttentionBlock(width, count, window=window, expansion=expansion) for _ in range(depth)]
            self.layers.append(Stage(blocks, joint))
        self.norm_head = nn.LayerNorm(widths[-1]).requires_grad_(False)
        self.head = nn.Linear(widths[-1], classes).requires_grad_(False)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], neck_width, 1, bias=False),
            ChannelNorm(neck_width),
            nn.Conv2d(neck_width, neck_width, 3, padding=1, bias=False),
            ChannelNorm(neck_width),
        )

    def maps(self, images: Tensor) -> TinyViTMaps:
        """All maps on the way to the embedding.

        Args:
            images: (N, 3, H, W) normalised, H and W multiples of `stride`.

        Raises:
            ValueError: another size.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.stride for side in images.shape[2:]):
            raise ValueError(
                f"images are {tuple(images.shape)}, expected (N, 3, H, W) with sides of multiples of "
                f"{self.stride}; pad them"
            )
        stem = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        maps, stages = stem, []
        for stage in self.layers:
            maps = stage(maps)
            stages.append(maps)
        return TinyViTMaps(stem, tuple(stages), self.neck(maps))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to (N, neck_width, H / stride, W / stride); see `maps`."""
        return self.maps(images).neck


def _check_stages(
    widths: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    windows: Sequence[int],
    strides: Sequence[int],
) -> None:
    lengths = [len(setting) for setting in (widths, depths, heads, windows, strides)]
    if lengths != [len(widths)] * 4 + [len(widths) - 1] or len(widths) < 2:
        raise ValueError(
            f"widths, depths, heads, windows and strides have {lengths} entries, expected one per stage and "
            "one stride less"
        )
    for width, count in list(zip(widths, heads, strict=True))[1:]:
        if width % count:
            raise ValueError(f"a stage is {width} wide, no multiple of its {count} heads; change one of them")
