"""Convolutions over features of objects and of the frame they are in: the frame's part is computed once.

A convolution of concatenated channels is the sum of what each of them contributes. Where N objects share a
frame, its channels are convolved once and added to each object's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.convolution import Convolution3x3


def part_of(convolution: nn.Conv2d, maps: Tensor, channels: slice, *, bias: bool) -> Tensor:
    """What some input channels of a convolution contribute to what it gives.

    Args:
        convolution: of C input channels.
        maps: (N, c, H, W), the channels that are there.
        channels: which of the C they are.
        bias: whether the convolution's bias is added; of all parts it belongs to one.

    Returns:
        (N, C', H', W').
    """
    if isinstance(convolution, Convolution3x3):
        return convolution.part(maps, channels, bias=bias)
    weight = convolution.weight[:, channels]
    return F.conv2d(maps, weight, convolution.bias if bias else None, convolution.stride, convolution.padding)


def joined(objects: Tensor, frame: Tensor) -> Tensor:
    """(B * N, C, h, w) of objects plus (B, C, h, w) of their frames."""
    if len(frame) == 1:  # keeps the layout, which is faster by half than five axes
        return objects + frame
    return (objects.unflatten(0, (len(frame), -1)) + frame[:, None]).flatten(0, 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind ReLUs, and a shortcut: a 3x3 convolution where the width changes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.downsample = None if channels == width else Convolution3x3(channels, width)
        self.conv1 = Convolution3x3(channels, width)
        self.conv2 = Convolution3x3(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) to (N, width, h, w)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return self.conv2(self.conv1(maps.relu()).relu_()) + shortcut

    def of_frame(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the last channels (B, c, h, w), which all objects of a frame share."""
        assert self.downsample is not None, "blocks that join objects and frames change the width"
        last = slice(self.conv1.in_channels - shared.shape[1], None)
        inner = part_of(self.conv1, shared.relu(), last, bias=False)
        return inner, part_of(self.downsample, shared, last, bias=False)

    def of_objects(self, own: Tensor, frame: tuple[Tensor, Tensor]) -> Tensor:
        """The whole block from the first channels.

        Args:
            own: (B * N, C - c, h, w).
            frame: of `of_frame`.

        Returns:
            (B * N, width, h, w).
        """
        assert self.downsample is not None
        first = slice(0, own.shape[1])
        shortcut = joined(part_of(self.downsample, own, first, bias=True), frame[1])
        inner = joined(part_of(self.conv1, own.relu(), first, bias=True), frame[0])
        return self.conv2(inner.relu_()) + shortcut
