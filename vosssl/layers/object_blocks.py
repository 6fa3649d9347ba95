"""Convolutions over features of objects and of the frame they are in: the frame's part is computed once.

A convolution of concatenated channels is the sum of what each of them contributes. Where N objects share a
frame, its channels are convolved once and added to each object's.
"""

from __future__ import annotations

from torch import Tensor, nn

from vosssl.layers.convolution import Convolution


def joined(objects: Tensor, frame: Tensor) -> Tensor:
    """(B * N, C, h, w) of objects plus (B, C, h, w) of their frames."""
    if len(frame) == 1:  # keeps the layout, which is faster by half than five axes
        return objects + frame
    return (objects.unflatten(0, (len(frame), -1)) + frame[:, None]).flatten(0, 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind ReLUs, and a shortcut: a 3x3 convolution where the width changes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.downsample = None if channels == width else Convolution(channels, width)
        self.conv1 = Convolution(channels, width)
        self.conv2 = Convolution(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, h, w) to (N, width, h, w)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return self.conv2(self.conv1(maps, rectified=True).relu_()) + shortcut

    def of_frame(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the last channels (B, c, h, w), which all objects of a frame share."""
        assert self.downsample is not None, "blocks that join objects and frames change the width"
        last = slice(self.conv1.in_channels - shared.shape[1], None)
        inner = self.conv1.part(shared, last, bias=False, rectified=True)
        return inner, self.downsample.part(shared, last, bias=False)

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
        shortcut = joined(self.downsample.part(own, first, bias=True), frame[1])
        inner = joined(self.conv1.part(own, first, bias=True, rectified=True), frame[0])
        return self.conv2(inner.relu_()) + shortcut
