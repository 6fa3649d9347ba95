"""Networks of classes (ViT-Seg, SegFormer) as graphs: `features` of a frame, and what classifies them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.propagation.class_segmentation import normalised
from vosssl.propagation.graph_folder import PLANE, Example, Export, ExportedNetwork, Graph, random_frames


def class_export(network: nn.Module, segmenter: Any, examples: Sequence[Example]) -> Export:
    """Graphs of a `ClassNetwork`.

    Args:
        network: in evaluation mode.
        segmenter: its `ClassSegmenter`.
        examples: sizes of frames as the network gets them.

    Returns:
        `features`: image (1, 3, H, W), normalised, to maps. `head1`, `head2`, …: maps of so many frames, the
        newest last, to its logits (1, C, h, w).
    """
    classes: Any = network
    images = [{"image": normalised(frame)} for frame in random_frames(examples)]
    with torch.no_grad():
        kind = type(classes.frame_features(images[0]["image"]))
        maps = [_features(network, one["image"]) for one in images]
    names = [f"map{index}" for index in range(len(maps[0]))]
    graphs = [Graph("features", network, _features, images, tuple(names), {"image": PLANE})]
    for length in range(1, classes.window + 1):
        free = {
            f"{name}_{time}": {2: f"{name}_h", 3: f"{name}_w"} for time in range(length) for name in names
        }
        inputs = [
            dict(zip(free, (part.roll(time, dims=-1) for time in range(length) for part in one), strict=True))
            for one in maps
        ]  # each frame another: one tensor in two places would become one input of the graph
        function = partial(_logits, kind=kind)
        graphs.append(Graph(f"head{length}", network, function, inputs, ("logits",), free))
    return Export(
        graphs,
        {
            "_target_": "vosssl.methods.exported.classes.ExportedClasses",
            "num_classes": int(classes.num_classes),
            "window": int(classes.window),
        },
        "image: RGB in [0, 1], minus IMAGENET_MEAN, divided by IMAGENET_STD of vosssl.ops.images",
    )


def _features(network: Any, image: Tensor) -> tuple[Tensor, ...]:
    features = network.frame_features(image)
    if hasattr(features, "grid"):  # tokens, whose number alone does not tell their grid
        return (features.patches.transpose(1, 2).unflatten(-1, features.grid),)  # (N, P, D) -> (N, D, h, w)
    return tuple(features)


def _logits(network: Any, *maps: Tensor, kind: Any) -> Tensor:
    frames: list[Any] = [maps]  # a network of several maps looks at one frame
    if hasattr(kind, "grid"):
        frames = [kind(one.flatten(2).transpose(1, 2), (one.shape[-2], one.shape[-1])) for one in maps]
    logits: Tensor = network.newest_logits(frames)
    return logits


class ExportedClasses(ExportedNetwork):
    """A `ClassNetwork` of graphs.

    Args:
        num_classes: C, with the background.
        window: how many frames it looks at together.
    """

    def __init__(self, *, num_classes: int, window: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.window = window

    def frame_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of normalised frames (1, 3, H, W)."""
        return self.graphs("features", image=images)

    def newest_logits(self, past: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """(1, C, h, w) logits of the newest of some frames' maps, oldest first."""
        named = {f"map{index}_{time}": own for time, one in enumerate(past) for index, own in enumerate(one)}
        return self.graphs(f"head{len(past)}", **named)[0]
