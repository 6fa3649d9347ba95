"""Geometric and colour changes of the loaders of STCN and Cutie: affine maps, crops and thin-plate splines.

All geometry of a sample is one map from pixels of the result to places in the frame (`ops.planar`), so that
every frame is interpolated once. (The official loaders interpolate up to four times, and what one step cuts
off is lost to the next; here it is still seen.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.transforms import (
    ColourJitter,
    Compose,
    RandomResizedCrop,
    Transform,
    recolour_clip,
    resize_clip,
)
from vosssl.ops.planar import affine_map, mapped, mapped_pixels, pixel_centres, thin_plate_spline, window_map
from vosssl.ops.resize import Size, shorter_side

MEAN_COLOUR = (124.0, 116.0, 104.0)  # RGB of 0..255 that STCN and Cutie fill with: ImageNet's mean
_NODE = 4  # pixels between a spline's nodes; filling in is off by 0.006 pixels in the mean of 40 draws
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def warp_clip(clip: Clip, places: Tensor, *, colour: Sequence[float] = MEAN_COLOUR, label: int = 0) -> Clip:
    """A clip whose pixels come from given places of its frames: bilinear for frames, nearest for labels.

    Args:
        clip: T frames, or one that all results are made of.
        places: (T, h, w, 2) float, the place (x, y) in the frame for every pixel of the result.
        colour: RGB of 0..255 beyond the border.
        label: id beyond the border.

    Returns:
        The clip with (T, 3, h, w) frames of the same dtype. Flow is dropped.

    Raises:
        ValueError: cached features, which cannot follow.
    """
    if clip.features:
        raise ValueError(
            f"clip {clip.name} carries cached features ({', '.join(clip.features)}) that cannot follow a "
            "change of its frames; transform before caching"
        )
    length = len(places)
    whole = clip.frames.dtype == torch.uint8
    fill = torch.tensor(colour).view(3, 1, 1) / (1.0 if whole else 255.0)
    frames = torch.empty(length, 3, *places.shape[1:3], dtype=clip.frames.dtype)
    labels = None if clip.labels is None else torch.empty(length, *places.shape[1:3], dtype=torch.uint8)
    same = places.stride(0) == 0  # one map for all frames
    shared = _reach(places[0], _size_of(clip)) if same else None
    for row in range(length):  # one frame at a time fits the cache, and memory does not grow with T
        window, grid = _reach(places[row], _size_of(clip)) if shared is None else shared
        source = row if len(clip) > 1 else 0
        pixels = clip.frames[source][:, *window].to(torch.float32, copy=True)
        pixels -= fill  # so that beyond the border 0 is the colour
        warped = _sampled(pixels, grid, mode="bilinear").add_(fill)
        frames[row] = warped.add_(0.5) if whole else warped  # uint8 cuts off what lies behind the point
        if labels is not None and clip.labels is not None:  # ids are whole numbers, which float32 holds
            ids = clip.labels[source][window].float().sub_(label)[None]
            labels[row] = _sampled(ids, grid, mode="nearest")[0].add_(label)
    repeated = len(clip) != length
    return replace(
        clip,
        frames=frames,
        labels=labels,
        labelled=None if repeated or clip.labelled is None else clip.labelled,
        frame_names=clip.frame_names * length if repeated else clip.frame_names,
        flow=None,
    )


def _reach(places: Tensor, size: Size) -> tuple[tuple[slice, slice], Tensor]:
    """What of a frame the places (h, w, 2) need: rows and columns, and the places in these as -1..1."""
    spans, ends = [], []
    for axis, length in ((1, size[0]), (0, size[1])):
        low, high = (float(end) for end in places[..., axis].aminmax())
        first = math.floor(min(max(low - 0.5, 0), length - 1))  # bilinear takes the pixels on both sides
        stop = math.floor(min(max(high - 0.5, first), length - 1)) + 2
        spans.append(slice(first, min(stop, length)))
        ends.append((first, min(stop, length) - first))
    (top, height), (left, width) = ends
    scale = torch.tensor([2 / width, 2 / height])
    grid = places * scale - (torch.tensor([float(left), float(top)]) * scale + 1)
    return (spans[0], spans[1]), grid


def _sampled(image: Tensor, grid: Tensor, *, mode: Literal["bilinear", "nearest"]) -> Tensor:
    """(C, h, w) of an image (C, H, W) at a grid (h, w, 2); 0 beyond its border."""
    return F.grid_sample(image[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]


class AffineCrop:
    """One affine change and one random crop for all frames, then a small affine change of each frame.

    Args:
        size: (height, width) of the result, or the side of a square.
        degrees: the rotation is drawn from -degrees to degrees.
        shear: so is the shear, degrees.
        flip: probability of mirroring.
        scale: least and largest share of the frame's area in the crop.
        ratio: least and largest aspect of the crop.
        frame_degrees: rotation of each frame on its own, as above.
        frame_shear: likewise.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        degrees: float = 25.0,
        shear: float = 20.0,
        flip: float = 0.5,
        scale: Sequence[float] = (0.36, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        frame_degrees: float = 0.0,
        frame_shear: float = 0.0,
    ) -> None:
        self.size: Size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.degrees = degrees
        self.shear = shear
        self.flip = flip
        self.crop = RandomResizedCrop(self.size, scale=scale, ratio=ratio)
        self.frame_degrees = frame_degrees
        self.frame_shear = frame_shear

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        height, width = clip.frames.shape[-2:]
        whole = affine_map(
            (height, width),
            angle=_spread(self.degrees, generator),
            shear=_spread(self.shear, generator),
            mirror=_uniform(0, 1, generator) < self.flip,
        )
        top, left, window = self.crop.window((height, width), generator)
        shared = torch.linalg.inv(whole) @ window_map(top, left, window, self.size)
        if not (self.frame_degrees or self.frame_shear):
            return warp_clip(clip, mapped_pixels(self.size, shared).expand(len(clip), -1, -1, -1))
        places = []
        for _ in range(len(clip)):
            angle, shear = _spread(self.frame_degrees, generator), _spread(self.frame_shear, generator)
            own = affine_map(self.size, angle=angle, shear=shear)
            places.append(mapped_pixels(self.size, shared @ torch.linalg.inv(own)))
        return warp_clip(clip, torch.stack(places))  # (T, h, w, 2)


class PictureMotion:
    """Frames of a made-up video from one picture: a zoom for all, an affine change and a spline for each.

    Args:
        size: side of the square results; the picture's shorter side fills it, the crop is drawn per frame.
        num_frames: T.
        zoom: least and largest enlargement of all frames together.
        frame_degrees: the rotation of a frame is drawn from -frame_degrees to frame_degrees.
        frame_shear: so is its shear, degrees.
        frame_zoom: least and largest enlargement of a frame.
        flip: probability of mirroring all frames.
        spline: probability that a frame is bent by a thin-plate spline.
        bend: standard deviation of the spline's control points, as a share of the side.
        control_points: how many.
    """

    def __init__(
        self,
        size: int = 384,
        *,
        num_frames: int = 3,
        zoom: Sequence[float] = (0.8, 1.5),
        frame_degrees: float = 20.0,
        frame_shear: float = 10.0,
        frame_zoom: Sequence[float] = (0.9, 1.1),
        flip: float = 0.5,
        spline: float = 0.33,
        bend: float = 0.02,
        control_points: int = 12,
    ) -> None:
        self.size = size
        self.num_frames = num_frames
        self.zoom = (zoom[0], zoom[1])
        self.frame_degrees = frame_degrees
        self.frame_shear = frame_shear
        self.frame_zoom = (frame_zoom[0], frame_zoom[1])
        self.flip = flip
        self.spline = spline
        self.bend = bend
        self.control_points = control_points

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        zoom, mirror = _uniform(*self.zoom, generator), _uniform(0, 1, generator) < self.flip
        wanted = round(self.size * max(1.0, zoom))  # as many pixels as are shown: warping is not antialiased
        clip = resize_clip(clip, shorter_side(_size_of(clip), wanted))
        size = _size_of(clip)
        shared = torch.linalg.inv(affine_map(size, mirror=mirror) @ affine_map(size, zoom=zoom))
        unit = min(size) / self.size  # pixels of the picture in one of the result
        side, places = (self.size, self.size), []
        for _ in range(self.num_frames):
            own = affine_map(
                size,
                angle=_spread(self.frame_degrees, generator),
                shear=_spread(self.frame_shear, generator),
                zoom=_uniform(*self.frame_zoom, generator),
            )
            top, left = (_uniform(0, length - min(size), generator) for length in size)
            window = window_map(top, left, (self.size * unit, self.size * unit), side)
            matrix = shared @ torch.linalg.inv(own) @ window
            if _uniform(0, 1, generator) < self.spline:
                places.append(mapped(self._bent(generator), matrix))
            else:
                places.append(mapped_pixels(side, matrix))
        return warp_clip(clip, torch.stack(places))  # (T, size, size, 2)

    def _bent(self, generator: torch.Generator) -> Tensor:
        """(size, size, 2) pixel centres after a random spline, which is computed at nodes and filled in."""
        columns, rows = (
            torch.randperm(self.size, generator=generator)[: self.control_points] for _ in range(2)
        )
        seen = torch.stack([columns, rows], 1).double() / self.size  # (N, 2); no two in one row or column
        shown = seen + self.bend * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
        line = torch.linspace(0, 1, -(-self.size // _NODE) + 1)
        y, x = torch.meshgrid(line, line, indexing="ij")
        nodes = thin_plate_spline(torch.stack([x, y], -1), shown, seen) * self.size  # (n, n, 2)
        grid = pixel_centres((self.size, self.size)) * (2 / self.size) - 1
        bent = F.grid_sample(
            nodes.permute(2, 0, 1)[None], grid[None], padding_mode="border", align_corners=True
        )
        return bent[0].permute(1, 2, 0)


class PerFrame:
    """Applies a transform to every frame on its own, with its own random numbers.

    Args:
        transform: it must give all frames one size.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        parts = []
        for frame in range(len(clip)):
            labels = None if clip.labels is None else clip.labels[frame : frame + 1]
            parts.append(self.transform(Clip(clip.name, clip.frames[frame : frame + 1], labels), generator))
        found = [part.labels for part in parts if part.labels is not None]
        return replace(
            clip,
            frames=torch.cat([part.frames for part in parts]),
            labels=torch.cat(found) if found else None,
            flow=None,
            features={},
        )


class RandomGrey:
    """Takes the colour out of a whole clip, or leaves it.

    Args:
        probability: of grey.
    """

    def __init__(self, *, probability: float = 0.05) -> None:
        self.probability = probability

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        if _uniform(0, 1, generator) >= self.probability:
            return clip
        return recolour_clip(clip, torch.tensor(_LUMA).expand(3, 3), torch.zeros(3))


def _jitter(brightness: float, contrast: float, saturation: float, hue: float) -> ColourJitter:
    return ColourJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)


def stcn_video(size: int = 384, *, scale: Sequence[float] = (0.36, 1.0)) -> Compose:
    """What STCN does to clips of videos; `scale` is (0.25, 1) for BL30K.

    Source: Cheng et al., "Rethinking space-time networks with improved memory coverage", NeurIPS 2021, and
        its official loader. Deviation: bilinear where it is bicubic.
    """
    crop = AffineCrop(size, degrees=0, shear=0, scale=scale, frame_degrees=15, frame_shear=10)
    colours: list[Transform] = [
        _jitter(0.1, 0.03, 0.03, 0),
        RandomGrey(),
        PerFrame(_jitter(0.01, 0.01, 0.01, 0)),
    ]
    return Compose([crop, *colours])


def cutie_video(size: int = 480) -> Compose:
    """What Cutie does to clips of videos: one affine change and one crop for all frames.

    Source: Cheng et al., "Putting the object back into video object segmentation", CVPR 2024, and its
        official loader.
    """
    colours: list[Transform] = [
        _jitter(0.1, 0.03, 0.03, 0),
        RandomGrey(),
        PerFrame(_jitter(0.1, 0.05, 0.05, 0)),
    ]
    return Compose([AffineCrop(size, degrees=25, shear=20), *colours])


def stcn_picture(size: int = 384, *, num_frames: int = 3) -> Compose:
    """How STCN makes a clip from a picture. Source: as `stcn_video`."""
    motion = PictureMotion(size, num_frames=num_frames, zoom=(0.8, 1.5), frame_zoom=(0.9, 1.1))
    return Compose([motion, *_picture_colours()])


def cutie_picture(size: int = 384, *, num_frames: int = 3) -> Compose:
    """How Cutie makes a clip from a picture. Source: as `cutie_video`."""
    motion = PictureMotion(size, num_frames=num_frames, zoom=(0.5, 2.0), frame_zoom=(0.5, 2.0))
    return Compose([motion, *_picture_colours()])


def _picture_colours() -> list[Transform]:
    return [_jitter(0.1, 0.05, 0.05, 0.05), RandomGrey(), PerFrame(_jitter(0.1, 0.05, 0.05, 0))]


def _size_of(clip: Clip) -> Size:
    height, width = clip.frames.shape[-2:]
    return height, width


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _spread(amount: float, generator: torch.Generator) -> float:
    return _uniform(-amount, amount, generator)
