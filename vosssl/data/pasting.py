"""Objects of one clip laid over another: more objects, and occlusions, than one video has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID, Clip
from vosssl.data.objects import shuffled, target_ids, with_targets
from vosssl.data.sampling import (
    ClipDataset,
    Draw,
    as_draw,
    fingerprint_of,
    generator_of,
    mixed_seed,
    read_draws,
)

_SIGMA = 1.0  # of the soft edge, pixels; with _RADIUS the 5 x 5 kernel of Cutie's loader
_RADIUS = 2


class PastedObjects:
    """Half of the clips get the objects of a second clip, as Cutie is trained.

    A clip with fewer than max_objects objects gets, with a probability, all objects of another clip drawn
    evenly from the same dataset, with softened edges, in front of its own. Of the objects that are then seen
    in the first frame, at most max_objects are chosen at random.

    Args:
        dataset: clips with labels 1..num_objects, of one size; they should keep all their objects
            (`max_objects: null`), so that every object is equally likely to be chosen here.
        probability: of pasting.
        max_objects: N, objects of a clip.

    Raises:
        ValueError: arguments out of range.

    Source: Cheng et al., "Putting the object back into video object segmentation", CVPR 2024, and its
        official loader (probability 0.5 in main training).
    """

    def __init__(self, dataset: ClipDataset, *, probability: float = 0.5, max_objects: int = 3) -> None:
        if not 0 <= probability <= 1 or max_objects < 1:
            raise ValueError(
                f"PastedObjects got probability {probability}, max_objects {max_objects}, expected 0 to 1 "
                "and 1 or more"
            )
        self.dataset = dataset
        self.probability = probability
        self.max_objects = max_objects

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw | int) -> Clip:
        return self.__getitems__([as_draw(draw)])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Clip]:
        clips = read_draws(self.dataset, draws)
        seconds = {
            row: self.second(draw)
            for row, (draw, clip) in enumerate(zip(draws, clips, strict=True))
            if _count(clip) < self.max_objects and self._pastes(draw)
        }
        pasted = dict(zip(seconds, read_draws(self.dataset, list(seconds.values())), strict=True))
        return [
            self._chosen(paste_objects(clip, pasted[row]) if row in pasted else clip, draws[row])
            for row, clip in enumerate(clips)
        ]

    def _pastes(self, draw: Draw) -> bool:
        generator = generator_of(mixed_seed(draw.seed, draw.index, 0))
        return float(torch.rand((), generator=generator)) < self.probability

    def second(self, draw: Draw) -> Draw:
        """The draw of the clip whose objects a draw gets, if it gets any."""
        seed = mixed_seed(draw.seed, draw.index, 1)
        index = int(torch.randint(len(self), (), generator=generator_of(seed)))
        return Draw(index, seed, draw.step)

    def _chosen(self, clip: Clip, draw: Draw) -> Clip:
        assert clip.labels is not None
        seen = target_ids(clip.labels)
        order = shuffled(seen, generator_of(mixed_seed(draw.seed, draw.index, 2)))
        chosen = with_targets(clip, order, max_objects=self.max_objects)
        assert chosen is not None  # the objects in front are seen
        return chosen

    def fingerprint(self) -> str:
        """A hash that changes when the clips may."""
        parts = (self.probability, self.max_objects, fingerprint_of(self.dataset))
        return sha256(repr(parts).encode()).hexdigest()


def _count(clip: Clip) -> int:
    if clip.num_objects is None or clip.labels is None:
        raise ValueError(
            f"clip {clip.name} does not say how many objects it has; PastedObjects needs clips of "
            "VosClips or StaticImages"
        )
    return clip.num_objects


def paste_objects(clip: Clip, front: Clip) -> Clip:
    """A clip with the objects of another in front of it.

    Args:
        clip: (T, 3, H, W) frames and labels.
        front: a clip of the same shape; its objects seen in the first frame are pasted, with the ids after
            the highest of `clip`.

    Returns:
        The clip. Ids may be missing where an object is hidden; num_objects counts those in the first frame.

    Raises:
        ValueError: clips of different shape, or more ids than a label can hold.
    """
    if clip.frames.shape != front.frames.shape or clip.labels is None or front.labels is None:
        raise ValueError(
            f"cannot paste objects of {front.name} {tuple(front.frames.shape)} into {clip.name} "
            f"{tuple(clip.frames.shape)}; both need labels and one shape: set the size of the crops"
        )
    moved = target_ids(front.labels)
    last = int(torch.where(clip.labels == VOID, 0, clip.labels).max())
    if last + len(moved) >= VOID:
        raise ValueError(f"clips {clip.name} and {front.name} have more than 254 objects together")
    table = torch.zeros(256, dtype=torch.uint8)
    table[moved] = torch.arange(last + 1, last + 1 + len(moved), dtype=torch.uint8)
    ids = table[front.labels.int()]  # (T, H, W)
    shown = ids > 0
    opacity = _softened(shown.float())[:, None]  # (T, 1, H, W)
    frames = torch.lerp(clip.frames.float(), front.frames.float(), opacity)
    if clip.frames.dtype == torch.uint8:
        frames = frames.round_()
    labels = torch.where(shown, ids, clip.labels)
    return replace(
        clip,
        frames=frames.to(clip.frames.dtype),
        labels=labels,
        flow=None,
        num_objects=len(target_ids(labels)),
    )


def _softened(masks: Tensor) -> Tensor:
    """(T, H, W) masks blurred by a small Gaussian; the border repeats."""
    steps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
    kernel = torch.exp(-(steps**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    padded = F.pad(masks[:, None], (_RADIUS,) * 4, mode="replicate")  # (T, 1, H+4, W+4)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]
