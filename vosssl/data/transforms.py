"""Augmentations that treat a clip as one thing: frames, labels and flow all go through the same change.

A transform is called with a clip and a generator and is a pure function of the two. uint8 frames stay uint8;
labels are never mixed, only moved; flow is moved, and its vectors follow the change (in pixels of the new
frame).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.views import View
from vosssl.ops.resize import Size, resize_image, resize_labels, resize_masks

_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
_CROP_TRIES = 10  # draws before a random resized crop settles for the largest centred one


class Transform(Protocol):
    """Anything that changes a clip."""

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip: ...


def crop_clip(clip: Clip, *, top: int, left: int, size: Size) -> Clip:
    """A window of every frame.

    Args:
        clip: the clip.
        top: first row.
        left: first column.
        size: (height, width) of the window.

    Returns:
        The clip inside the window; views of the same memory.

    Raises:
        ValueError: the window reaches over the border.
    """
    height, width = clip.frames.shape[-2:]
    if top < 0 or left < 0 or top + size[0] > height or left + size[1] > width:
        raise ValueError(
            f"cannot crop {size[0]} x {size[1]} at row {top}, column {left} from clip {clip.name} of "
            f"{height} x {width}"
        )
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return _moved(
        clip,
        frames=clip.frames[..., rows, columns],
        labels=None if clip.labels is None else clip.labels[..., rows, columns],
        flow=None if clip.flow is None else clip.flow[..., rows, columns],
    )


def resize_clip(clip: Clip, size: Size, *, antialias: bool = True) -> Clip:
    """A clip at another size: frames bilinear, labels and flow from the nearest pixel, flow vectors scaled.

    Args:
        clip: the clip.
        size: (height, width).
        antialias: average over all pixels when shrinking (as Pillow does); False samples four of them (as
            OpenCV's and torch's plain bilinear do).
    """
    height, width = clip.frames.shape[-2:]
    if (height, width) == tuple(size):
        return clip
    frames = (resize_image if antialias else resize_masks)(clip.frames, size)
    flow = None
    if clip.flow is not None:  # nearest: a mean of two motions is the motion of nothing
        scale = torch.tensor(
            [size[1] / width, size[0] / height], dtype=clip.flow.dtype, device=clip.flow.device
        )
        flow = resize_labels(clip.flow, size) * scale[:, None, None]
    labels = None if clip.labels is None else resize_labels(clip.labels, size)
    return _moved(clip, frames=frames, labels=labels, flow=flow)


def flip_clip(clip: Clip) -> Clip:
    """A clip mirrored left to right; the x of its flow changes sign."""
    flow = None
    if clip.flow is not None:
        flow = clip.flow.flip(-1) * torch.tensor([-1.0, 1.0], dtype=clip.flow.dtype)[:, None, None]
    labels = None if clip.labels is None else clip.labels.flip(-1)
    return _moved(clip, frames=clip.frames.flip(-1), labels=labels, flow=flow)


def recolour_clip(clip: Clip, matrix: Tensor, offset: Tensor) -> Clip:
    """The same linear change of colour in every pixel.

    Args:
        clip: the clip.
        matrix: (3, 3) float, applied to RGB in [0, 1].
        offset: (3,) float, added afterwards.

    Returns:
        The clip with frames of the same dtype, clamped to the range of colours.
    """
    integers = clip.frames.dtype == torch.uint8
    top = 255.0 if integers else 1.0
    frames = torch.empty_like(clip.frames, memory_format=torch.contiguous_format)
    for source, target in zip(clip.frames, frames, strict=True):  # a frame at a time fits the cache
        colours = source.flatten(1).float()  # (3, H*W)
        colours = torch.addmm(offset[:, None] * top, matrix, colours).clamp_(0, top)
        target.copy_((colours.round_() if integers else colours).view_as(target))
    return _moved(clip, frames=frames, labels=clip.labels, flow=clip.flow)


def _moved(clip: Clip, *, frames: Tensor, labels: Tensor | None, flow: Tensor | None) -> Clip:
    if clip.features:
        raise ValueError(
            f"clip {clip.name} carries cached features ({', '.join(clip.features)}) that cannot follow a "
            "change of its frames; transform before caching"
        )
    return replace(clip, frames=frames, labels=labels, flow=flow)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


class Compose:
    """Several transforms, one after the other.

    Args:
        transforms: in order.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        for transform in self.transforms:
            clip = transform(clip, generator)
        return clip


def planned(
    transform: Transform | None, view: View, generator: torch.Generator
) -> tuple[View, Transform | None]:
    """What can be done while decoding: the view of a frame that a transform begins with.

    Transforms say so by `plan(view, generator) -> View | None`, which draws the same random numbers as the
    call does, or none when the answer is None.

    Args:
        transform: the transform; None is the whole frame.
        view: what is seen before the transform, such as the whole frame.
        generator: random state.

    Returns:
        The view, and what is left to do with the clip seen through it, with the same generator.
    """
    steps = _flattened(transform)
    while steps:
        plan = getattr(steps[0], "plan", None)
        planned_view = plan(view, generator) if plan is not None else None
        if planned_view is None:
            break
        view = planned_view
        steps.pop(0)
    return view, Compose(steps) if steps else None


def _flattened(transform: Transform | None) -> list[Transform]:
    if isinstance(transform, Compose):
        return [step for part in transform.transforms for step in _flattened(part)]
    return [] if transform is None else [transform]


class Resize:
    """Resizes a clip.

    Args:
        size: (height, width), or the length of the shorter side, at which the aspect is kept.
        antialias: see `resize_clip`.
    """

    def __init__(self, size: int | Sequence[int], *, antialias: bool = True) -> None:
        self.size = size if isinstance(size, int) else _pair(size)
        self.antialias = antialias

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        height, width = clip.frames.shape[-2:]
        return resize_clip(clip, self._size_for((height, width)), antialias=self.antialias)

    def _size_for(self, size: Size) -> Size:
        if not isinstance(self.size, int):
            return self.size
        shorter = min(size)
        return round(size[0] * self.size / shorter), round(size[1] * self.size / shorter)

    def plan(self, view: View, generator: torch.Generator) -> View | None:
        """See `planned`."""
        if not view.unscaled or not self.antialias:
            return None
        return view._replace(size=self._size_for(view.size))


class CenterCrop:
    """Keeps the middle of a clip.

    Args:
        size: (height, width), or the side of a square.

    Raises:
        ValueError: when called with a smaller clip.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        height, width = clip.frames.shape[-2:]
        return crop_clip(
            clip, top=(height - self.size[0]) // 2, left=(width - self.size[1]) // 2, size=self.size
        )

    def plan(self, view: View, generator: torch.Generator) -> View | None:
        """See `planned`."""
        rows, columns = view.size[0] - self.size[0], view.size[1] - self.size[1]
        if not view.unscaled or min(rows, columns) < 0:
            return None
        return view.crop(rows // 2, columns // 2, self.size)


class RandomCrop:
    """Keeps a window of fixed size at a random place, the same in all frames.

    Args:
        size: (height, width), or the side of a square.

    Raises:
        ValueError: when called with a smaller clip.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair(size)

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        height, width = clip.frames.shape[-2:]
        top, left = self._place((height, width), generator)
        return crop_clip(clip, top=top, left=left, size=self.size)

    def _place(self, size: Size, generator: torch.Generator) -> tuple[int, int]:
        counts = [max(1, whole - part + 1) for whole, part in zip(size, self.size, strict=True)]
        top, left = (int(torch.randint(count, (), generator=generator)) for count in counts)
        return top, left

    def plan(self, view: View, generator: torch.Generator) -> View | None:
        """See `planned`."""
        if not view.unscaled or view.size[0] < self.size[0] or view.size[1] < self.size[1]:
            return None
        return view.crop(*self._place(view.size, generator), self.size)


class RandomResizedCrop:
    """Crops a window of random area and aspect, the same in all frames, and resizes it.

    Args:
        size: (height, width) of the result, or the side of a square.
        scale: least and largest share of the frame's area.
        ratio: least and largest aspect, width / height; drawn uniformly in its logarithm.
        antialias: see `resize_clip`.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6; as in torchvision.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        scale: Sequence[float] = (0.4, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        antialias: bool = True,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"RandomResizedCrop got scale {tuple(scale)}, ratio {tuple(ratio)}, expected 0 < least <= "
                "largest, and a scale of at most 1"
            )
        self.size = _pair(size)
        self.scale = (scale[0], scale[1])
        self.ratio = (ratio[0], ratio[1])
        self.antialias = antialias

    def window(self, size: Size, generator: torch.Generator) -> tuple[int, int, Size]:
        """Top, left and (height, width) of a random window in a frame of a size."""
        height, width = size
        for _ in range(_CROP_TRIES):
            area = height * width * _uniform(*self.scale, generator)
            aspect = math.exp(_uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), generator))
            rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                top = int(torch.randint(height - rows + 1, (), generator=generator))
                left = int(torch.randint(width - columns + 1, (), generator=generator))
                return top, left, (rows, columns)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        rows, columns = min(height, round(width / aspect)), min(width, round(height * aspect))
        return (height - rows) // 2, (width - columns) // 2, (rows, columns)

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        height, width = clip.frames.shape[-2:]
        top, left, size = self.window((height, width), generator)
        return resize_clip(
            crop_clip(clip, top=top, left=left, size=size), self.size, antialias=self.antialias
        )

    def plan(self, view: View, generator: torch.Generator) -> View | None:
        """See `planned`."""
        if not view.unscaled or not self.antialias:
            return None
        return view.crop(*self.window(view.size, generator))._replace(size=self.size)


class HorizontalFlip:
    """Mirrors the whole clip left to right, or leaves it.

    Args:
        probability: of mirroring.
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        self.probability = probability

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        return flip_clip(clip) if _uniform(0, 1, generator) < self.probability else clip

    def plan(self, view: View, generator: torch.Generator) -> View | None:
        """See `planned`."""
        flips = _uniform(0, 1, generator) < self.probability
        return view._replace(mirrored=not view.mirrored) if flips else view


class TimeReversal:
    """Plays the whole clip backwards, or leaves it; flow to the next frame is then unknown and dropped.

    Args:
        probability: of reversing.
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        self.probability = probability

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        if _uniform(0, 1, generator) >= self.probability:
            return clip
        labels = None if clip.labels is None else clip.labels.flip(0)
        labelled = None if clip.labelled is None else clip.labelled.flip(0)
        turned = _moved(clip, frames=clip.frames.flip(0), labels=labels, flow=None)
        return replace(turned, labelled=labelled, frame_names=clip.frame_names[::-1])


class ColourJitter:
    """Changes brightness, contrast, saturation and hue by random amounts, the same in all frames.

    All four are one linear map of RGB, clamped once at the end; the hue turns about the grey axis.
    (torchvision clamps after each and turns the hue in HSV.)

    Args:
        brightness: the factor is drawn from 1 - brightness to 1 + brightness.
        contrast: likewise, about the clip's mean grey.
        saturation: likewise, about each pixel's own grey.
        hue: the turn is drawn from -hue to hue, in whole turns (0.5 is 180 degrees).
        probability: of changing a clip at all.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.05,
        probability: float = 1.0,
    ) -> None:
        if not (min(brightness, contrast, saturation, hue) >= 0 and hue <= 0.5):
            raise ValueError("ColourJitter got a negative amount, or a hue above 0.5 (half a turn)")
        self.amounts = (brightness, contrast, saturation)
        self.hue = hue
        self.probability = probability

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        changes = _uniform(0, 1, generator) < self.probability
        brightness, contrast, saturation = (
            _uniform(max(0.0, 1 - amount), 1 + amount, generator) for amount in self.amounts
        )
        turn = _uniform(-self.hue, self.hue, generator)
        if not changes:
            return clip
        grey = torch.tensor(_GREY)
        matrix = saturation * torch.eye(3) + (1 - saturation) * grey  # rows: (1 - s) * luma + s * channel
        matrix = brightness * contrast * (_hue_rotation(turn) @ matrix)
        top = 255.0 if clip.frames.dtype == torch.uint8 else 1.0
        means = torch.stack([frame.float().mean((1, 2)) for frame in clip.frames])  # (T, 3)
        mean_grey = float(means.mean(0) @ grey) / top
        offset = torch.full((3,), (1 - contrast) * brightness * mean_grey)
        return recolour_clip(clip, matrix, offset)


def _hue_rotation(turns: float) -> Tensor:
    """(3, 3) rotation of RGB about the grey axis (1, 1, 1), by Rodrigues' formula."""
    angle = 2 * math.pi * turns
    axis = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -axis, axis], [axis, 0.0, -axis], [-axis, axis, 0.0]])
    return torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _pair(size: int | Sequence[int]) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
