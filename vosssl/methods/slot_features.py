"""What else our slots can stand on: the features of any frozen network, brought to one grid of patches.

To compare features with everything else equal, each network sees frames of the size it is made for, and the
slots see unit-length vectors on a grid that is the same for all of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.frame_encoders import FrozenBackbone
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.resize import resize_image, resize_masks


class FeatureGrid(nn.Module):
    """A frozen network's features on a fixed grid: an `embedding` for `Slots`.

    Args:
        network: from images (N, 3, H, W) to (N, C, h', w'), or to tokens with `patches` (N, h'*w', C).
        dim: C.
        size: (H, W) of the network's images.
        grid: (h, w) of the result; maps of other sizes are interpolated.
        normalise: whether the network wants ImageNet's mean and deviation taken out, as ViTs do; else it
            gets RGB in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        dim: int,
        size: tuple[int, int] = (128, 128),
        grid: tuple[int, int] = (32, 32),
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = FrozenBackbone(network)
        self.dim = dim
        self.size = (size[0], size[1])
        self.grid = (grid[0], grid[1])
        self.normalise = normalise
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Embeds frames.

        Args:
            frames: (N, 3, H, W) RGB, uint8 or in [0, 1].

        Returns:
            (N, C, h, w) of unit length over C.

        Raises:
            ValueError: the network's features are not as wide as `dim`.
        """
        images = as_float(frames)
        if images.shape[-2:] != self.size:
            images = resize_image(images, self.size)
        if self.normalise:
            images = (images - self.mean) / self.std
        features = self.backbone.model(images)
        if not isinstance(features, Tensor):
            height, width = self.backbone.model.grid_size(*self.size)  # type: ignore[operator]
            features = features.patches.transpose(1, 2).unflatten(-1, (height, width))  # -> (N, C, h', w')
        if features.shape[1] != self.dim:
            raise ValueError(f"features are {features.shape[1]} wide, dim is {self.dim}; make them equal")
        features = F.normalize(features.float(), dim=1)
        if features.shape[-2:] == self.grid:
            return features
        return F.normalize(resize_masks(features, self.grid), dim=1)


class ColourCode(nn.Module):
    """Mean colours of patches as unit-length vectors: a half-circle for each channel.

    The inner product of two of them is the mean over channels of cos(pi * difference), so that equal colours
    have 1 and opposite ones -1.

    Args:
        patch_size: side of a patch in pixels; images have whole patches.
    """

    def __init__(self, *, patch_size: int = 2) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 6, h, w)."""
        angles = math.pi * F.avg_pool2d(images, self.patch_size)
        return torch.cat([angles.cos(), angles.sin()], dim=1) * 3**-0.5
