"""Pictures to features, and features to keys, shrinkage and selection of the pixel memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.backbones.resnet import BasicBlock, Bottleneck, ResNet

Backbone = Literal["resnet18", "resnet50"]
BLOCKS = {"resnet18": (2, 2, 2), "resnet50": (3, 4, 6)}


class FrozenNormResNet(ResNet):
    """A residual network of three stages whose batch norms keep their statistics in training, as published.

    Args:
        backbone: which kind of blocks, and how many where `blocks` does not say.
        blocks: in each of the three stages.
        width: channels of the first stage, inside its blocks.
        first_stride: of the first convolution.
        pool: whether the max-pooling behind it (stride 2) is there.
        in_channels: RGB, and masks behind it.
        first_stage: name of the first stage.
        train_norms: let batch norms learn statistics after all: for training from scratch.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        blocks: Sequence[int] | None = None,
        width: int = 64,
        first_stride: int = 2,
        pool: bool = True,
        in_channels: int = 3,
        first_stage: str = "layer1",
        train_norms: bool = False,
    ) -> None:
        if backbone not in BLOCKS:
            raise ValueError(f"backbone is {backbone!r}, expected {' or '.join(BLOCKS)}")
        super().__init__(
            Bottleneck if backbone == "resnet50" else BasicBlock,
            blocks=blocks or BLOCKS[backbone],
            width=width,
            first_stride=first_stride,
            pool=pool,
            in_channels=in_channels,
            first_stage=first_stage,
        )
        if len(self.stages) != 3:
            raise ValueError(f"blocks are {tuple(blocks or ())}, expected three numbers: stages to stride 16")
        self.train_norms = train_norms

    def train(self, mode: bool = True) -> FrozenNormResNet:
        """As every module's, but batch norms stay in evaluation unless `train_norms`."""
        super().train(mode)
        if not self.train_norms:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self


class Keys(NamedTuple):
    """What the pixel memory is addressed with.

    Attributes:
        key: (B, CK, h, w).
        shrinkage: (B, 1, h, w), at least 1: how sharp a remembered place is.
        selection: (B, CK, h, w) in (0, 1): which channels a query looks at.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor


class KeyProjection(nn.Module):
    """Features of stride 16 to `Keys`; always in full precision.

    Args:
        feature_width: channels of the features.
        width: channels between.
        key_width: CK.

    Source: Cheng & Schwing, "XMem", ECCV 2022, section 3.3 (anisotropic L2).
    """

    def __init__(self, feature_width: int, width: int, key_width: int) -> None:
        super().__init__()
        self.pix_feat_proj = nn.Conv2d(feature_width, width, 1)
        self.key_proj = nn.Conv2d(width, key_width, 3, padding=1)
        self.d_proj = nn.Conv2d(width, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(width, key_width, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        assert self.key_proj.bias is not None
        nn.init.zeros_(self.key_proj.bias)

    def forward(self, features: Tensor) -> Keys:
        """(B, feature_width, h, w) to keys."""
        with torch.autocast(features.device.type, enabled=False):
            inner = self.pix_feat_proj(features.to(self.pix_feat_proj.weight.dtype))
            shrinkage = self.d_proj(inner) ** 2 + 1
            return Keys(self.key_proj(inner), shrinkage, self.e_proj(inner).sigmoid())
