"""3x3 convolutions that take a faster way where nothing is learnt: wide maps on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.ops.winograd import convolve, transformed_kernels

WIDE = 128  # channels of input and output from which the faster way pays
LARGE = 512  # places of a map likewise


class Convolution3x3(nn.Conv2d):
    """`nn.Conv2d` of 3x3 with one zero around and stride 1, faster in inference on a CPU.

    There it keeps its weights in transformed form, four times their size, from the first call on until
    `train` or `eval` is called or the weights change.

    Args:
        channels: of the input.
        width: of the output.
        bias: whether there is one.
    """

    def __init__(self, channels: int, width: int, *, bias: bool = True) -> None:
        super().__init__(channels, width, 3, padding=1, bias=bias)
        self._kernels: Tensor | None = None
        self._seen = (-1, -1)

    def train(self, mode: bool = True) -> Convolution3x3:
        """As every module's; forgets the transformed weights."""
        self._kernels = None
        return super().train(mode)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, width, H, W)."""
        return self.part(maps, slice(None), bias=True)

    def part(self, maps: Tensor, channels: slice, *, bias: bool) -> Tensor:
        """What some input channels contribute.

        Args:
            maps: (N, c, H, W), the channels that are there.
            channels: which of all they are.
            bias: whether the bias is added; of all parts it belongs to one.

        Returns:
            (N, width, H, W).
        """
        offset = self.bias if bias else None
        if not self._has_faster_way(maps):
            return F.conv2d(maps, self.weight[:, channels], offset, padding=1)
        version = (self.weight.data_ptr(), self.weight._version)
        if self._kernels is None or self._seen != version:
            self._kernels, self._seen = transformed_kernels(self.weight), version
        return convolve(maps, self._kernels[:, channels], offset)

    def _has_faster_way(self, maps: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and maps.device.type == "cpu"
            and maps.dtype == self.weight.dtype == torch.float32
            and min(maps.shape[1], self.out_channels) >= WIDE
            and maps.shape[-2] * maps.shape[-1] >= LARGE
            and not self.weight.is_inference()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )
