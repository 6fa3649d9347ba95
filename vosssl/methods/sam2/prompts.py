"""What people say of objects, as the network wants it, and what may be wrong about it."""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.layers.prompt_encoder import NEGATIVE, POSITIVE, boxes_as_points
from vosssl.ops.resize import Size
from vosssl.propagation.segmenter import Box, Clicks

LARGEST_LOGIT = 32.0  # of an earlier result that accompanies clicks


def require_inside(prompt: Clicks | Box, size: Size) -> None:
    """Refuses clicks outside the frame, and boxes that do not touch it.

    Args:
        prompt: in pixels of the frame.
        size: (H, W) of the frame.

    Raises:
        ValueError: naming what lies outside.
    """
    height, width = size
    if isinstance(prompt, Box):
        if prompt.left >= width or prompt.top >= height or prompt.right <= 0 or prompt.bottom <= 0:
            raise ValueError(
                f"{prompt} lies outside the frames of {width} x {height}; give pixels of the frame"
            )
        return
    points = prompt.points
    inside = (points >= 0).all() and (points <= points.new_tensor([width, height])).all()
    if not inside:
        raise ValueError(
            f"clicks {points.tolist()} are not all inside the frames of {width} x {height}; give x and y in "
            "pixels of the frame"
        )


def require_object(mask: Tensor, identity: int) -> None:
    """Refuses the empty mask of an object of which nothing else is known.

    Raises:
        ValueError: the mask is empty.
    """
    if not bool((mask > 0).any()):
        raise ValueError(
            f"mask of object {identity} is empty, and nothing else is known of this object; give a mask with "
            "pixels, clicks or a box. An empty mask says that a known object is not there"
        )


def as_points(*, clicks: Clicks | None = None, box: Box | None = None) -> tuple[Tensor, Tensor]:
    """Points that are counted from pixels' centres, and their labels, on the CPU.

    Args:
        clicks: on and off the object.
        box: around it.

    Returns:
        (P, 2) and (P,): corners of the box first.

    Raises:
        ValueError: neither was given.
    """
    points, labels = [], []
    if box is not None:
        corners, kinds = boxes_as_points(torch.tensor([[box.left, box.top, box.right, box.bottom]]))
        points.append(corners[0].float())
        labels.append(kinds[0])
    if clicks is not None:
        points.append(clicks.points.float().cpu() - 0.5)
        labels.append(torch.where(clicks.positive.cpu(), POSITIVE, NEGATIVE).int())
    if not points:
        raise ValueError("there is no prompt; give clicks, a box or a mask")
    return torch.cat(points), torch.cat(labels)
