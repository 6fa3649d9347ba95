"""A generated video: three shapes cross each other over a moving textured ground; with its true labels."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

COLOURS = ((206, 62, 48), (48, 104, 214), (236, 186, 40))  # RGB of disk, block and diamond


def moving_shapes(
    *, frames: int = 200, height: int = 192, width: int = 320, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The video.

    Args:
        frames: T.
        height, width: of a frame.
        seed: of the textures.

    Returns:
        (T, 3, H, W) uint8 RGB and (T, H, W) uint8 ids: 1 a disk, 2 a turning block, 3 a turning diamond. The
        higher id lies in front; paths are smooth and cross, shapes change their size.
    """
    numbers = np.random.default_rng(seed)
    ground = _texture(numbers, (2 * height, 2 * width), (96, 122, 88), 26)
    skins = [_texture(numbers, (height, width), colour, 16) for colour in COLOURS]
    images = np.empty((frames, height, width, 3), np.uint8)
    labels = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        phase = 2 * math.pi * t / 200
        shift = (round(height / 2 * (1 + math.sin(phase) / 2)), round(width / 2 * (1 + math.cos(phase) / 2)))
        images[t] = ground[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
        for identity, corners in enumerate(_outlines(phase, height, width), start=1):
            mask = np.zeros((height, width), np.uint8)
            cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
            centre = corners.mean(0)
            moved = np.roll(skins[identity - 1], (int(centre[1]), int(centre[0])), (0, 1))
            images[t][mask > 0] = moved[mask > 0]
            labels[t][mask > 0] = identity
        images[t] = cv2.GaussianBlur(images[t], (3, 3), 0)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def _texture(numbers: np.random.Generator, size: tuple[int, int], colour: object, depth: float) -> np.ndarray:
    """(H, W, 3) uint8 of one colour with soft spots."""
    rough = numbers.standard_normal((size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.float32)
    spots = cv2.resize(rough, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(np.array(colour, np.float32) + depth * spots, 0, 255).astype(np.uint8)


def _outlines(phase: float, height: int, width: int) -> list[np.ndarray]:
    """Corners (N, 2), x and y, of the three shapes."""
    unit = height / 6
    sines = [math.sin(phase), math.sin(2 * phase + 0.7), math.cos(phase + 0.3)]
    centres = [
        (width * (0.5 + 0.30 * sines[0]), height * (0.45 + 0.12 * sines[1])),
        (width * (0.5 - 0.28 * sines[2]), height * (0.58 + 0.14 * sines[0])),
        (width * (0.5 + 0.26 * sines[1]), height * (0.42 - 0.16 * sines[2])),
    ]
    radii = [unit * (1.1 + 0.15 * sines[1]), unit * (1.25 + 0.2 * sines[2]), unit * (1.2 + 0.15 * sines[0])]
    corners, turns = (32, 4, 4), (0.0, phase, 0.5 - 1.5 * phase)
    found = []
    for place, centre in enumerate(centres):
        angles = 2 * math.pi * np.arange(corners[place]) / corners[place] + turns[place]
        stretch = (1.0, 0.7) if place == 2 else (1.0, 1.0)
        circle = np.stack([np.cos(angles), np.sin(angles)], 1)
        found.append(np.array(centre) + radii[place] * circle * np.array(stretch))
    return found
