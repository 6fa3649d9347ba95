"""Clip, the one data type that travels from files to networks to metrics, and its batched form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

VOID = 255  # label of pixels that no metric counts


class Frame(NamedTuple):
    """One frame of a video as it streams by.

    Attributes:
        name: the frame's name without folder and suffix, such as `00012`.
        image: (3, H, W) RGB uint8.
        labels: (H, W) uint8 ids (0 background, 1..254 objects, 255 void), or None where there is no truth.
    """

    name: str
    image: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Clip:
    """A piece of video with what is known about it.

    Attributes:
        name: name of the video (and piece) it comes from.
        frames: (T, 3, H, W) RGB, uint8 or float in [0, 1].
        labels: (T, H, W) uint8; 0 background, 1..254 object ids, 255 void. None when nothing is labelled.
        labelled: (T,) bool, which frames carry labels. None means all of them, when there are labels.
        frame_names: T names.
        flow: (T, 2, H, W) float, displacement (x, y) in pixels from each frame to the next; None if unknown.
        features: precomputed features by name, each (T, ...), when they were cached on disk.
        num_objects: where a clip is sampled for training on its labels: they hold 1..num_objects, all
            of which are seen in the first frame. None otherwise.

    Raises:
        ValueError: when shapes or dtypes disagree; says which.
    """

    name: str
    frames: Tensor
    labels: Tensor | None = None
    labelled: Tensor | None = None
    frame_names: tuple[str, ...] = ()
    flow: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
    num_objects: int | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3:
            raise ValueError(
                f"frames of clip {self.name} are {tuple(self.frames.shape)}, expected (T, 3, H, W)"
            )
        if self.frames.dtype != torch.uint8 and not self.frames.is_floating_point():
            raise ValueError(
                f"frames of clip {self.name} are {self.frames.dtype}, expected uint8 or float in [0, 1]"
            )
        length, _, height, width = self.frames.shape
        if self.labels is not None and tuple(self.labels.shape) != (length, height, width):
            raise ValueError(
                f"labels of clip {self.name} are {tuple(self.labels.shape)}, expected "
                f"{(length, height, width)} like its frames; pass ids, not one-hot"
            )
        if self.labels is not None and self.labels.dtype != torch.uint8:
            raise ValueError(f"labels of clip {self.name} are {self.labels.dtype}, expected uint8 ids")
        if self.labelled is not None and tuple(self.labelled.shape) != (length,):
            raise ValueError(
                f"labelled of clip {self.name} is {tuple(self.labelled.shape)}, expected ({length},)"
            )
        if self.frame_names and len(self.frame_names) != length:
            raise ValueError(f"clip {self.name} has {len(self.frame_names)} frame names for {length} frames")
        if self.flow is not None and tuple(self.flow.shape) != (length, 2, height, width):
            raise ValueError(
                f"flow of clip {self.name} is {tuple(self.flow.shape)}, expected {(length, 2, height, width)}"
            )
        for key, value in self.features.items():
            if value.ndim == 0 or value.shape[0] != length:
                raise ValueError(
                    f"features {key} of clip {self.name} are {tuple(value.shape)}, expected ({length}, ...)"
                )

    def __len__(self) -> int:
        return self.frames.shape[0]


@dataclass(frozen=True)
class Batch:
    """Clips of one length and size, stacked.

    Attributes:
        frames: (B, T, 3, H, W) uint8 or float in [0, 1].
        labels: (B, T, H, W) uint8 or None.
        flow: (B, T, 2, H, W) float pixels or None.
        names: B clip names.
        seeds: (B,) int64, one per sample: noise drawn for a sample depends on nothing else.
        features: precomputed features by name, each (B, T, ...), when they were cached instead of computed.
        num_objects: (B,) int64, objects of each clip (its labels hold 1..num_objects), or None.
    """

    frames: Tensor
    labels: Tensor | None = None
    flow: Tensor | None = None
    names: tuple[str, ...] = ()
    seeds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    features: dict[str, Tensor] = field(default_factory=dict)
    num_objects: Tensor | None = None

    def __len__(self) -> int:
        return self.frames.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Batch:
        """The batch on another device; seeds stay on the CPU, where noise is drawn."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        return Batch(
            frames=self.frames.to(device, non_blocking=non_blocking),
            labels=move(self.labels),
            flow=move(self.flow),
            names=self.names,
            seeds=self.seeds,
            features={
                key: value.to(device, non_blocking=non_blocking) for key, value in self.features.items()
            },
            num_objects=move(self.num_objects),
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, which copies to a GPU faster; DataLoader calls this."""

        def pin(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.pin_memory()

        return replace(
            self,
            frames=self.frames.pin_memory(),
            labels=pin(self.labels),
            flow=pin(self.flow),
            features={key: value.pin_memory() for key, value in self.features.items()},
            num_objects=pin(self.num_objects),
        )


def collate(clips: Sequence[Clip], *, seeds: Sequence[int] = ()) -> Batch:
    """Stacks clips of equal shape.

    Args:
        clips: B clips with the same T, H and W. Labels, flow, each of the features and the number
            of objects are kept when every clip has them.
        seeds: B sample seeds; zeros when left out.

    Returns:
        The batch.

    Raises:
        ValueError: no clip, or clips of different shapes (names them).
    """
    if not clips:
        raise ValueError("collate got no clips, expected at least one")
    shapes = {tuple(clip.frames.shape) for clip in clips}
    if len(shapes) > 1:
        listing = ", ".join(f"{clip.name} {tuple(clip.frames.shape)}" for clip in clips)
        raise ValueError(f"clips of one batch must have one shape, got {listing}; crop or resize them first")
    labels = [clip.labels for clip in clips if clip.labels is not None]
    flow = [clip.flow for clip in clips if clip.flow is not None]
    counts = [clip.num_objects for clip in clips if clip.num_objects is not None]
    shared = [key for key in clips[0].features if all(key in clip.features for clip in clips)]
    return Batch(
        frames=torch.stack([clip.frames for clip in clips]),  # B x (T, 3, H, W) -> (B, T, 3, H, W)
        labels=torch.stack(labels) if len(labels) == len(clips) else None,
        flow=torch.stack(flow) if len(flow) == len(clips) else None,
        names=tuple(clip.name for clip in clips),
        seeds=torch.tensor(list(seeds) or [0] * len(clips), dtype=torch.int64),
        features={key: torch.stack([clip.features[key] for clip in clips]) for key in shared},
        num_objects=torch.tensor(counts) if len(counts) == len(clips) else None,
    )
