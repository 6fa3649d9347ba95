"""Residual networks with torchvision's names, as maps of features: no pooling, no classifier.

CRW needs strides of 1 in the last stages and reflected borders; STCN and Cutie the maps of the first three
stages, and masks beside the picture's channels; others take the plain network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.layers.convolution import Border, Convolution


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        channels: of the input.
        width: of the output.
        stride: of the first convolution.
        border: what convolutions see outside the picture.
        bias: whether convolutions have one.
    """

    expansion = 1

    def __init__(
        self, channels: int, width: int, *, stride: int = 1, border: Border = "zeros", bias: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, width, 3, stride=stride, border=border, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Convolution(width, width, 3, border=border, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsampling(channels, width, stride, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, width, H / stride, W / stride)."""
        inner = self.conv1.normalised(images, self.bn1).relu_()
        inner = self.conv2.normalised(inner, self.bn2)
        return inner.add_(_shortcut(images, self.downsample)).relu_()


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, and a shortcut; four times as wide outside as inside.

    Args: see `BasicBlock`; the stride is that of the 3x3 convolution, as in torchvision.
    """

    expansion = 4

    def __init__(
        self, channels: int, width: int, *, stride: int = 1, border: Border = "zeros", bias: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, width, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Convolution(width, width, 3, stride=stride, border=border, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Convolution(width, 4 * width, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _downsampling(channels, 4 * width, stride, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, 4 * width, H / stride, W / stride)."""
        inner = self.conv1.normalised(images, self.bn1).relu_()
        inner = self.conv2.normalised(inner, self.bn2).relu_()
        inner = self.conv3.normalised(inner, self.bn3)
        return inner.add_(_shortcut(images, self.downsample)).relu_()


class ResNet(nn.Module):
    """A residual network up to its last map; loads torchvision's checkpoints.

    Args:
        block: what stages are made of.
        blocks: how many blocks each stage has; fewer than four leave the last stages out.
        strides: of the stages' first blocks.
        width: channels of the first stage; each further stage has twice as many.
        first_stride: of the first convolution.
        first_side: of its kernel.
        pool: whether the max-pooling after it (stride 2) is there.
        border: what convolutions see outside the picture.
        in_channels: of the input: RGB, and masks behind it.
        bias: whether convolutions have one.
        first_stage: name of the first stage in the state dict; the others are layer2, layer3, ...

    Attributes:
        channels: of the map.
        widths: channels of every stage's map.
        stride: pixels from one place of the map to the next.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, tables 1 and 5.
    """

    omitted_keys = ("fc.weight", "fc.bias")

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        blocks: Sequence[int] = (2, 2, 2, 2),
        strides: Sequence[int] = (1, 2, 2, 2),
        width: int = 64,
        first_stride: int = 2,
        first_side: int = 7,
        pool: bool = True,
        border: Border = "zeros",
        in_channels: int = 3,
        bias: bool = False,
        first_stage: str = "layer1",
    ) -> None:
        super().__init__()
        if not 1 <= len(blocks) <= 4 or len(strides) < len(blocks):
            raise ValueError(
                f"blocks are {tuple(blocks)} and strides {tuple(strides)}, expected one to four stages and a "
                "stride for each"
            )
        self.conv1 = Convolution(
            in_channels, width, first_side, stride=first_stride, border=border, bias=bias
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        self.stride = first_stride * (2 if pool else 1)
        channels = width
        self.stages: list[str] = []
        self.widths: list[int] = []
        for number, (count, stride) in enumerate(zip(blocks, strides, strict=False), start=1):
            inner = width * 2 ** (number - 1)
            stage = nn.Sequential()
            for index in range(count):
                first = stride if index == 0 else 1
                stage.append(block(channels, inner, stride=first, border=border, bias=bias))
                channels = inner * block.expansion
            self.stages.append(first_stage if number == 1 else f"layer{number}")
            self.add_module(self.stages[-1], stage)
            self.widths.append(channels)
            self.stride *= stride
        self.channels = channels
        self._initialise()

    def _initialise(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def adapted_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Weights of a whole network of torchvision's, for one with fewer stages that may read masks, too.

        Further input channels begin orthogonal, further biases and other parts as they are.

        Args:
            state: the entries of a checkpoint.

        Returns:
            What to load, to be matched strictly; any other checkpoint as it is.

        Source: the initialisation of STM, STCN, XMem and Cutie.
        """
        own = self.state_dict()
        if "layer4.0.conv1.weight" not in state or own.keys() <= state.keys():
            return state
        first = f"{self.stages[0]}."
        renamed = {
            key.replace("layer1.", first) if key.startswith("layer1.") else key: state[key] for key in state
        }
        adapted = {key: value for key, value in renamed.items() if key in own}
        trunk = ("conv1.", "bn1.", *(f"{stage}." for stage in self.stages))
        biases = {f"{name}.bias" for name, part in self.named_modules() if isinstance(part, nn.Conv2d)}
        counters = {key for key in own if key.endswith("num_batches_tracked")}  # files of 2017 have none
        kept = {key for key in own if key in biases or not key.startswith(trunk)} | counters - adapted.keys()
        adapted |= {key: own[key] for key in kept}
        extra = self.conv1.in_channels - adapted["conv1.weight"].shape[1]
        if extra > 0:
            masks = torch.empty_like(own["conv1.weight"][:, :extra])
            nn.init.orthogonal_(masks)
            adapted["conv1.weight"] = torch.cat([adapted["conv1.weight"].to(masks), masks], dim=1)
        return adapted

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: (N, in_channels, H, W), normalised.

        Returns:
            (N, channels, h, w), h = ceil(H / stride).
        """
        return self.pyramid(images)[-1]

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of every stage, the finest first.

        Args:
            images: (N, in_channels, H, W), normalised.

        Returns:
            (N, widths[i], h_i, w_i) each.
        """
        return self.pyramid_behind(self.conv1(images))

    def pyramid_behind(self, first: Tensor) -> tuple[Tensor, ...]:
        """The maps of every stage, from what the first convolution gave.

        For callers that compute a part of it for several inputs at once.

        Args:
            first: (N, width, H / first_stride, W / first_stride).

        Returns:
            As `pyramid`.
        """
        features = self.maxpool(self.bn1(first)).relu_()  # a quarter of the places to rectify
        maps = []
        for name in self.stages:
            features = getattr(self, name)(features)
            maps.append(features)
        return tuple(maps)


def resnet18(
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
    stages: int = 4,
    blocks: int = 2,
    width: int = 64,
    first_stride: int = 2,
    first_side: int = 7,
    pool: bool = True,
    border: Border = "zeros",
) -> ResNet:
    """ResNet-18 without its classifier; `stages` counts those that are there, each of `blocks` blocks."""
    return ResNet(
        BasicBlock,
        blocks=(blocks,) * stages,
        strides=strides,
        width=width,
        first_stride=first_stride,
        first_side=first_side,
        pool=pool,
        border=border,
    )


def resnet50(
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
    stages: int = 4,
    border: Border = "zeros",
    first_stage: str = "layer1",
) -> ResNet:
    """ResNet-50 without its classifier, as `resnet18`."""
    return ResNet(
        Bottleneck, blocks=(3, 4, 6, 3)[:stages], strides=strides, border=border, first_stage=first_stage
    )


def _downsampling(channels: int, width: int, stride: int, *, bias: bool = False) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(Convolution(channels, width, 1, stride=stride, bias=bias), nn.BatchNorm2d(width))


def _shortcut(images: Tensor, downsample: nn.Sequential | None) -> Tensor:
    if downsample is None:
        return images
    convolution, norm = downsample
    assert isinstance(convolution, Convolution) and isinstance(norm, nn.BatchNorm2d)
    return convolution.normalised(images, norm)
