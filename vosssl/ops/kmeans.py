"""k-means for many point sets at once, deterministic by seed."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each point.

    Args:
        points: (..., N, D) float.
        centres: (..., K, D) float.

    Returns:
        (..., N) int64.
    """
    return _distances(points, centres).argmin(dim=-1)


def kmeans(
    points: Tensor, clusters: int, *, seed: int = 0, iterations: int = 30, start: Tensor | None = None
) -> Tensor:
    """Lloyd's algorithm from a k-means++ start.

    Args:
        points: (B, N, D) float; each of the B sets is clustered on its own.
        clusters: K <= N.
        seed: of the start; the same points and seed give the same centres.
        iterations: at most; ends earlier when no centre moves.
        start: (B, K, D) centres to go on from, instead of a seeded start.

    Returns:
        (B, K, D) centres. A cluster that lost all its points keeps its centre.

    Raises:
        ValueError: fewer points than clusters.

    Source: Arthur and Vassilvitskii, k-means++, SODA 2007.
    """
    if points.ndim != 3 or points.shape[1] < clusters:
        raise ValueError(
            f"points are {tuple(points.shape)}, expected (B, N, D) with at least {clusters} points"
        )
    centres = _spread_start(points, clusters, seed=seed) if start is None else start
    for _ in range(iterations):
        moved = _means(points, nearest_centre(points, centres), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances less the points' own norm, which changes no comparison: (..., N, K)."""
    return centres.square().sum(dim=-1).unsqueeze(-2) - 2 * points @ centres.transpose(-2, -1)


def _means(points: Tensor, assigned: Tensor, centres: Tensor) -> Tensor:
    """(B, K, D) mean of the points of each cluster."""
    member = torch.nn.functional.one_hot(assigned, centres.shape[1]).to(points.dtype)  # (B, N, K)
    counts = member.sum(dim=1).unsqueeze(-1)  # (B, K, 1)
    return torch.where(counts > 0, member.transpose(1, 2) @ points / counts.clamp(min=1), centres)


def _spread_start(points: Tensor, clusters: int, *, seed: int) -> Tensor:
    """k-means++: each next centre is drawn in proportion to a point's squared distance to the nearest one."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(clusters, len(points), generator=generator, dtype=torch.float64)  # on the CPU
    rows = torch.arange(len(points), device=points.device)
    chosen = [points[rows, (draws[0] * points.shape[1]).long().to(points.device)]]  # (B, D)
    gap = (points - chosen[0][:, None]).square().sum(dim=-1)  # (B, N)
    for draw in draws[1:]:
        mass = gap.cpu().double().cumsum(dim=1)  # (B, N); sums over many points want double precision
        place = torch.searchsorted(mass, (draw * mass[:, -1])[:, None], right=True).squeeze(1)
        chosen.append(points[rows, place.clamp(max=points.shape[1] - 1).to(points.device)])
        gap = torch.minimum(gap, (points - chosen[-1][:, None]).square().sum(dim=-1))
    return torch.stack(chosen, dim=1)
