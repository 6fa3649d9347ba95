"""Frame encoders of slot networks: what turns pixels into the patches that slots compete for."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vosssl.layers.mlp import MLP, zero_bias
from vosssl.layers.positions import CoordinatePositions
from vosssl.layers.slot_network import Encoded
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.resize import resize_image


class FrozenBackbone(nn.Module):
    """Keeps a backbone as it is: no gradient, evaluation mode, optionally in bfloat16.

    Args:
        model: with `dense(images, cls_attention=...)`, as `backbones.vit` has it.
        precision: `bf16` computes under autocast; the weights stay as they are.
    """

    def __init__(self, model: nn.Module, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.precision = precision

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, *, cls_attention: bool) -> Any:
        """Normalised images (N, 3, H, W) to what `model.dense` gives."""
        dense: Any = self.model.dense
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return dense(images, cls_attention=cls_attention)


class BackboneEncoder(nn.Module):
    """A frozen pretrained backbone and a trained head over its patches.

    The reconstruction target is the output of the last block before the final norm.

    Args:
        backbone: a ViT with `dense`; None when only cached features will be given.
        features_dim: width C of its patches.
        output_dim: width of what slot attention reads.
        hidden_dim: hidden width of the head; 2 C when left out.
        keys: whether the objective needs the keys of the last block.
        cls_attention: whether slot groups need the attention of the class token.
        precision: of the backbone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module | None,
        *,
        features_dim: int,
        output_dim: int,
        hidden_dim: int | None = None,
        keys: bool = False,
        cls_attention: bool = False,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.keys = keys
        self.cls_attention = cls_attention
        self.backbone = None if backbone is None else FrozenBackbone(backbone, precision=precision)
        hidden_dim = 2 * features_dim if hidden_dim is None else hidden_dim
        self.output_transform = MLP(features_dim, output_dim, hidden_dims=(hidden_dim,), layer_norm=True)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def head(self, features: Tensor) -> Tensor:
        """Backbone features (N, P, C) to what slot attention reads (N, P, D)."""
        return self.output_transform(features)

    def forward(self, frames: Tensor) -> Encoded:
        """Frames (N, 3, H, W) RGB, uint8 or in [0, 1].

        Raises:
            ValueError: built without a backbone.
        """
        if self.backbone is None:
            raise ValueError(
                "this encoder has no backbone; pass features= computed before, or build it with one"
            )
        images = (as_float(frames) - self.mean) / self.std
        dense = self.backbone(images, cls_attention=self.cls_attention)
        features = dense.patches.float()
        return Encoded(
            inputs=self.head(features),
            features=features,
            grid=dense.grid,
            keys=dense.keys.float() if self.keys else None,
            cls_attention=dense.cls_attention.float() if self.cls_attention else None,
        )


class CNNEncoder(nn.Module):
    """SAVi's encoder: four 5x5 convolutions trained from scratch, coordinates, and an MLP per position.

    The reconstruction target is the frames themselves.

    Args:
        output_dim: width of what slot attention reads; the convolutions' channels when left out.
        channels: channels of the convolutions: 32 for 64 px, 64 for 128 px.
        downsamplings: how many convolutions halve the resolution: 0 for 64 px, 1 for 128 px.
        size: (h, w) of the grid at the training resolution.
        hidden_dim: hidden width of the MLP; the channels when left out.

    Source: Kipf et al., SAVi, ICLR 2022, appendix A.
    """

    def __init__(
        self,
        *,
        output_dim: int | None = None,
        channels: int = 64,
        downsamplings: int = 1,
        size: tuple[int, int] = (64, 64),
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(4):
            convolution = nn.Conv2d(
                3 if index == 0 else channels,
                channels,
                kernel_size=5,
                stride=2 if index < downsamplings else 1,
                padding=2,
            )
            zero_bias(convolution)
            layers += [convolution, nn.ReLU(inplace=True)]
        self.backbone = nn.Sequential(*layers)
        self.pos_embed = CoordinatePositions(channels, (size[0], size[1]))
        self.output_transform = MLP(
            channels, output_dim or channels, hidden_dims=(hidden_dim or channels,), layer_norm=True
        )

    def head(self, features: Tensor) -> Tensor:
        """Convolutional features (N, C, h, w) to what slot attention reads (N, h*w, D)."""
        return self.output_transform(self.pos_embed(features).flatten(2).transpose(1, 2))

    def forward(self, frames: Tensor) -> Encoded:
        """Frames (N, 3, H, W) RGB, uint8 or in [0, 1]."""
        images = as_float(frames)
        features = self.backbone(images * 2 - 1)  # (N, 3, H, W) -> (N, C, h, w)
        return Encoded(
            inputs=self.head(features),
            features=images.flatten(2).transpose(1, 2),  # (N, 3, H, W) -> (N, H*W, 3)
            grid=(features.shape[-2], features.shape[-1]),
        )


def pixel_target(frames: Tensor, grid: tuple[int, int]) -> Tensor:
    """Frames (..., 3, H, W) as the target on a grid: (..., h*w, 3), antialiased when smaller."""
    return resize_image(as_float(frames), grid).flatten(-2).transpose(-1, -2)
