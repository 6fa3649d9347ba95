"""InspectedClip: everything about one clip that is worth looking at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class InspectedClip:
    """A clip with what a model made of it.

    Attributes:
        name: name of the clip.
        frames: (T, 3, H, W) RGB uint8.
        predicted: (T, H, W) uint8 ids. In discovery slot k writes id k + 1.
        truth: (T, H, W) uint8 ids, 0 background, 255 void, or None.
        masks: (T, K, h, w) float, each slot's decoder mask, or None for a model without slots.
        attention: (T, K, h', w') float, each slot's attention, or None.
        frame_metrics: T values by the metric's name; NaN where a frame has none.
        metrics: the clip's values by the metric's name.
        labelled: (T,) bool, which frames have truth. None means all, when there is truth.
        slot_ids: the predicted id of each slot, whose colour it gets; 0 when it is known to be background.
            Left out, slot k has id k + 1.
        slot_names: what they are called where they are no slots but classes or objects that are followed:
            `masks` then are probabilities. Left out, they are slots.
        features: (T, 3, h, w) uint8, pictures of a model's features, or None.

    Raises:
        ValueError: when shapes or dtypes disagree; says which.
    """

    name: str
    frames: Tensor
    predicted: Tensor
    truth: Tensor | None = None
    masks: Tensor | None = None
    attention: Tensor | None = None
    frame_metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    labelled: Tensor | None = None
    slot_ids: Sequence[int] = ()
    slot_names: Sequence[str] = ()
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            self._refuse("frames", self.frames, "(T, 3, H, W) uint8")
        length, _, height, width = self.frames.shape
        if not length:
            self._refuse("frames", self.frames, "at least one frame")
        for name, labels in (("predicted", self.predicted), ("truth", self.truth)):
            if labels is None:
                continue
            if tuple(labels.shape) != (length, height, width) or labels.dtype != torch.uint8:
                self._refuse(name, labels, f"{(length, height, width)} uint8 like the frames")
        for name, masks in (("masks", self.masks), ("attention", self.attention)):
            if masks is not None and (masks.ndim != 4 or len(masks) != length or not masks.numel()):
                self._refuse(name, masks, f"({length}, K, h, w)")
        if self.attention is not None and (
            self.masks is None or self.attention.shape[1] != self.masks.shape[1]
        ):
            self._refuse("attention", self.attention, "as many slots as the masks")
        if self.labelled is not None and tuple(self.labelled.shape) != (length,):
            self._refuse("labelled", self.labelled, f"({length},)")
        features = self.features
        if features is not None and (features.shape[:2] != (length, 3) or features.dtype != torch.uint8):
            self._refuse("features", features, f"({length}, 3, h, w) uint8")
        for name, values in self.frame_metrics.items():
            if len(values) != length:
                raise ValueError(f"clip {self.name} has {len(values)} values of {name} for {length} frames")
        self._number_slots()

    def __len__(self) -> int:
        return self.frames.shape[0]

    def _number_slots(self) -> None:
        slots = 0 if self.masks is None else self.masks.shape[1]
        ids = tuple(self.slot_ids) or tuple(range(1, slots + 1))
        if len(ids) != slots or any(not 0 <= identity < 255 for identity in ids):
            raise ValueError(
                f"slot_ids of clip {self.name} are {ids}, expected {slots} ids from 0 to 254, one per slot"
            )
        if self.slot_names and len(self.slot_names) != slots:
            raise ValueError(f"clip {self.name} has {len(self.slot_names)} names for {slots} masks")
        object.__setattr__(self, "slot_ids", ids)

    def _refuse(self, what: str, tensor: Tensor, expected: str) -> None:
        raise ValueError(
            f"{what} of clip {self.name} is {tuple(tensor.shape)} {tensor.dtype}, expected {expected}"
        )
