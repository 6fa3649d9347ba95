"""Supervised segmentation into classes: what every such network learns by, and how it segments video.

The convention is that of `losses.segmentation`: with two classes any object is foreground, with more the ids
are classes; void teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.losses.segmentation import class_labels, cross_entropy, dice, focal, iou
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.resize import Size, resize_masks
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

_LOSSES = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice, "iou": iou}


class ClassNetwork(Protocol):
    """A network of classes: called with normalised clips (B, T, 3, H, W) it gives logits (B, T, C, h, w).

    Attributes:
        num_classes: C, with the background.
        window: how many frames it looks at together, the newest last.
    """

    num_classes: int
    window: int

    def frame_features(self, images: Tensor) -> Any:
        """Whatever it keeps of normalised frames (N, 3, H, W)."""

    def newest_logits(self, past: Sequence[Any]) -> Tensor:
        """(N, C, h, w) logits of the newest of at most `window` frames, from their features."""


def normalised(frames: Tensor) -> Tensor:
    """Frames (..., 3, H, W), uint8 or in [0, 1], as pretrained backbones want them."""
    images = as_float(frames)
    mean, std = (images.new_tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


class ClassObjective:
    """Weighted losses between a class network's logits and the labels, at the size of the labels.

    Args:
        cross_entropy: weight of the cross-entropy; 0 leaves a term out, here and below.
        focal: weight of the focal loss.
        dice: weight of the soft Dice loss.
        iou: weight of the soft IoU loss.
        gamma: of the focal loss.

    Raises:
        ValueError: no term is left, or a negative weight.
    """

    needs_labels = True

    def __init__(
        self,
        *,
        cross_entropy: float = 1.0,
        focal: float = 0.0,
        dice: float = 1.0,
        iou: float = 0.0,
        gamma: float = 2.0,
    ) -> None:
        weights = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice, "iou": iou}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights of the losses are {weights}, expected none below 0 and one above")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.gamma = gamma

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch.

        Raises:
            ValueError: clips without labels, or labels with more classes than the network has.
        """
        if batch.labels is None:
            raise ValueError(
                f"clips {', '.join(batch.names[:3])} have no labels, and this method learns from them; "
                "choose data with labels, and name them for training: data.train.annotations=…"
            )
        logits = network(normalised(batch.frames)).flatten(0, 1)  # (B, T, C, h, w) -> (B*T, C, h, w)
        labels = batch.labels.flatten(0, 1)  # (B, T, H, W) -> (B*T, H, W)
        classes = class_labels(labels, logits.shape[1])
        logits = resize_masks(logits.float(), (labels.shape[-2], labels.shape[-1]))
        terms = {}
        for name, weight in self.weights.items():
            options = {"gamma": self.gamma} if name == "focal" else {}
            terms[name] = weight * _LOSSES[name](logits, classes, **options)
        return terms


class ClassSegmenter(VideoSegmenter):
    """A class network over a video, online: the ids are classes, no prompt is needed or taken.

    Args:
        network: see ClassNetwork; it is used as it is, in whatever mode.
        size: of the network's frames: None, shorter side, or (height, width).
        stride: frames are padded to a multiple of this many pixels.
        device: None for the network's own.
    """

    discovers = True
    prompt_kinds = ()

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int | Size | None = None,
        stride: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        if device is None:
            device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        super().__init__(size=size, stride=stride, pad_colour=IMAGENET_MEAN, device=device)
        classes: Any = network  # a ClassNetwork
        self.network = classes
        self.num_classes: int = classes.num_classes
        self.forget()

    def forget(self) -> None:
        self._past: list[Any] = []  # features of the last frames, oldest first

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        features = self.network.frame_features(normalised(frame)[None])  # of (1, 3, h, w)
        self._past = [*self._past, features][-self.network.window :]
        self.object_ids = tuple(range(1, self.num_classes))
        logits: Tensor = self.network.newest_logits(self._past)[0].float()  # (C, h', w')
        return resize_masks(logits, (frame.shape[-2], frame.shape[-1])).softmax(dim=0)
