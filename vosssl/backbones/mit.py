"""Mix Transformer (MiT), SegFormer's encoder: four levels of overlapping patches, attention to fewer keys.

The parameters carry the names of the published Hugging Face checkpoints (below `segformer.encoder.`).

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS 2021, section 3.1 and table 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # of the side of the keys' grid
STRIDES = (4, 2, 2, 2)
KERNELS = (7, 3, 3, 3)


class OverlapPatchEmbed(nn.Module):
    """A strided convolution whose windows overlap, and a norm: (N, C, H, W) -> (N, h*w, D), h and w."""

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width_in, width, kernel, stride, kernel // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        embedded = self.proj(images)
        grid = (embedded.shape[-2], embedded.shape[-1])
        return self.layer_norm(embedded.flatten(2).transpose(1, 2)), grid  # (N, D, h, w) -> (N, h*w, D)


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values come from a grid shrunk by a strided convolution."""

    def __init__(self, width: int, heads: int, *, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.layer_norm = nn.LayerNorm(width)
        self.reduction = reduction

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, h*w, D) -> (N, h*w, D), before the output projection."""
        memory = tokens
        if self.reduction > 1:
            maps = tokens.transpose(1, 2).unflatten(-1, grid)  # (N, h*w, D) -> (N, D, h, w)
            memory = self.layer_norm(self.sr(maps).flatten(2).transpose(1, 2))  # (N, h*w / r^2, D)
        parts = (self.query(tokens), self.key(memory), self.value(memory))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        gathered = F.scaled_dot_product_attention(query, key, value)  # (N, heads, h*w, d)
        return gathered.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)


class _Attention(nn.ModuleDict):
    """`self` and `output`, as the checkpoints call the attention and its projection."""

    def __init__(self, width: int, heads: int, *, reduction: int) -> None:
        attention = ReducedAttention(width, heads, reduction=reduction)
        super().__init__({"self": attention, "output": _Output(width)})

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        output = self["output"]
        assert isinstance(output, _Output)
        projected: Tensor = output.dense(self["self"](tokens, grid))
        return projected


class _DepthwiseConvolution(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        maps = tokens.transpose(1, 2).unflatten(-1, grid)  # (N, h*w, D) -> (N, D, h, w)
        return self.dwconv(maps).flatten(2).transpose(1, 2)


class MixFFN(nn.Module):
    """Two layers with a 3x3 depthwise convolution between them, which is where positions come from."""

    def __init__(self, width: int, *, ratio: int = 4) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, ratio * width)
        self.dwconv = _DepthwiseConvolution(ratio * width)
        self.dense2 = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.dense2(F.gelu(self.dwconv(self.dense1(tokens), grid)))


class MixBlock(nn.Module):
    """Pre-norm block; in training each residual branch is left out for some samples (stochastic depth)."""

    def __init__(self, width: int, heads: int, *, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, reduction=reduction)
        self.layer_norm_2 = nn.LayerNorm(width)
        self.mlp = MixFFN(width)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens = tokens + self._kept(self.attention(self.layer_norm_1(tokens), grid))
        return tokens + self._kept(self.mlp(self.layer_norm_2(tokens), grid))

    def _kept(self, branch: Tensor) -> Tensor:
        """The branch of the samples that keep it, scaled so that the expectation stays."""
        if not self.training or not self.drop_path:
            return branch
        share = 1 - self.drop_path
        kept = torch.rand(len(branch), 1, 1, device=branch.device) < share
        return branch * kept / share


class MixTransformer(nn.Module):
    """Images to feature maps at a 4th, 8th, 16th and 32nd of their size.

    Args:
        widths: channels of the four levels.
        depths: their numbers of blocks.
        drop_path: chance of leaving out the last block's branches in training; it grows linearly from 0.

    Raises:
        ValueError: not four levels, or widths that the heads (1, 2, 5, 8) do not divide.
    """

    def __init__(self, *, widths: Sequence[int], depths: Sequence[int], drop_path: float = 0.0) -> None:
        super().__init__()
        if len(widths) != len(HEADS) or len(depths) != len(HEADS):
            raise ValueError(f"widths {list(widths)} and depths {list(depths)}: expected four of each")
        if any(width % heads for width, heads in zip(widths, HEADS, strict=True)):
            raise ValueError(f"widths {list(widths)}: expected multiples of the heads {HEADS}")
        self.widths = tuple(int(width) for width in widths)
        total = max(1, sum(depths) - 1)
        chances = (drop_path * place / total for place in count())
        sources = (3, *self.widths[:-1])
        self.patch_embeddings = nn.ModuleList(
            OverlapPatchEmbed(source, width, kernel=kernel, stride=stride)
            for source, width, kernel, stride in zip(sources, self.widths, KERNELS, STRIDES, strict=True)
        )
        self.block = nn.ModuleList(
            nn.ModuleList(
                MixBlock(width, heads, reduction=reduction, drop_path=next(chances)) for _ in range(depth)
            )
            for width, heads, reduction, depth in zip(self.widths, HEADS, REDUCTIONS, depths, strict=True)
        )
        self.layer_norm = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the four levels.

        Args:
            images: (N, 3, H, W) RGB, normalised by IMAGENET_MEAN and _STD of ops.images; any size.

        Returns:
            Four of (N, D, h, w), h and w a 4th, 8th, 16th and 32nd of H and W, rounded up.

        Raises:
            ValueError: wrong shape or dtype.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}, expected (N, 3, H, W) floats: "
                "RGB in [0, 1], minus IMAGENET_MEAN, divided by IMAGENET_STD (vosssl.ops.images)"
            )
        maps, levels = images, []
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            tokens, grid = embed(maps)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                tokens = block(tokens, grid)
            maps = norm(tokens).transpose(1, 2).unflatten(-1, grid)  # (N, h*w, D) -> (N, D, h, w)
            levels.append(maps)
        return tuple(levels)


def _initialise(module: nn.Module) -> None:
    """Normal of std 0.02 for matrices; kernels by their fan-out, as in the authors' code."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
