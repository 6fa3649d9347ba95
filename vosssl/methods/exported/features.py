"""Backbones as one graph, `features`, for label propagation: ViTs, ResNets and our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.backbones.vit import Features
from vosssl.propagation.graph_folder import PLANE, Example, Export, ExportedNetwork, Graph, random_frames


def feature_export(network: nn.Module, segmenter: Any, examples: Sequence[Example]) -> Export:
    """The graph of a network from images to features.

    Args:
        network: in evaluation mode.
        segmenter: its `LabelPropagation`, which says how images are normalised.
        examples: sizes of images.

    Returns:
        `features`: image (1, 3, H, W) to `patches` (1, P, D), `cls` and `registers`, or to one `map`.
    """
    mean, std = segmenter.mean, segmenter.std
    frames = random_frames(examples)
    images = [{"image": frame if mean is None else (frame - mean.cpu()) / std.cpu()} for frame in frames]
    with torch.no_grad():
        first = network(images[0]["image"])
    tokens = isinstance(first, Features)
    outputs = ("patches", "cls", "registers") if tokens else ("map",)
    told = "RGB in [0, 1]"
    if mean is not None:
        told += f", minus {mean.flatten().tolist()}, divided by {std.flatten().tolist()}"
    return Export(
        [Graph("features", network, _computed, images, outputs, {"image": PLANE})],
        {
            "_target_": "vosssl.methods.exported.features.ExportedFeatures",
            "patch_size": int(network.patch_size) if tokens else None,  # type: ignore[arg-type]
        },
        f"image: {told}",
    )


def _computed(network: nn.Module, image: Tensor) -> Tensor | tuple[Tensor, ...]:
    features = network(image)
    return tuple(features) if isinstance(features, Features) else features


class ExportedFeatures(ExportedNetwork):
    """A backbone that is a graph.

    Args:
        patch_size: of a ViT, whose features are tokens; None: they are a map.
    """

    def __init__(self, *, patch_size: int | None = None) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Features | Tensor:
        """(1, 3, H, W), normalised, to tokens or a map (1, C, h, w)."""
        results = self.graphs("features", image=images)
        return results[0] if self.patch_size is None else Features(*results)
