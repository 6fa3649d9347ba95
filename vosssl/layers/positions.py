"""Where a patch is: coordinate and learned position embeddings on grids of any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.mlp import zero_bias


def coordinate_grid(height: int, width: int) -> Tensor:
    """Rows and columns from -1 to 1, (2, height, width), row first."""
    rows, columns = torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def resize_positions(embedding: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """A learned position embedding on another grid: bicubic, antialiased, by size (as timm does it).

    Args:
        embedding: (1, P, D), row-major over `source`.
        source: (h, w) with h * w = P.
        target: (h', w').

    Returns:
        (1, h' * w', D); the embedding itself when the grids are equal.
    """
    if source == target:
        return embedding
    image = embedding.float().unflatten(1, source).permute(0, 3, 1, 2)  # (1, P, D) -> (1, D, h, w)
    image = F.interpolate(image, size=target, mode="bicubic", antialias=True, align_corners=False)
    return image.flatten(2).transpose(1, 2).to(embedding.dtype)  # (1, D, h', w') -> (1, h' w', D)


def patch_grid(patches: int, height: int, width: int) -> tuple[int, int]:
    """The grid of a number of patches from the aspect ratio of the image.

    Args:
        patches: P.
        height: image height in pixels (only the ratio counts).
        width: image width in pixels.

    Returns:
        (h, w) with h * w = P.

    Raises:
        ValueError: no such grid.
    """
    guess = round((patches * height / width) ** 0.5)
    for rows in (guess, guess - 1, guess + 1):
        if rows > 0 and patches % rows == 0:
            return rows, patches // rows
    raise ValueError(f"{patches} patches do not fill a grid of the shape of a {height} x {width} image")


class CoordinatePositions(nn.Module):
    """Adds a linear map of the coordinates to a feature map.

    Args:
        dim: channels of the feature map.
        size: (h, w) of the grid kept with the weights; other sizes get their own coordinates.

    Source: Locatello et al., "Object-Centric Learning with Slot Attention", NeurIPS 2020, appendix E.2.
    """

    grid: Tensor

    def __init__(self, dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("grid", coordinate_grid(*size))
        self.proj = nn.Conv2d(2, dim, kernel_size=1)
        nn.init.xavier_uniform_(self.proj.weight)
        zero_bias(self.proj)

    def forward(self, features: Tensor) -> Tensor:
        """(N, dim, h, w) -> (N, dim, h, w)."""
        height, width = features.shape[-2:]
        grid = self.grid
        if (height, width) != tuple(grid.shape[-2:]):
            grid = coordinate_grid(height, width).to(grid)
        return features + self.proj(grid[None])
