"""SAM 2's image encoder: Hiera and a neck that brings its stages to one width.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4 and appendix D.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.backbones.hiera import Hiera


class LateralConvolution(nn.Module):
    """A 1 x 1 convolution under the name `conv`."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width_in, h, w) to (N, width, h, w)."""
        return self.conv(maps)


class Neck(nn.Module):
    """Stages at strides 4, 8, 16, 32 to maps of one width at 4, 8, 16; only the two coarsest are summed.

    Args:
        widths: of the stages, the finest first.
        width: of the maps.
    """

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(LateralConvolution(stage, width) for stage in reversed(widths))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Four (N, D_i, h_i, w_i), the finest first, to (N, width, h_i, w_i) of the first three."""
        fine, middle = self.convs[-1](levels[0]), self.convs[-2](levels[1])
        return fine, middle, self.coarse(levels)

    def coarse(self, levels: Sequence[Tensor]) -> Tensor:
        """The map at stride 16 alone, as in `forward`."""
        wider = F.interpolate(self.convs[0](levels[3]), scale_factor=2.0, mode="nearest")
        return self.convs[1](levels[2]) + wider

    def skip(self, levels: Sequence[Tensor], index: int, projection: nn.Conv2d) -> Tensor:
        """`projection`, 1 x 1, of the map `index` (0 or 1) of `forward`, without computing that map.

        Both are linear and nothing is between them: one convolution with the product of their weights.
        """
        lateral = cast(LateralConvolution, self.convs[-1 - index]).conv
        assert lateral.bias is not None and projection.bias is not None
        weight = projection.weight.flatten(1) @ lateral.weight.flatten(1)  # (E, C) @ (C, D) -> (E, D)
        bias = projection.weight.flatten(1) @ lateral.bias + projection.bias
        return F.conv2d(levels[index], weight[..., None, None], bias)


class ImageEncoder(nn.Module):
    """Trunk and neck, under the names of the official checkpoints.

    Args:
        trunk: four stages.
        width: of the maps.
    """

    def __init__(self, trunk: Hiera, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = Neck(trunk.widths, width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W), normalised, to (N, width, h, w) at strides 4, 8 and 16."""
        return self.neck(self.trunk(images))
