"""Multi-crop: a few large and several small views of the same scene, at two moments where there are two.

Where a patch of one large view is seen in the other is known from the crops' geometry and, between two
moments, from optical flow: the clip's own, or one that is estimated on the frames; checked there and back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.flow import estimate_flow
from vosssl.data.sampling import (
    ClipDataset,
    Draw,
    as_draw,
    fingerprint_of,
    generator_of,
    mixed_seed,
    read_draws,
)
from vosssl.data.transforms import ColourJitter, RandomResizedCrop
from vosssl.data.warps import RandomGrey
from vosssl.ops.flow import chained, consistent, turned_back, warp
from vosssl.ops.resize import Size, resize_image

LOCAL = "local_crops"  # key of the small views among a clip's features
MATCHES = "matches"  # key of where patches are seen in the other large view
_SOLARISED_FROM = 128  # as in Pillow
_SAME_COLOUR = (
    30.0  # of 255, mean over channels: a larger change along exact flow is another surface in front
)
_FLOW_REDUCTION = 2  # flow is estimated at half size, a quarter of the time: a patch's place needs no more


@dataclass(frozen=True)
class Crop:
    """A window of a frame, resized to a square, perhaps mirrored.

    Attributes:
        top, left: first row and column.
        window: (height, width) pixels of the frame.
        size: side of the result.
        mirrored: left to right.
    """

    top: int
    left: int
    window: Size
    size: int
    mirrored: bool

    def cut(self, frame: Tensor) -> Tensor:
        """The crop (3, size, size) uint8 of a frame (3, H, W) uint8."""
        height, width = self.window
        part = frame[:, self.top : self.top + height, self.left : self.left + width].float()
        if self.mirrored:
            part = part.flip(-1)
        return resize_image(part, (self.size, self.size)).round().clamp(0, 255).to(torch.uint8)

    def to_frame(self, places: Tensor) -> Tensor:
        """Places (..., 2), x and y with pixel centres at half-integers, from the crop to its frame."""
        x, y = places.unbind(-1)
        x = self.size - x if self.mirrored else x
        height, width = self.window
        return torch.stack([self.left + x * width / self.size, self.top + y * height / self.size], -1)

    def from_frame(self, places: Tensor) -> Tensor:
        """The inverse of `to_frame`; places outside the window get coordinates outside the crop."""
        x, y = places.unbind(-1)
        height, width = self.window
        x, y = (x - self.left) * self.size / width, (y - self.top) * self.size / height
        return torch.stack([self.size - x if self.mirrored else x, y], -1)


class MultiCrop:
    """Two large and several small crops of each clip of another dataset, a pure function of the draw.

    The first large crop is of an earlier frame, the second of a later one; small crops come from both. Clips
    of one frame give all crops of that frame. The flow of clips that have it is taken for exact.

    Args:
        clips: any clip dataset; clips of two or more frames give two moments.
        size: side of the large crops.
        scale: least and largest share of the region's area that a large crop covers.
        local_size: side of the small crops.
        local_scale: likewise for small crops.
        local_crops: how many small crops; even.
        region: side of the square of the frame, drawn anew for each clip, in which all crops lie; None: the
            whole frame. A small region keeps pixels near their size in the frame, and crops overlapping.
        colour: how strong the colours are changed: 1 as DINO does it, 0 not at all.
        mirror: probability of mirroring each crop.
        same_place: whether both large crops have the same window, so that place counts as it does in a video.
        patch_size: say where patches of this side are seen in the other large crop (slower by the flow where
            clips have none); None: do not.

    Raises:
        ValueError: crops that make no sense.

    Source: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
        NeurIPS 2020 (multi-crop); DINO's augmentations.
    """

    def __init__(
        self,
        clips: ClipDataset,
        *,
        size: int = 224,
        scale: Sequence[float] = (0.4, 1.0),
        local_size: int = 96,
        local_scale: Sequence[float] = (0.05, 0.4),
        local_crops: int = 8,
        region: int | None = None,
        colour: float = 1.0,
        mirror: float = 0.5,
        same_place: bool = False,
        patch_size: int | None = None,
    ) -> None:
        if local_crops < 0 or local_crops % 2:
            raise ValueError(f"local_crops is {local_crops}, expected an even number: both frames give half")
        if patch_size is not None and size % patch_size:
            raise ValueError(f"size {size} is no multiple of patch_size {patch_size}")
        if not 0 <= colour <= 1:
            raise ValueError(f"colour is {colour}, expected 0 (unchanged) to 1 (as DINO changes colours)")
        self.clips = clips
        self.large = RandomResizedCrop(size, scale=scale)
        self.small = RandomResizedCrop(local_size, scale=local_scale)
        self.local_crops = local_crops
        self.region = region
        self.colour = colour
        self.mirror = mirror
        self.same_place = same_place
        self.patch_size = patch_size

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw | int) -> Clip:
        return self.__getitems__([as_draw(draw)])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Clip]:
        """Many clips at once; see the class.

        Returns:
            Clips of the two large crops (2, 3, size, size) uint8, without labels, with the features `LOCAL`
            (2, n / 2, 3, s, s) uint8 and, where asked for, `MATCHES` (2, P, 2): column and row, in patches
            of the other large crop, where each patch is seen there, NaN where it is not or is not known.
        """
        clips = read_draws(self.clips, draws)
        return [self._cropped(clip, draw) for clip, draw in zip(clips, draws, strict=True)]

    def fingerprint(self) -> str:
        """A hash that changes when the crops may."""
        own = (self.large.size, self.large.scale, self.small.size, self.small.scale, self.local_crops)
        settings = (*own, self.region, self.colour, self.mirror, self.same_place, self.patch_size)
        return hashlib.sha256(f"{fingerprint_of(self.clips)} {settings!r}".encode()).hexdigest()

    def _cropped(self, clip: Clip, draw: Draw) -> Clip:
        generator = generator_of(mixed_seed(draw.seed, draw.index, 2))
        frames, flow = _two_moments(clip, self.region, generator)  # (2, 3, h, w), (2, h, w)
        native = (frames.shape[2], frames.shape[3])
        first = self._draw(self.large, native, generator)
        large = [first, first if self.same_place else self._draw(self.large, native, generator)]
        views = [
            recoloured(crop.cut(frame), generator, strength=self.colour, blur=blur, solarise=solarise)
            for frame, crop, blur, solarise in zip(frames, large, (1.0, 0.1), (0.0, 0.2), strict=True)
        ]
        small = [
            [
                recoloured(
                    self._draw(self.small, native, generator).cut(frame),
                    generator,
                    strength=self.colour,
                    blur=0.5,
                )
                for _ in range(self.local_crops // 2)
            ]
            for frame in frames
        ]
        features = {LOCAL: torch.stack([torch.stack(crops) for crops in small])} if self.local_crops else {}
        if self.patch_size is not None:
            features[MATCHES] = patch_matches(
                frames, large[0], large[1], patch_size=self.patch_size, flow=flow
            )
        return Clip(name=clip.name, frames=torch.stack(views), features=features)

    def _draw(self, crop: RandomResizedCrop, native: Size, generator: torch.Generator) -> Crop:
        top, left, window = crop.window(native, generator)
        return Crop(top, left, window, crop.size[0], _uniform(generator) < self.mirror)


def patch_matches(
    frames: Tensor, first: Crop, second: Crop, *, patch_size: int, flow: Tensor | None = None
) -> Tensor:
    """Where the patches of each of two crops are seen in the other.

    Args:
        frames: (2, 3, H, W) uint8, two moments; equal frames mean no motion.
        first: crop of the first frame.
        second: crop of the second frame.
        patch_size: P patches fit into each crop.
        flow: (2, H, W) pixels from the first frame to the second, exact; None: it is estimated.

    Returns:
        (2, P, 2) float32 column and row in patches of the other crop, 0 at the first patch's centre; NaN
        outside it, or where flow does not return to where it began.
    """
    if torch.equal(frames[0], frames[1]):
        both = torch.zeros(2, 2, *frames.shape[2:])
    else:
        both = _estimated_flow(frames) if flow is None else _exact_flow(frames, flow)
    known = consistent(both, both.flip(0))  # (2, H, W); false where flow is NaN
    return torch.stack(
        [
            _places(first, second, both[0], known[0], patch_size=patch_size),
            _places(second, first, both[1], known[1], patch_size=patch_size),
        ]
    )


def _estimated_flow(frames: Tensor) -> Tensor:
    """(2, 2, H, W) pixels: of the first frame to the second, and of the second to the first."""
    height, width = frames.shape[2:]
    small = resize_image(frames, (height // _FLOW_REDUCTION, width // _FLOW_REDUCTION))
    flow = estimate_flow(small)  # to the second frame, and that to the first with the sign turned
    factor = torch.tensor([width / small.shape[3], height / small.shape[2]])[:, None, None]
    flow = F.interpolate(flow, size=(height, width), mode="bilinear") * factor
    flow[1] *= -1
    return flow


def _exact_flow(frames: Tensor, flow: Tensor) -> Tensor:
    """As `_estimated_flow`, from forward flow (2, H, W); NaN where another colour is met: hidden."""
    change = (warp(frames[1:].float(), flow[None]) - frames[:1].float()).abs().mean(1)  # (1, H, W)
    forward = flow.masked_fill(change > _SAME_COLOUR, torch.nan)
    return torch.stack([forward, turned_back(forward)])


def recoloured(
    image: Tensor, generator: torch.Generator, *, strength: float, blur: float = 0.0, solarise: float = 0.0
) -> Tensor:
    """DINO's colour changes: jitter, grey, blur, solarisation, each by chance.

    Args:
        image: (3, H, W) uint8.
        generator: decides.
        strength: 1 as DINO; amounts and probabilities shrink with it; 0 changes nothing.
        blur: probability of a Gaussian blur of 0.1 to 2 pixels.
        solarise: probability of inverting bright pixels.
    """
    if strength == 0:
        return image
    jitter = ColourJitter(
        brightness=0.4 * strength,
        contrast=0.4 * strength,
        saturation=0.2 * strength,
        hue=0.1 * strength,
        probability=0.8,
    )
    clip = jitter(Clip(name="crop", frames=image[None]), generator)
    image = RandomGrey(probability=0.2 * strength)(clip, generator).frames[0]
    if _uniform(generator) < blur * strength:
        image = _blurred(image, 0.1 + 1.9 * _uniform(generator))
    if _uniform(generator) < solarise * strength:
        image = torch.where(image >= _SOLARISED_FROM, 255 - image, image)
    return image


def _two_moments(clip: Clip, region: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Two frames of a clip, the earlier first, cut to a random square region, and the flow between them.

    Returns:
        (2, 3, h, w) uint8, and (2, h, w) pixels, or None for a clip without flow.
    """
    if clip.frames.dtype != torch.uint8:
        clip = replace(clip, frames=(clip.frames * 255).round().to(torch.uint8))
    chosen = torch.randperm(len(clip), generator=generator)[:2].sort().values
    frames = clip.frames[chosen] if len(chosen) == 2 else clip.frames.expand(2, -1, -1, -1)
    flow = None
    if clip.flow is not None and len(chosen) == 2:
        flow = chained(clip.flow[chosen[0] : chosen[1]].float())
    if region is None:
        return frames, flow
    sides = [min(region, side) for side in frames.shape[2:]]
    top, left = (
        int(torch.randint(whole - side + 1, (), generator=generator))
        for whole, side in zip(frames.shape[2:], sides, strict=True)
    )
    rows, columns = slice(top, top + sides[0]), slice(left, left + sides[1])
    return frames[..., rows, columns], None if flow is None else flow[..., rows, columns]


def _places(crop: Crop, other: Crop, flow: Tensor, known: Tensor, *, patch_size: int) -> Tensor:
    """(P, 2) of one direction; see `patch_matches`."""
    count = crop.size // patch_size
    centres = (torch.arange(count) + 0.5) * patch_size
    x, y = torch.meshgrid(centres, centres, indexing="xy")
    start = crop.to_frame(torch.stack([x, y], -1).flatten(0, 1))  # (h, w, 2) -> (P, 2)
    column, row = (
        place.long().clamp(0, side - 1)
        for place, side in zip(start.unbind(-1), (known.shape[1], known.shape[0]), strict=True)
    )
    end = other.from_frame(start + flow[:, row, column].T) / patch_size - 0.5
    inside = ((end > -0.5) & (end < other.size // patch_size - 0.5)).all(-1) & known[row, column]
    return end.masked_fill(~inside[:, None], torch.nan)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (3, H, W) uint8, borders reflected."""
    reach = max(1, round(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    padded = F.pad(image.float()[:, None], (reach, reach, reach, reach), mode="reflect")  # (3, 1, H, W)
    soft = F.conv2d(F.conv2d(padded, taps[None, None, None]), taps[None, None, :, None])
    return soft[:, 0].round().clamp(0, 255).to(torch.uint8)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
