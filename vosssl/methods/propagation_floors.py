"""What is known of a patch without learning: its mean colour, and the directions of its edges.

Label propagation on these is the floor of learned features: the matching alone explains that much.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.ops.images import IMAGENET_MEAN


class MeanColours(nn.Module):
    """Mean colours of patches, with the mean of photographs subtracted.

    Args:
        patch_size: side of a patch in pixels; images have whole patches.
    """

    def __init__(self, *, patch_size: int = 8) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, h, w)."""
        mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
        return F.avg_pool2d(images - mean, self.patch_size)


class EdgeDirections(nn.Module):
    """Histograms of oriented gradients: of each patch and the eight around it.

    Args:
        patch_size: side of a patch in pixels; images have whole patches.
        bins: of directions in half a turn.

    Source: Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005, with one
        block of 3 x 3 cells around each cell.
    """

    def __init__(self, *, patch_size: int = 8, bins: int = 9) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.bins = bins

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 9 * bins, h, w), of unit length where there is any edge."""
        grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")  # (N, 1, H + 2, W + 2)
        along_x = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
        along_y = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        strength = torch.hypot(along_x, along_y)  # (N, 1, H, W)
        place = torch.atan2(along_y, along_x).remainder(math.pi) / math.pi * self.bins
        lower = place.floor()
        votes = strength.new_zeros(len(images), self.bins, *images.shape[-2:])
        for bin_number, share in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
            votes.scatter_add_(1, bin_number.long() % self.bins, strength * share)
        cells = F.avg_pool2d(votes, self.patch_size)  # (N, bins, h, w)
        around = F.unfold(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3)  # (N, 9 * bins, h*w)
        return F.normalize(around.unflatten(-1, cells.shape[-2:]), dim=1)
