"""The embedded default data: generated clips of textured objects moving over a moving textured background.

Everything about a clip follows from 64-bit hashes of (dataset seed, split, draw), so a clip is the same
whether it is made alone or in a batch, and clips of the two splits never share a key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.sampling import Draw
from vosssl.data.surfaces import ANGLE_BINS, LATTICE, atlas_of, draw_colours, draw_outlines, draw_textures
from vosssl.data.video import Video, clip_video
from vosssl.ops.noise import Numbers, mix

PERIOD = 3.0  # an object's texture repeats after so many radii, so never inside the object
GROUP = 8  # clips made at once: their temporaries fit into the cache
WRAP_MARGIN = 0.35  # travellers jump to the other side this far outside the picture (in picture sizes)
MAX_OBJECTS = 254


class Motion(NamedTuple):
    """Similarity motion of every surface over time; the background is the last surface.

    Attributes:
        centre: (B, N+1, T+1, 2) pixels (x, y).
        angle: (B, N+1, T+1) radians.
        radius: (B, N+1, T+1) pixels.
    """

    centre: Tensor
    angle: Tensor
    radius: Tensor


class _Pixels(NamedTuple):
    """Pixels of one clip: column and row (P,) float, number of the first surface of their frame (P,)."""

    first: Tensor
    column: Tensor
    row: Tensor


class SyntheticClips:
    """Clips of 3 to 8 moving, textured, mutually occluding objects with exact labels and forward flow.

    Objects are ellipses, polygons, stars and blobs with noise, stripes, checkers or gradients; a quarter take
    over the colours of another object. Half bounce inside the picture, half travel through it (they enter and
    leave); all rotate and change size. The background moves too.

    Args:
        size: H and W in pixels, or (H, W).
        frames: T.
        objects: smallest and largest number of objects per clip.
        count: clips per epoch.
        split: which of two disjoint universes of clips.
        seed: another seed gives other clips.
        flow: whether clips carry flow (a fifth of the cost).
        alike: all objects of a clip share outline, texture and colours, so that only place and motion tell
            them apart; nothing else changes.

    Raises:
        ValueError: sizes below 8 pixels, no frame, an impossible number of objects or an unknown split.
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int] = 64,
        frames: int = 8,
        objects: Sequence[int] = (3, 8),
        count: int = 10_000,
        split: Literal["train", "val"] = "train",
        seed: int = 0,
        flow: bool = True,
        alike: bool = False,
    ) -> None:
        self.height, self.width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.frames, self.count, self.split, self.seed, self.flow = frames, count, split, seed, flow
        self.alike = alike
        self.fewest, self.most = int(objects[0]), int(objects[1])
        if min(self.height, self.width) < 8 or frames < 1 or count < 1:
            raise ValueError(
                f"synthetic clips of size {size}, {frames} frames, {count} clips: expected a size of at "
                "least 8 pixels, and at least one frame and one clip"
            )
        if not 0 <= self.fewest <= self.most <= MAX_OBJECTS or self.most == 0:
            raise ValueError(f"objects is {tuple(objects)}, expected (fewest, most) within 0..{MAX_OBJECTS}")
        if split not in ("train", "val"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'val'")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw | int | tuple[int, int]) -> Clip:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw | int | tuple[int, int]]) -> list[Clip]:
        """Many clips at once.

        Args:
            draws: (index, seed) each; a bare index means seed 0.

        Returns:
            One clip per draw.

        Raises:
            IndexError: an index outside 0..len - 1.
        """
        keys = self.keys(draws)
        names = [f"synthetic-{self.split}-{_pair(draw)[0]:06d}-{_pair(draw)[1]}" for draw in draws]
        return [
            clip
            for start in range(0, len(draws), GROUP)
            for clip in self._make(keys[start : start + GROUP], names[start : start + GROUP])
        ]

    def keys(self, draws: Sequence[Draw | int | tuple[int, int]]) -> Tensor:
        """One 64-bit key per draw, even for training clips and odd for held-out ones.

        Args:
            draws: (index, seed) each; a bare index means seed 0.

        Returns:
            (B,) int64.

        Raises:
            IndexError: an index outside 0..len - 1.
        """
        pairs = [_pair(draw) for draw in draws]
        for index, _ in pairs:
            if not 0 <= index < self.count:
                raise IndexError(f"clip {index} of {self.count} synthetic clips")
        indices, seeds = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        keys = mix(mix(mix(torch.tensor(self.seed)) + seeds) + indices)
        return keys * 2 + (self.split == "val")

    def clips(self) -> Iterator[Clip]:
        """Every clip once, in order, made in groups."""
        for start in range(0, self.count, GROUP):
            yield from self.__getitems__(list(range(start, min(start + GROUP, self.count))))

    def videos(self) -> Iterator[Video]:
        """Every clip once as a video, for evaluation; clips are made in groups as they are asked for."""
        for clip in self.clips():
            yield clip_video(clip)

    def _make(self, keys: Tensor, names: Sequence[str]) -> list[Clip]:
        surfaces = self.most + 1
        numbers = Numbers(keys, 64 * surfaces + surfaces * LATTICE * LATTICE)
        extent = numbers.take(1)[:, 0] * (self.most - self.fewest + 1)
        active = torch.arange(self.most) < self.fewest + extent.floor()[:, None]  # (B, N)
        motion = self._motion(numbers)
        outlines = draw_outlines(numbers, self.most)  # (B, N, bins)
        side = 32 if min(self.height, self.width) <= 96 else 64
        textures, colours = draw_textures(numbers, surfaces, side), draw_colours(numbers, self.most)
        if self.alike:  # the first object's looks for all of them
            for looks in (outlines, textures, colours):
                looks[:, : self.most] = looks[:, :1].clone()
        atlas = atlas_of(textures, colours)
        # surfaces are numbered front first; a random permutation of the present ones makes their ids
        ids = (numbers.take(self.most) + ~active).argsort(dim=1).argsort(dim=1) + 1  # (B, N)
        ids = F.pad(ids, (0, 1)).to(torch.uint8)  # (B, N+1), 0 for the background

        local = _local_maps(motion)  # (B, T, N+1, 4)
        front, behind, alpha = self._layers(local, motion.radius, outlines, active)
        visible = torch.where(alpha >= 0.5, front, behind).long()  # (B, T, H, W)
        frames = self._paint(local, atlas, front, behind, alpha)
        labels = ids.gather(1, visible.flatten(1)).view(visible.shape)
        flow = self._flow(motion, visible) if self.flow else None
        return [
            Clip(
                name=name,
                frames=frames[row],
                labels=labels[row],
                frame_names=tuple(f"{frame:05d}" for frame in range(self.frames)),
                flow=None if flow is None else flow[row],
            )
            for row, name in enumerate(names)
        ]

    def _motion(self, numbers: Numbers) -> Motion:
        """Draws how everything moves; positions in picture sizes first, pixels at the end."""
        count, scale = self.most, float(min(self.height, self.width))
        box = torch.tensor([self.width, self.height], dtype=torch.float32)
        time = torch.arange(self.frames + 1, dtype=torch.float32)

        heading = numbers.take(count, high=2 * math.pi)
        speed = numbers.take(count, low=0.008, high=0.06) * scale
        velocity = torch.stack([heading.cos(), heading.sin()], -1) * speed[..., None] / box  # (B, N, 2)
        inside_at = numbers.take(count, high=self.frames)  # when travellers are at the drawn place
        bounces = numbers.chance(0.5, count)
        start = numbers.take(count, 2, low=0.05, high=0.95)
        start = torch.where(bounces[..., None], start, start - velocity * inside_at[..., None])
        path = start[:, :, None] + velocity[:, :, None] * time[:, None]  # (B, N, T+1, 2)
        bounced = 1 - ((path % 2) - 1).abs()
        wrapped = (path + WRAP_MARGIN) % (1 + 2 * WRAP_MARGIN) - WRAP_MARGIN
        centre = torch.where(bounces[..., None, None], bounced, wrapped) * box

        spin = numbers.take(count, low=-0.15, high=0.15)
        angle = numbers.take(count, high=2 * math.pi)[..., None] + spin[..., None] * time
        pulse = numbers.take(count, low=0.05, high=0.25)[..., None] * torch.sin(
            numbers.take(count, high=2 * math.pi)[..., None]
            + numbers.take(count, low=0.1, high=0.5)[..., None] * time
        )
        radius = numbers.take(count, low=0.09, high=0.19)[..., None] * scale * pulse.exp()

        drift = numbers.take(1, 2, low=-0.025, high=0.025) * scale
        back_centre = box / 2 + drift[:, :, None] * time[:, None]  # (B, 1, T+1, 2)
        back_angle = (
            numbers.take(1, high=2 * math.pi)[..., None]
            + numbers.take(1, low=-0.015, high=0.015)[..., None] * time
        )
        back_pulse = 0.1 * torch.sin(numbers.take(1, high=2 * math.pi)[..., None] + 0.15 * time)
        return Motion(
            centre=torch.cat([centre, back_centre], 1),
            angle=torch.cat([angle, back_angle], 1),
            radius=torch.cat([radius, scale / PERIOD * back_pulse.exp()], 1),
        )

    def _layers(
        self, local: Tensor, radius: Tensor, outlines: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the frontmost surface that touches each pixel, its coverage, and the solid one behind it.

        Args:
            local: (B, T, N+1, 4) maps from pixels to surfaces.
            radius: (B, N+1, T+1) pixels.
            outlines: (B, N, bins).
            active: (B, N) bool.

        Returns:
            Front and behind (B, T, H, W) uint8 surface numbers (N is the background), and the front one's
            coverage (B, T, H, W) in [0, 1].
        """
        shape = (*local.shape[:2], self.height, self.width)
        column, row = (
            torch.arange(self.width, dtype=torch.float32),
            torch.arange(self.height, dtype=torch.float32),
        )
        front = torch.full(shape, self.most, dtype=torch.uint8)
        solid, behind = front.clone(), front.clone()
        alpha = torch.ones(shape)
        pixels = radius[:, :-1, :-1] * active[..., None]  # (B, N, T), 0 for absent objects
        for surface in range(int(active.sum(1).max()) - 1, -1, -1):
            p, q, e, f = local[:, :, surface, :, None].unbind(2)  # (B, T, 1) each
            x = (p * column)[..., None, :] + (q * row + e)[..., None]  # (B, T, H, W)
            y = (p * row + f)[..., None] - (q * column)[..., None, :]
            share = x / (x.abs() + y.abs()).add_(1e-6)
            # position along a unit diamond, 0..4 once around: an angle without trigonometry
            turn = (share + 1).copysign_(y).neg_().add_(2).mul_(ANGLE_BINS / 4)
            bins = turn.to(torch.int64).clamp_(0, ANGLE_BINS - 1)
            edge = outlines[:, surface].gather(1, bins.flatten(1)).view(shape)  # (B, T*H*W) -> (B, T, H, W)
            distance = x.mul_(x).addcmul_(y, y).sqrt_()
            here = active[:, surface, None, None, None]
            cover = (
                (edge.sub_(distance).mul_(pixels[:, surface, :, None, None]))
                .add_(0.5)
                .clamp_(0, 1)
                .mul_(here)
            )
            touched = cover > 0
            behind = torch.where(touched, solid, behind)
            front.masked_fill_(touched, surface)
            alpha = torch.where(touched, cover, alpha)
            solid.masked_fill_(cover >= 0.5, surface)
        return front, behind, alpha

    def _paint(self, local: Tensor, atlas: Tensor, front: Tensor, behind: Tensor, alpha: Tensor) -> Tensor:
        """(B, T, 3, H, W) uint8; pixels on an edge blend the two surfaces that meet there.

        One clip at a time: its atlas and pixels stay in the cache, and no rounding depends on other clips.
        """
        area = self.height * self.width
        place = torch.arange(area).repeat(self.frames)  # (T*H*W,)
        row = torch.div(place, self.width, rounding_mode="floor")
        pixels = _Pixels(
            first=torch.arange(self.frames).repeat_interleave(area) * (self.most + 1),
            column=(place - row * self.width).float(),
            row=row.float(),
        )
        front, behind = front.long(), behind.long()
        frames = torch.empty(len(front), self.frames, 3, self.height, self.width, dtype=torch.uint8)
        for clip in range(len(front)):
            maps = local[clip].flatten(0, 1).t().contiguous()  # (T, N+1, 4) -> (4, T*(N+1))
            painted = _look_up(maps, atlas[clip], front[clip].flatten(), pixels)  # (3, T*H*W)
            weight = alpha[clip].flatten()
            edges = (weight < 1).nonzero()[:, 0]
            weight = weight[edges]
            at_edges = _Pixels(*(values[edges] for values in pixels))
            below = _look_up(maps, atlas[clip], behind[clip].flatten()[edges], at_edges)
            painted[:, edges] = torch.lerp(below, painted[:, edges], weight)
            painted = painted.mul_(255).add_(0.5).view(3, self.frames, self.height, self.width)
            frames[clip] = painted.transpose(0, 1)  # (3, T, H, W) -> (T, 3, H, W); rounds down
        return frames

    def _flow(self, motion: Motion, visible: Tensor) -> Tensor:
        """(B, T, 2, H, W): where the visible surface of each pixel goes until the next frame."""
        turn = motion.angle[..., 1:] - motion.angle[..., :-1]
        growth = motion.radius[..., 1:] / motion.radius[..., :-1]
        cosine, sine = growth * turn.cos(), growth * turn.sin()  # (B, N+1, T)
        before, after = motion.centre[:, :, :-1], motion.centre[:, :, 1:]
        shift_x = after[..., 0] - cosine * before[..., 0] + sine * before[..., 1]
        shift_y = after[..., 1] - sine * before[..., 0] - cosine * before[..., 1]
        maps = torch.stack([cosine - 1, sine, shift_x, shift_y]).transpose(2, 3)  # (4, B, T, N+1)
        index = visible.flatten(2)  # (B, T, H*W)
        a, b, x, y = (values.gather(2, index).view(visible.shape) for values in maps.unbind(0))
        column = torch.arange(self.width, dtype=torch.float32)
        row = torch.arange(self.height, dtype=torch.float32)[:, None]
        return torch.stack([a * column - b * row + x, b * column + a * row + y], 2)


def _pair(draw: Draw | int | tuple[int, int]) -> tuple[int, int]:
    return (draw, 0) if isinstance(draw, int) else (int(draw[0]), int(draw[1]))


def _local_maps(motion: Motion) -> Tensor:
    """Maps from pixels to surface coordinates in radii: (B, T, N+1, 4).

    Of p, q, e, f each: x' = p x + q y + e and y' = p y - q x + f.
    """
    angle, radius, centre = motion.angle[..., :-1], motion.radius[..., :-1], motion.centre[..., :-1, :]
    p, q = angle.cos() / radius, angle.sin() / radius
    e = -(p * centre[..., 0] + q * centre[..., 1])
    f = -(p * centre[..., 1] - q * centre[..., 0])
    return torch.stack([p, q, e, f], -1).transpose(1, 2).contiguous()  # (B, N+1, T, 4) -> (B, T, N+1, 4)


def _look_up(maps: Tensor, atlas: Tensor, surface: Tensor, pixels: _Pixels) -> Tensor:
    """Colours (3, P) of the given surfaces (P,) at pixels of one clip, whose maps are (4, T * (N+1))."""
    side = atlas.shape[2] - 1
    p, q, e, f = maps[:, pixels.first + surface].unbind(0)  # (P,) each
    u = (p * pixels.column + q * pixels.row + e) / PERIOD
    v = (p * pixels.row - q * pixels.column + f) / PERIOD
    u, v = (u - u.floor()) * side, (v - v.floor()) * side + surface * (side + 1)
    grid = torch.stack([u * (2 / side) - 1, v * (2 / (atlas.shape[1] - 1)) - 1], -1)  # (P, 2) in [-1, 1]
    return F.grid_sample(atlas[None], grid[None, None], align_corners=True, padding_mode="border")[0, :, 0]
