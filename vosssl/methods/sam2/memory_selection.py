"""Which frames SAM 2 looks back at: numbers of frames in, numbers of frames out.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4 ("Memory bank"), and the
code that the weights come from (facebookresearch/sam2).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

MAPS = 7  # memories of one conditioning frame and of six tracked ones
POINTERS = 16


class Recall(NamedTuple):
    """What to look back at from one frame.

    Attributes:
        maps: frames whose maps are read, each with its age: 0 for the previous frame, 5 for the one six
            steps ago, 6 for frames with prompts.
        pointers: frames whose object pointers are read, each with its distance in frames; negative: ahead.
        emphasis: what keys of maps, and of pointers, are multiplied with, in their order; None: 1.
    """

    maps: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]
    emphasis: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def recall(
    frame: int,
    *,
    conditioning: Collection[int],
    tracked: Collection[int],
    reverse: bool = False,
    length: int | None = None,
    maps: int = MAPS,
    stride: int = 1,
    max_conditioning: int | None = None,
    max_pointers: int = POINTERS,
) -> Recall:
    """What an object's features in a frame are conditioned on.

    Maps: those of all frames with prompts, before and after, and of the last tracked frames. Pointers: of
    frames with prompts that lie behind, and of the last tracked frames.

    Args:
        frame: the current one.
        conditioning: frames with prompts for this object.
        tracked: other frames in which it was followed.
        reverse: the video is followed backwards: behind is ahead.
        length: frames of the video; None: not known yet, as in a stream.
        maps: the last tracked frames are at most one fewer than that.
        stride: between tracked frames, but for the last one.
        max_conditioning: at most so many frames with prompts, the nearest; the others may still serve as
            tracked ones. None: all.
        max_pointers: at most so many frames back, this one included.

    Returns:
        Frames and ages, frames and distances; each frame at most once.
    """
    sign = -1 if reverse else 1
    chosen = nearest_conditioning(frame, conditioning, limit=max_conditioning)
    others = set(tracked) | (set(conditioning) - set(chosen))
    seen = [(index, maps - 1) for index in chosen]
    for steps in range(maps - 1, 0, -1):  # the oldest first
        index = _steps_back(frame * sign, steps, stride) * sign
        if index in others:
            seen.append((index, steps - 1))
    reach = pointer_reach(length, max_pointers=max_pointers)
    pointers = [(index, (frame - index) * sign) for index in chosen if (frame - index) * sign >= 0]
    for distance in range(1, reach + 1):
        index = frame - distance * sign
        if length is not None and not 0 <= index < length:
            break
        if index in others:
            pointers.append((index, distance))
    return Recall(tuple(seen), tuple(pointers))


def pointer_reach(length: int | None, *, max_pointers: int = POINTERS) -> int:
    """The farthest frame whose pointer is read, and the distance that counts as 1 in its position.

    Args:
        length: frames of the video; None: not known yet.
        max_pointers: as in `recall`.

    Returns:
        Frames: 15, or fewer in shorter videos.
    """
    return (max_pointers if length is None else min(length, max_pointers)) - 1


def nearest_conditioning(
    frame: int, conditioning: Collection[int], *, limit: int | None = None
) -> tuple[int, ...]:
    """The frames with prompts to look at: the last one before, the first one from here on, then the nearest.

    Args:
        frame: the current one.
        conditioning: frames with prompts.
        limit: how many; None: all.

    Returns:
        Frames in rising order.

    Raises:
        ValueError: a limit below 2: one before and one after always count.
    """
    if limit is None or len(conditioning) <= limit:
        return tuple(sorted(conditioning))
    if limit < 2:
        raise ValueError(f"at most {limit} conditioning frames; choose at least 2, one before and one after")
    before = [index for index in conditioning if index < frame]
    after = [index for index in conditioning if index >= frame]
    chosen = {max(before)} if before else set()
    chosen |= {min(after)} if after else set()
    rest = sorted(
        (index for index in conditioning if index not in chosen), key=lambda index: abs(index - frame)
    )
    return tuple(sorted(chosen | set(rest[: limit - len(chosen)])))


def _steps_back(frame: int, steps: int, stride: int) -> int:
    """The frame `steps` back: the previous one, then multiples of `stride`."""
    if steps == 1:
        return frame - 1
    return (frame - 2) // stride * stride - (steps - 2) * stride
