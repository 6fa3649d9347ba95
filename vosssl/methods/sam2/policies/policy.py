"""What a memory policy is: another way to choose masks and memories, with the weights as they are.

A policy is a small object with its constants; for every object that is followed it makes a `Follower`, which
decides three things: which of the decoder's masks an object gets, what the next frame looks back at, and so
what may be forgotten. Without a policy SAM 2 works as published.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from vosssl.methods.sam2.mask_decoder import Candidates, Chosen
from vosssl.methods.sam2.memory_selection import MAPS, Recall
from vosssl.methods.sam2.network import SAM2, EncodedImage
from vosssl.methods.sam2.object_memory import ObjectTrack, Output, gathered, outputs_of
from vosssl.propagation.mask_generation import mask_boxes

AMBIGUOUS = slice(1, None)  # of the decoder's masks: those for prompts that may mean several things
Usual = Callable[[ObjectTrack], Recall]  # what SAM 2 itself looks back at


class Choice(NamedTuple):
    """A way on from a frame.

    Attributes:
        path: the number of the path that goes on.
        mask: with which of the decoder's four masks, 1 to 3.
    """

    path: int
    mask: int


class Follower(ABC):
    """One object that is followed, on one path through the video or on several.

    In each frame `recalls` is asked first, then `choose`, then `remember`; `restart` comes before a frame
    that does not continue the last one, and after prompts.
    """

    def paths(self, track: ObjectTrack) -> list[ObjectTrack]:
        """The object's memories on each path, the best one first; that one is `track`."""
        return [track]

    @abstractmethod
    def recalls(self, frame: int, track: ObjectTrack, *, usual: Usual, reverse: bool = False) -> list[Recall]:
        """What a frame looks back at on each path; asking changes nothing."""

    @abstractmethod
    def choose(self, frame: int, candidates: Candidates) -> list[Choice]:
        """Which masks the object gets in a frame, the best first.

        Args:
            frame: its number.
            candidates: a row for each path.

        Returns:
            One way on or several.
        """

    def remember(self, frame: int, track: ObjectTrack, outputs: list[Output]) -> None:
        """Stores what was chosen, an output for each choice."""
        track.tracked[frame] = outputs[0]

    @abstractmethod
    def restart(self) -> None:
        """What comes next does not continue what was seen last; a single path remains."""

    def spared(self, track: ObjectTrack) -> set[int]:
        """Frames that the next one does not look back at, but a later one may."""
        return set()

    def forget(self, frame: int, track: ObjectTrack, *, usual: Usual) -> None:
        """Drops what neither the next frame of a stream nor a later one will look back at."""
        recalls = self.recalls(frame + 1, track, usual=usual)
        for path, recall in zip(self.paths(track), recalls, strict=True):
            maps = {index for index, _ in recall.maps} | self.spared(path)
            read = maps | {index for index, _ in recall.pointers}
            for index, output in list(path.tracked.items()):
                if index not in read:
                    del path.tracked[index]
                elif index not in maps and output.memory is not None:
                    path.tracked[index] = output._replace(memory=None)


class MemoryPolicy(Protocol):
    """Constants, and a follower for every object.

    Attributes:
        presence: objects whose score is above that are there.
        decides_late: only the end of a stored video tells which path was the best one.
    """

    @property
    def presence(self) -> float: ...

    @property
    def decides_late(self) -> bool: ...

    def follow_object(self) -> Follower:
        """Starts to follow an object."""
        ...


def follow(
    network: SAM2,
    image: EncodedImage,
    tracks: Mapping[int, ObjectTrack],
    followers: Mapping[int, Follower],
    *,
    frame: int,
    usual: Usual,
    reach: int,
    presence: float,
    reverse: bool = False,
) -> dict[int, list[Output]]:
    """Objects in a frame under a policy, all paths of all objects in one pass.

    Args:
        network: in evaluation mode.
        image: the frame, encoded.
        tracks: by object id, what is remembered.
        followers: of these objects.
        frame: its number.
        usual: what SAM 2 would look back at.
        reach: the distance of pointers that counts as 1.
        presence: objects whose score is above that are there.
        reverse: the video is followed backwards.

    Returns:
        By object id, what may be remembered of this frame, the best first; not encoded yet.
    """
    paths = {identity: followers[identity].paths(track) for identity, track in tracks.items()}
    recalls = [
        recall
        for identity, track in tracks.items()
        for recall in followers[identity].recalls(frame, track, usual=usual, reverse=reverse)
    ]
    memories = gathered([path for own in paths.values() for path in own], recalls, reach=reach)
    features = network.condition_on_memory(image, memories)
    candidates = network.decode_prompts(image, features, multimask=True).candidates
    assert candidates is not None, "only masks that are given have none"
    rows, masks, ways, first = [], [], {}, 0
    for identity, own in paths.items():
        choices = followers[identity].choose(frame, _rows(candidates, slice(first, first + len(own))))
        rows += [first + choice.path for choice in choices]
        masks += [choice.mask for choice in choices]
        ways[identity] = len(choices)
        first += len(own)
    decoded = network.settle(*_chosen(candidates, rows, masks), presence=presence)
    outputs = iter(outputs_of(decoded))
    return {identity: [next(outputs) for _ in range(count)] for identity, count in ways.items()}


def _rows(candidates: Candidates, rows: slice) -> Candidates:
    return Candidates(*(part[rows] for part in candidates))


def _chosen(candidates: Candidates, rows: list[int], masks: list[int]) -> tuple[Chosen, Tensor]:
    """Masks by row and number, and their object scores."""
    chosen = Chosen(
        candidates.masks[rows, masks][:, None],
        candidates.quality[rows, masks][:, None],
        candidates.tokens[rows, masks],
    )
    return chosen, candidates.object_score[rows]


def mask_edges(logits: Tensor) -> Tensor:
    """Edges of the boxes around masks.

    Args:
        logits: (K, h, w), objects above 0.

    Returns:
        (K, 4) float64 left, top, right, bottom, on the CPU; zeros for an empty mask.
    """
    masks = logits > 0
    boxes = mask_boxes(masks)
    boxes[:, 2:] += masks.flatten(1).any(dim=1, keepdim=True)  # the far edge of the last pixel
    return boxes.double().cpu()


def prompted_maps(recall: Recall) -> tuple[tuple[int, int], ...]:
    """Those maps that come from frames with prompts."""
    return tuple((index, age) for index, age in recall.maps if age == MAPS - 1)


def well_seen(
    frame: int, track: ObjectTrack, good: Collection[int], *, most: int, reverse: bool = False
) -> list[int]:
    """The last frames in which an object was seen well, and the previous one in any case.

    Args:
        frame: the current one.
        track: what is remembered of the object.
        good: frames in which it was seen well.
        most: at most so many frames.
        reverse: the video is followed backwards.

    Returns:
        Frames behind the current one, the last one first.
    """
    sign = -1 if reverse else 1
    behind = [index for index in track.tracked if (frame - index) * sign > 0]
    chosen = sorted((index for index in behind if index in good), key=lambda index: -index * sign)[:most]
    previous = frame - sign
    if previous in track.tracked and previous not in good:
        chosen = [previous, *chosen[: most - 1]]
    return chosen


def recent_maps(track: ObjectTrack, chosen: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Maps of chosen frames with their ages, which count chosen frames: 0 for the first.

    Args:
        track: what is remembered of the object.
        chosen: frames, the last one first.

    Returns:
        At most six, the oldest first.
    """
    there = [index for index in chosen if track.tracked[index].memory is not None][: MAPS - 1]
    return tuple((index, age) for age, index in enumerate(there))[::-1]
