"""What is known of an object in the frames of a video, and what of it a frame looks back at."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.methods.sam2.memory_selection import Recall
from vosssl.methods.sam2.network import Decoded, Memories


class Output(NamedTuple):
    """One object in one frame.

    Attributes:
        logits: (1, 4h, 4w) of its mask.
        pointer: (C,).
        object_score: (1,) logit.
        memory: (D, h, w); None until it is encoded.
    """

    logits: Tensor
    pointer: Tensor
    object_score: Tensor
    memory: Tensor | None = None


@dataclass
class ObjectTrack:
    """One object through a video; all dictionaries are by frame.

    Attributes:
        conditioning: frames with prompts.
        tracked: frames in which it was followed.
        pending_conditioning: prompts since the last propagation.
        pending_tracked: corrections since then, of frames it was followed in.
        points: (1, P, 2) and (1, P) of the clicks and the box of a frame, in pixels of the encoded frame.
        masked: frames whose prompt is a mask.
        followed: frames that propagation has passed, and whether backwards.
    """

    conditioning: MutableMapping[int, Output] = field(default_factory=dict)
    tracked: MutableMapping[int, Output] = field(default_factory=dict)
    pending_conditioning: MutableMapping[int, Output] = field(default_factory=dict)
    pending_tracked: MutableMapping[int, Output] = field(default_factory=dict)
    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masked: set[int] = field(default_factory=set)
    followed: dict[int, bool] = field(default_factory=dict)

    def pending(self, *, conditions: bool) -> MutableMapping[int, Output]:
        """What waits to be taken over: prompts, or corrections."""
        return self.pending_conditioning if conditions else self.pending_tracked

    def output(self, frame: int, *, conditions: bool) -> Output | None:
        """What is known of the object in a frame: the latest prompt, else what was there before."""
        places = (self.pending(conditions=conditions), self.conditioning, self.tracked)
        return next((place[frame] for place in places if frame in place), None)

    def remembered(self, frame: int) -> Output:
        """What a later frame may look back at."""
        return self.conditioning[frame] if frame in self.conditioning else self.tracked[frame]

    def clear(self) -> None:
        """Forgets all outputs."""
        for outputs in (self.conditioning, self.tracked, self.pending_conditioning, self.pending_tracked):
            outputs.clear()

    @property
    def prompted_frames(self) -> tuple[int, ...]:
        """Frames with clicks, a box or a mask."""
        return tuple(sorted(self.masked | set(self.points)))

    def drop_prompts(self, frame: int) -> None:
        """Takes back the prompts of a frame; what they gave stays there as if it had been followed."""
        self.points.pop(frame, None)
        self.masked.discard(frame)
        self.pending_conditioning.pop(frame, None)
        self.pending_tracked.pop(frame, None)
        output = self.conditioning.pop(frame, None)
        if output is not None:
            self.tracked[frame] = output
            self.followed.pop(frame, None)


def outputs_of(decoded: Decoded, memories: Tensor | None = None) -> list[Output]:
    """Results of N objects, one by one; `memories` are (N, D, h, w). A row alone does not keep the others."""
    parts = [decoded.masks, decoded.pointer, decoded.object_score]
    parts += [] if memories is None else [memories]
    return [Output(*(part[row].clone() for part in parts)) for row in range(len(decoded.masks))]


def gathered(tracks: Sequence[ObjectTrack], recalls: Sequence[Recall], *, reach: int) -> Memories:
    """Memories of several objects as one batch; objects with fewer than others are filled up.

    Args:
        tracks: N objects, each with something to look back at.
        recalls: at what.
        reach: the distance of pointers that counts as 1.

    Returns:
        The memories, with masks where objects differ in number.
    """
    most = max(len(recall.maps) for recall in recalls)
    farthest = max(len(recall.pointers) for recall in recalls)
    maps, ages, pointers, distances = [], [], [], []
    for track, recall in zip(tracks, recalls, strict=True):
        own = [(_memory(track.remembered(frame)), age) for frame, age in recall.maps]
        own += [own[0]] * (most - len(own))
        maps.append(torch.stack([memory for memory, _ in own]))
        ages.append([age for _, age in own])
        seen = [(track.remembered(frame).pointer, distance) for frame, distance in recall.pointers]
        filling = next(iter(track.conditioning.values())).pointer
        seen += [(filling, 0)] * (farthest - len(seen))
        pointers.append(
            torch.stack([pointer for pointer, _ in seen]) if seen else filling.new_zeros(0, len(filling))
        )
        distances.append([float(distance) for _, distance in seen])
    device = maps[0].device
    alike = len({tuple(age for _, age in recall.maps) for recall in recalls}) == 1
    same = len({tuple(distance for _, distance in recall.pointers) for recall in recalls}) == 1
    return Memories(
        torch.stack(maps),
        torch.tensor(ages[0] if alike else ages, device=device),
        torch.stack(pointers),
        torch.tensor(distances[0] if same else distances, device=device) / max(reach, 1),
        _present([len(recall.maps) for recall in recalls], device),
        _present([len(recall.pointers) for recall in recalls], device),
        _emphasis(recalls, 0, most, device),
        _emphasis(recalls, 1, farthest, device),
    )


def _memory(output: Output) -> Tensor:
    assert output.memory is not None, "prompts are encoded before anything looks back at them"
    return output.memory


def _present(counts: Sequence[int], device: torch.device) -> Tensor | None:
    """(N, most) bool; None where all counts are equal."""
    if len(set(counts)) == 1:
        return None
    return torch.arange(max(counts), device=device) < torch.tensor(counts, device=device)[:, None]


def _emphasis(recalls: Sequence[Recall], kind: int, most: int, device: torch.device) -> Tensor | None:
    """(N, most) for maps (0) or pointers (1), filled up with 1; None where there is none."""
    if all(recall.emphasis is None for recall in recalls):
        return None
    own = [() if recall.emphasis is None else recall.emphasis[kind] for recall in recalls]
    return torch.tensor([[*values, *[1.0] * (most - len(values))] for values in own], device=device)
