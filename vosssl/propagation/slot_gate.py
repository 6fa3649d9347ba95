"""Slot-gated label propagation: patches copy labels only from patches that slots take for the same thing.

An affinity is multiplied by the probability that both patches belong to one slot, so that two objects that
look alike do not exchange labels as long as slots keep them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vosssl.backbones.weights import load_weights
from vosssl.layers.slot_network import SlotNetwork
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD
from vosssl.ops.resize import Size
from vosssl.propagation.label_propagation import (
    Attend,
    FeatureMap,
    LabelPropagation,
    channel_map,
    patch_tokens,
)
from vosssl.propagation.slot_tracking import Output, SlotTracker


class SlotGate:
    """Slot posteriors of one frame after the other, from recurrent slots: the `gate` of `LabelPropagation`.

    Args:
        tracker: discovers objects; it is given every frame of the video, in order.

    Raises:
        ValueError: slots that cannot start without hints.
    """

    def __init__(self, tracker: SlotTracker) -> None:
        if tracker.needs_prompt:
            raise ValueError(
                f"a gate needs slots that start by themselves, {type(tracker.network).__name__} starts "
                "from the first frame's labels"
            )
        self.tracker = tracker

    def reset(self) -> None:
        """Makes the slots ready for another video."""
        self.tracker.reset()

    def __call__(self, frame: Tensor) -> Tensor:
        """(K, h, w) posteriors, summing to 1 over K, of the next frame (3, H, W) in [0, 1]."""
        self.tracker.step(frame)
        return self.tracker.masks


def slot_gated_propagation(
    network: SlotNetwork,
    *,
    backbone: nn.Module | None = None,
    backbone_weights: str | Path | None = None,
    gate_strength: float = 0.5,
    output: Output = "attention",
    slot_size: int | Size | None = 64,
    num_slots: int | None = None,
    size: int | Size | None = 64,
    multiple: int = 2,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    radius: float = 12,
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """Label propagation with the features under our slots, or a ViT's, gated by the slots.

    Args:
        network: the slots.
        backbone: a ViT that gives the features instead (`size` and `multiple` are then its).
        backbone_weights: of it; a known name or a path. None: as it is.
        gate_strength: exponent of the agreement; 0 switches the gate off, 1 trusts the slots as they are.
        output: which masks of the slots.
        slot_size: of the slots' frames.
        num_slots: None for the network's own number.
        size: see `LabelPropagation`.
        multiple: likewise.
        context: see `Attend`; and so on.
        top_k: likewise.
        temperature: likewise.
        radius: likewise.
        device: None for the network's own.

    Returns:
        The segmenter.
    """
    features: nn.Module
    feature_map: FeatureMap = channel_map
    mean: Sequence[float] | None = None
    if backbone is None:
        features = motion_embedding(network)
    else:
        if backbone_weights is not None:
            load_weights(backbone, backbone_weights)
        weight = next(network.parameters(), torch.empty(0))
        features = backbone.to(weight.device).eval().requires_grad_(False)
        feature_map, mean = patch_tokens, IMAGENET_MEAN
    tracker = SlotTracker(network, output=output, num_slots=num_slots, size=slot_size, device=device)
    return LabelPropagation(
        features,
        feature_map=feature_map,
        attend=Attend(
            context=context,
            top_k=top_k,
            temperature=temperature,
            radius=radius,
            shape="circle",
            gate_strength=gate_strength,
        ),
        size=size,
        multiple=multiple,
        mean=mean,
        std=IMAGENET_STD,
        gate=SlotGate(tracker) if gate_strength else None,
        device=device,
    )


def motion_embedding(network: nn.Module) -> nn.Module:
    """The features under a slot network that embeds frames as a map.

    Raises:
        ValueError: a slot network over something else, such as a ViT.
    """
    embedding = getattr(getattr(network, "encoder", None), "embedding", None)
    if not isinstance(embedding, nn.Module):
        raise ValueError(
            f"{type(network).__name__} has no embedding of its own to propagate with; pass a backbone"
        )
    return embedding
