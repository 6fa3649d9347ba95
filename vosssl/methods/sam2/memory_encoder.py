"""What SAM 2 remembers of an object in a frame: the frame's features and the object's mask, fused.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4; blocks of Liu et al., "A
ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.channel_norm import ChannelNorm
from vosssl.ops.row_blocks import row_blocks

STEPS = 4  # halvings of a mask's side on its way to stride 16


class MaskDownsampler(nn.Module):
    """A mask in steps of two to stride 16, each with four times the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in range(STEPS):
            layers += [
                nn.Conv2d(4**step, 4 ** (step + 1), 3, stride=2, padding=1),
                ChannelNorm(4 ** (step + 1)),
                nn.GELU(),
            ]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(4**STEPS, dim, 1))

    def forward(self, masks: Tensor) -> Tensor:
        """(N, 1, 16h, 16w) to (N, dim, h, w)."""
        return self.encoder(masks)


class ConvNeXtBlock(nn.Module):
    """A depthwise 7 x 7 convolution, then two linear layers, scaled per channel and added.

    Args:
        dim: channels.
        feed_forward_ratio: inner width of the linear layers in `dim`.
        scale: of the residual part at first.
    """

    def __init__(self, dim: int, *, feed_forward_ratio: int = 4, scale: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = ChannelNorm(dim)
        self.pwconv1 = nn.Linear(dim, feed_forward_ratio * dim)
        self.pwconv2 = nn.Linear(feed_forward_ratio * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, dim, h, w) to the same shape."""
        places = self.norm(self.dwconv(maps)).permute(0, 2, 3, 1)  # (N, C, h, w) -> (N, h, w, C)
        places = self.gamma * self.pwconv2(F.gelu(self.pwconv1(places)))
        return maps + places.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Blocks one after the other, under the name `layers`."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(dim) for _ in range(depth))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, dim, h, w) to the same shape."""
        for layer in self.layers:
            maps = layer(maps)
        return maps


class MemoryEncoder(nn.Module):
    """Features and masks to memories.

    Args:
        dim: C of the image's features.
        memory_dim: channels of a memory.
        depth: blocks that fuse both.
    """

    def __init__(self, dim: int = 256, *, memory_dim: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, 1)
        self.fuser = Fuser(dim, depth)
        self.out_proj = nn.Conv2d(dim, memory_dim, 1)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """(N or 1, C, h, w) features and (N, 1, 16h, 16w) masks to (N, memory_dim, h, w)."""
        features = self.pix_feat_proj(image)
        parts = [
            self.fuser(
                (features if features.shape[0] == 1 else features[rows]) + self.mask_downsampler(masks[rows])
            )
            for rows in row_blocks(masks.shape[0], masks)
        ]
        return self.out_proj(torch.cat(parts))
