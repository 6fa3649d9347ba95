"""Frames and masks to what is remembered of objects at every place; the sensory memory's deep update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vosssl.layers.convolution import inference_layout
from vosssl.methods.cutie.layers import (
    FeatureFusion,
    SensoryTransform,
    add_shared,
    chosen,
    chunks,
    joined,
    others,
)
from vosssl.methods.cutie.pixel_encoder import FrozenNormResNet


class MaskEncoder(FrozenNormResNet):
    """A ResNet-18 that reads the frame, an object's mask and the masks of all others.

    Args:
        width: channels of the frame's features and of the values.
        sensory_width: channels of the sensory memory.
        single_object: read no masks of others: pre-training on one object.
        blocks: in each of the three stages; None: 2, 2, 2.
        backbone_width: channels of the first stage.
        first_stride, pool: see `FrozenNormResNet`.
        train_norms: see `FrozenNormResNet`.
    """

    def __init__(
        self,
        *,
        width: int,
        sensory_width: int,
        single_object: bool = False,
        blocks: Sequence[int] | None = None,
        backbone_width: int = 64,
        first_stride: int = 2,
        pool: bool = True,
        train_norms: bool = False,
    ) -> None:
        super().__init__(
            "resnet18",
            blocks=blocks,
            width=backbone_width,
            first_stride=first_stride,
            pool=pool,
            in_channels=4 if single_object else 5,
            train_norms=train_norms,
        )
        self.single_object = single_object
        self.fuser = FeatureFusion(width, self.channels, width)
        self.sensory_update = SensoryTransform(width, sensory_width)

    def encode(
        self,
        images: Tensor,
        features: Tensor,
        masks: Tensor,
        sensory: Tensor,
        *,
        deep_update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Values of all objects, and their sensory memory.

        Args:
            images: (B, 3, H, W), normalised.
            features: (B, width, h, w) of the frame.
            masks: (B, N, H, W) in [0, 1].
            sensory: (B, N, S, h, w).
            deep_update: whether the values change the sensory memory.
            chunk_size: at most so many objects at once; changes nothing but memory.

        Returns:
            (B, N, width, h, w) values, and the sensory memory.
        """
        seen = masks.unsqueeze(2) if self.single_object else torch.stack([masks, others(masks)], dim=2)
        image_part = self._convolve_image(images)
        shared = self.fuser.project_shared(features)
        values, updated = [], []
        for part in chunks(masks.shape[1], chunk_size):
            maps = self.trunk(image_part, chosen(seen, part))
            value = self.fuser(shared, maps)
            if deep_update:
                new = self.sensory_update.updated(value, chosen(sensory, part))
                updated.append(new.unflatten(0, (len(masks), -1)))
            values.append(value.unflatten(0, (len(masks), -1)))  # (B*n, C, h, w) -> (B, n, C, h, w)
        return joined(values), joined(updated) if deep_update else sensory

    def trunk(self, image_part: Tensor, masks: Tensor) -> Tensor:
        """The residual network's last map; the picture's part of its first convolution serves all objects.

        Args:
            image_part: (B, backbone_width, H/2, W/2) of the picture.
            masks: (B*N, 1 or 2, H, W) of objects and of their others.

        Returns:
            (B*N, channels, h, w).
        """
        first = self.conv1.part(inference_layout(masks), slice(3, None), bias=False)
        return self.pyramid_behind(add_shared(first, image_part))[-1]

    def _convolve_image(self, images: Tensor) -> Tensor:
        return self.conv1.part(inference_layout(images), slice(0, 3), bias=True)
