"""What generated objects are made of: outlines, textures and colours, from numbers that belong to a clip."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.noise import Numbers

ANGLE_BINS = 256  # bins of an outline: 0.3 pixels at a radius of 12
LATTICE = 8  # cells of the noise texture


def draw_outlines(numbers: Numbers, count: int) -> Tensor:
    """Draws what objects look like from outside: ellipses, polygons, stars and blobs.

    Args:
        numbers: of B clips.
        count: N objects.

    Returns:
        (B, N, ANGLE_BINS) radius over direction, about 1; bins divide the unit diamond evenly, not the angle.
    """
    turn = (torch.arange(ANGLE_BINS) + 0.5) * (4 / ANGLE_BINS)  # position along the unit diamond
    angle = torch.atan2(((turn - 1) % 4 - 2).abs() - 1, (turn - 2).abs() - 1)  # (bins,)
    kind = (numbers.take(count, 1) * 4).floor()
    aspect = numbers.take(count, 1, low=0.6, high=1.0)
    corners = numbers.take(count, 1, low=3, high=7).floor()
    depth = numbers.take(count, 1, low=0.15, high=0.3)
    phase = numbers.take(count, 1, high=2 * math.pi)
    ellipse = 1 / torch.sqrt((angle.cos() * aspect) ** 2 + (angle.sin() / aspect) ** 2)
    sector = 2 * math.pi / corners
    polygon = 1.15 * torch.cos(sector / 2) / torch.cos((angle % sector) - sector / 2)
    star = 1 + depth * torch.cos((corners + 1) * angle)
    blob = 1 + 0.8 * depth * (torch.cos(2 * angle + phase) + torch.cos(3 * angle - 2 * phase)) / 1.5
    outline = torch.where(
        kind == 0, ellipse, torch.where(kind == 1, polygon, torch.where(kind == 2, star, blob))
    )
    return outline.contiguous()


def draw_textures(numbers: Numbers, count: int, side: int) -> Tensor:
    """Draws periodic patterns: noise, stripes, checkers, gradients.

    Args:
        numbers: of B clips.
        count: N + 1 surfaces.
        side: of a pattern, in texels.

    Returns:
        (B, N+1, side, side) in [0, 1].
    """
    kind = (numbers.take(count, 1, 1) * 4).floor()
    waves_x = numbers.take(count, 1, 1, low=2, high=7).floor()
    waves_y = numbers.take(count, 1, 1, low=-5, high=6).floor()
    phase = numbers.take(count, 1, 1, high=2 * math.pi)
    lattice = numbers.take(count, LATTICE, LATTICE)
    v, u = torch.meshgrid(*[torch.arange(side) * (2 * math.pi / side)] * 2, indexing="ij")  # (side, side)
    stripes = torch.sin(waves_x * u + waves_y * v + phase)
    checker = torch.sin(waves_x * u + phase) * torch.sin(waves_x * v + phase) * 3
    slope = 0.5 + 0.5 * torch.sin(torch.where(waves_y > 0, u, v) + phase)
    sharp = 0.5 + 0.5 * torch.where(kind == 1, stripes * 3, checker).clamp(-1, 1)
    fine = F.interpolate(
        F.pad(lattice, (0, 1, 0, 1), mode="circular"),
        size=(side + 1, side + 1),
        align_corners=True,
        mode="bilinear",
    )
    fine = fine[..., :side, :side]
    # a second octave from the same lattice, shrunk: the pattern stays periodic
    octave = torch.roll(fine[..., ::2, ::2], (3, 5), (-2, -1)).repeat(1, 1, 2, 2)
    noise = ((0.65 * fine + 0.35 * octave - 0.5) * 1.6 + 0.5).clamp(0, 1)
    return torch.where(kind == 0, noise, torch.where(kind == 3, slope, sharp)).contiguous()


def draw_colours(numbers: Numbers, count: int) -> Tensor:
    """Draws two colours for each surface; a quarter of the objects take another's.

    Args:
        numbers: of B clips.
        count: N objects.

    Returns:
        (B, N+1, 2, 3) RGB in [0, 1], the background last.
    """
    first = numbers.take(count + 1, 3, low=0.03, high=0.97)
    second = torch.lerp(first, numbers.take(count + 1, 3), numbers.take(count + 1, 1, low=0.35, high=1.0))
    colours = torch.stack([first, second], 2)
    copies = numbers.chance(0.25, count)
    other = torch.where(copies, (torch.arange(count) + 1) % count, torch.arange(count))  # (B, N)
    clips = torch.arange(len(first))[:, None]
    return torch.cat([colours[clips, other], colours[:, count:]], 1)


def atlas_of(textures: Tensor, colours: Tensor) -> Tensor:
    """Coloured textures of a clip, one below the other, each ending with its first row and column again.

    Args:
        textures: (B, N+1, side, side) in [0, 1].
        colours: (B, N+1, 2, 3).

    Returns:
        (B, 3, (N+1) * (side+1), side+1).
    """
    padded = F.pad(textures, (0, 1, 0, 1), mode="circular")[:, :, None]  # (B, N+1, 1, side+1, side+1)
    first, second = colours[..., None, None].unbind(2)  # (B, N+1, 3, 1, 1) each
    return torch.lerp(first, second, padded).transpose(1, 2).flatten(2, 3).contiguous()
