"""How a box moves: a Kalman filter with constant velocity.

The state is the box's centre x and y, its aspect (width / height) and its height, and the change of each per
frame. How far boxes are trusted grows with their height, so the unit of length does not matter.

Source: Wojke et al., "Simple Online and Realtime Tracking with a Deep Association Metric", ICIP 2017, section
2.1, with the constants of its code, which SAMURAI uses unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POSITION_NOISE = 1 / 20  # standard deviations, in heights of the box
VELOCITY_NOISE = 1 / 160
ASPECT_NOISE, ASPECT_VELOCITY_NOISE, MEASURED_ASPECT_NOISE = 1e-2, 1e-5, 1e-1
FIRST_POSITION, FIRST_VELOCITY = 2, 10  # how much less a new state is known
COORDINATES = 4


class BoxMotion(NamedTuple):
    """What is believed of a box.

    Attributes:
        mean: (8,) float64 centre x, y, aspect, height; then their velocities.
        covariance: (8, 8) float64.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def box(self) -> Tensor:
        """(4,) left, top, right, bottom."""
        x, y, aspect, height = self.mean[:COORDINATES]
        half_width, half_height = aspect * height / 2, height / 2
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height])


def started(box: Tensor) -> BoxMotion:
    """A box that was seen once and rests.

    Args:
        box: (4,) left, top, right, bottom, with an area.

    Returns:
        What is believed of it.
    """
    measured = _measured(box)
    height = measured[3]
    position, velocity = FIRST_POSITION * POSITION_NOISE * height, FIRST_VELOCITY * VELOCITY_NOISE * height
    deviations = _deviations(position, ASPECT_NOISE, velocity, ASPECT_VELOCITY_NOISE)
    return BoxMotion(torch.cat([measured, torch.zeros_like(measured)]), deviations.square().diag())


def predicted(motion: BoxMotion) -> BoxMotion:
    """What is believed one frame later."""
    height = motion.mean[3]
    noise = _deviations(POSITION_NOISE * height, ASPECT_NOISE, VELOCITY_NOISE * height, ASPECT_VELOCITY_NOISE)
    step = torch.eye(2 * COORDINATES, dtype=torch.float64)
    step[:COORDINATES, COORDINATES:] = torch.eye(COORDINATES, dtype=torch.float64)
    return BoxMotion(step @ motion.mean, step @ motion.covariance @ step.T + noise.square().diag())


def corrected(motion: BoxMotion, box: Tensor) -> BoxMotion:
    """What is believed once a box was seen.

    Args:
        motion: predicted for this frame.
        box: (4,) left, top, right, bottom, with an area.

    Returns:
        What is believed now.
    """
    position = POSITION_NOISE * motion.mean[3]
    noise = torch.stack([position, position, position.new_tensor(MEASURED_ASPECT_NOISE), position])
    seen = motion.covariance[:COORDINATES, :COORDINATES] + noise.square().diag()  # (4, 4)
    gain = torch.linalg.solve(seen, motion.covariance[:COORDINATES]).T  # (8, 4)
    surprise = _measured(box) - motion.mean[:COORDINATES]
    return BoxMotion(motion.mean + gain @ surprise, motion.covariance - gain @ seen @ gain.T)


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of a box with others; 0 with those that have no area.

    Args:
        box: (4,) left, top, right, bottom.
        boxes: (K, 4).

    Returns:
        (K,) in [0, 1].
    """
    common = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])
    intersection = common.clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    union = (box[2:] - box[:2]).prod() + areas - intersection
    return torch.where(areas > 0, intersection / union, 0.0)


def _measured(box: Tensor) -> Tensor:
    """(4,) left, top, right, bottom to centre x, y, aspect and height, float64."""
    box = box.to(dtype=torch.float64, device="cpu")
    width, height = box[2:] - box[:2]
    return torch.stack([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])


def _deviations(position: Tensor, aspect: float, velocity: Tensor, aspect_velocity: float) -> Tensor:
    """(8,) standard deviations in the order of the state."""
    fixed, fixed_velocity = position.new_tensor(aspect), position.new_tensor(aspect_velocity)
    return torch.stack([position, position, fixed, position, velocity, velocity, fixed_velocity, velocity])
