"""Maps of the plane: affine changes of a frame, windows of it, thin-plate splines.

Coordinates are continuous pixels (x, y): the first pixel reaches from 0 to 1 and has its centre at 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosssl.ops.resize import Size


def affine_map(
    size: Size, *, angle: float = 0.0, zoom: float = 1.0, shear: float = 0.0, mirror: bool = False
) -> Tensor:
    """How an affine change about the centre moves points of a frame.

    Args:
        size: (height, width) of the frame.
        angle: clockwise rotation, degrees.
        zoom: enlargement.
        shear: of x along y, degrees, before the rotation.
        mirror: left to right, before everything else.

    Returns:
        (3, 3) float64: homogeneous (x, y, 1) -> (x, y, 1). The same map as torchvision's `affine`.
    """
    turn, slant = math.radians(angle), math.tan(math.radians(shear))
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    linear = torch.tensor([[cos, -cos * slant - sin], [sin, -sin * slant + cos]], dtype=torch.float64)
    if mirror:
        linear = linear * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    centre = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - linear @ centre
    return matrix


def window_map(top: float, left: float, window: tuple[float, float], size: Size) -> Tensor:
    """How points of a result correspond to places in the window that it shows.

    Args:
        top: first row of the window.
        left: its first column.
        window: (height, width) of the window.
        size: (height, width) of the result.

    Returns:
        (3, 3) float64: (x, y, 1) in the result -> (x, y, 1) in the frame.
    """
    return torch.tensor(
        [[window[1] / size[1], 0.0, left], [0.0, window[0] / size[0], top], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )


def pixel_centres(size: Size) -> Tensor:
    """(h, w, 2) float32, the centres (x, y) of all pixels."""
    rows, columns = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1)


def mapped_pixels(size: Size, matrix: Tensor) -> Tensor:
    """(h, w, 2) float32, the centres of all pixels moved by a (3, 3) affine matrix."""
    (a, b, c), (d, e, f) = matrix[:2].tolist()
    x, y = torch.arange(size[1]) + 0.5, (torch.arange(size[0]) + 0.5)[:, None]
    return torch.stack([a * x + (b * y + c), d * x + (e * y + f)], -1)  # (w,) and (h, 1) -> (h, w)


def mapped(points: Tensor, matrix: Tensor) -> Tensor:
    """Points (..., 2) moved by a (3, 3) affine matrix."""
    own = matrix.to(points.dtype)
    return points @ own[:2, :2].T + own[:2, 2]


def thin_plate_spline(points: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """The smoothest map of the plane that takes each source to its target, applied to points.

    Args:
        points: (..., 2) places to be moved.
        sources: (N, 2) control points, N >= 3 and not all in one line.
        targets: (N, 2) where they go.

    Returns:
        (..., 2), of the dtype of points.

    Raises:
        ValueError: control points that decide no map.

    Source: Bookstein, "Principal warps: thin-plate splines and the decomposition of deformations", TPAMI
        1989, equations 5 to 8.
    """
    count = len(sources)
    if count < 3 or sources.shape != targets.shape:
        raise ValueError(
            f"a thin-plate spline got control points {tuple(sources.shape)} and {tuple(targets.shape)}, "
            "expected (N, 2) both, N of 3 or more"
        )
    exact = sources.double()
    affine = torch.cat([torch.ones(count, 1, dtype=torch.float64), exact], 1)  # (N, 3)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = _bending(exact[:, None] - exact)
    system[:count, count:], system[count:, :count] = affine, affine.T
    wanted = torch.cat([targets.double(), torch.zeros(3, 2, dtype=torch.float64)])
    weights, info = torch.linalg.solve_ex(system, wanted)  # (N+3, 2)
    if int(info) or not bool(weights.isfinite().all()):
        raise ValueError("a thin-plate spline got control points in one line, or one of them twice")
    weights = weights.to(points.dtype)
    moved = weights[count] + points @ weights[count + 1 :]
    flat = points.reshape(-1, 2)
    distances = flat[:, None] - sources.to(points.dtype)  # (P, N, 2)
    return moved + (_bending(distances) @ weights[:count]).view(points.shape)


def _bending(differences: Tensor) -> Tensor:
    """(...) the kernel r^2 log r of differences (..., 2); 0 at 0."""
    squared = differences.square().sum(-1)
    return torch.special.xlogy(squared, squared) / 2
