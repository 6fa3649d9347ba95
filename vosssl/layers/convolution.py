"""Convolutions that take faster ways where nothing is learnt: on a CPU, in float32."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.ops.winograd import convolve, transformed_kernels

Border = Literal["zeros", "reflect"]
WIDE = 64  # channels of input and output from which fewer multiplications pay
LARGE = 512  # places of a map likewise


def inference_layout(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W) in `torch.channels_last` where nothing is learnt: convolutions are a tenth faster.

    Not where gradients are: PyTorch 2.15 corrupts memory in the backward pass on a CPU.
    """
    return maps if torch.is_grad_enabled() else maps.contiguous(memory_format=torch.channels_last)


class _Prepared(NamedTuple):
    """Weights as inference wants them.

    Attributes:
        seen: which tensors they were made of, and their versions.
        weight: as the layer's; None where there are kernels instead.
        bias: (O,) or None.
        kernels: (36, C, O) for 3x3 layers with fewer multiplications, made when they are first needed.
    """

    seen: tuple[tuple[int, int], ...]
    weight: Tensor | None
    bias: Tensor | None
    kernels: Tensor | None


class Convolution(nn.Conv2d):
    """`nn.Conv2d` that keeps the size at stride 1, and is faster in inference on a CPU.

    There wide 3x3 layers keep their weights in transformed form, four times their size, and layers before a
    batch norm have its scale in theirs, from the first call on until `train` or `eval` is called or the
    weights change.

    Args:
        channels: of the input.
        width: of the output.
        side: of the kernel, an odd number.
        stride: from one place to the next.
        border: what it sees outside the picture: zeros or reflect.
        bias: whether there is one.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        side: int = 3,
        *,
        stride: int = 1,
        border: Border = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__(
            channels, width, side, stride=stride, padding=side // 2, padding_mode=border, bias=bias
        )
        self._prepared: _Prepared | None = None

    def train(self, mode: bool = True) -> Convolution:
        """As every module's; forgets what was prepared."""
        self._prepared = None
        return super().train(mode)

    def forward(self, maps: Tensor, *, rectified: bool = False) -> Tensor:
        """(N, channels, H, W) to (N, width, H / stride, W / stride); `rectified`: behind a ReLU."""
        return self.part(maps, slice(None), bias=True, rectified=rectified)

    def normalised(self, maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """Followed by a batch norm."""
        if not self._is_frozen(maps) or norm.training or not norm.track_running_stats:
            return norm(self(maps))
        if self._saves_multiplications(maps):
            kernels = self._kernels(norm)
            assert self._prepared is not None
            return convolve(maps, kernels, self._prepared.bias)
        prepared = self._folded(norm)
        weight = prepared.weight
        if weight is None:  # small maps behind large ones
            weight, _ = _with_norm(self.weight, self.bias, norm)
        return self._conv_forward(maps, weight, prepared.bias)

    def part(self, maps: Tensor, channels: slice, *, bias: bool, rectified: bool = False) -> Tensor:
        """What some input channels contribute.

        Args:
            maps: (N, c, H, W), the channels that are there.
            channels: which of all they are.
            bias: whether the bias is added; of all parts it belongs to one.
            rectified: behind a ReLU.

        Returns:
            As `forward`.
        """
        offset = self.bias if bias else None
        if not self._saves_multiplications(maps):
            maps = maps.relu() if rectified else maps
            one = self.out_channels == 1 and self._keeps_size() and self._is_frozen(maps)
            direct = _one_map if one else self._conv_forward
            return direct(maps, self.weight[:, channels], offset)
        return convolve(maps, self._kernels()[:, channels], offset, rectified=rectified)

    def _kernels(self, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Transformed weights, made anew where something changed."""
        prepared = self._folded(norm)
        if prepared.kernels is None:
            assert prepared.weight is not None
            prepared = prepared._replace(kernels=transformed_kernels(prepared.weight), weight=None)
            self._prepared = prepared
        assert prepared.kernels is not None
        return prepared.kernels

    def _folded(self, norm: nn.BatchNorm2d | None) -> _Prepared:
        """Weights and bias with the norm's scale and shift in them."""
        made_of = [self.weight, self.bias]
        if norm is not None:
            made_of += [norm.running_mean, norm.running_var, norm.weight, norm.bias]
        seen = tuple((tensor.data_ptr(), tensor._version) for tensor in made_of if tensor is not None)
        if self._prepared is None or self._prepared.seen != seen:
            own = (self.weight, self.bias) if norm is None else _with_norm(self.weight, self.bias, norm)
            self._prepared = _Prepared(seen, *own, None)
        return self._prepared

    def _is_frozen(self, maps: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and maps.device.type == "cpu"
            and maps.dtype == self.weight.dtype == torch.float32
            and not self.weight.is_inference()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def _keeps_size(self) -> bool:
        return self.kernel_size == (3, 3) and self.stride == (1, 1) and self.padding_mode == "zeros"

    def _saves_multiplications(self, maps: Tensor) -> bool:
        return (
            self._keeps_size()
            and min(maps.shape[1], self.out_channels) >= WIDE
            and maps.shape[-2] * maps.shape[-1] >= LARGE
            and self._is_frozen(maps)
        )


def _one_map(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution to a single channel: one product for each tap, then their shifted sum.

    Args:
        maps: (N, C, H, W).
        weight: (1, C, 3, 3).
        bias: (1,) or None.

    Returns:
        (N, 1, H, W).
    """
    taps = weight[0].flip(1, 2).flatten(1).T  # (C, 3, 3) -> (9, C)
    products = torch.stack(
        [taps @ picture.permute(1, 2, 0).flatten(0, 1).T for picture in maps]
    )  # (N, 9, H * W)
    summed = F.fold(products, (maps.shape[-2], maps.shape[-1]), 3, padding=1)
    return summed if bias is None else summed + bias


def _with_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A layer's weights (O, C, k, k) and bias (O,) so that the norm behind it has nothing left to do."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean
    shift = shift * scale + (norm.bias if norm.affine else 0)
    return (weight * scale[:, None, None, None]).float(), shift.float()
