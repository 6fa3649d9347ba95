"""k-means."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.kmeans import kmeans, nearest_centre


def clouds(*, seed: int = 0) -> torch.Tensor:
    """Two sets of three far clouds of 50 points: (2, 150, 2)."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], [[1.0, 1.0], [-9.0, 1.0], [1.0, -9.0]]])
    return middles.repeat_interleave(50, dim=1) + 0.3 * torch.randn(2, 150, 2, generator=generator)


def test_far_clouds_are_found_in_every_set() -> None:
    points = clouds()
    assigned = nearest_centre(points, kmeans(points, 3)).view(2, 3, 50)
    assert bool((assigned == assigned[:, :, :1]).all())
    assert all(len(set(row[:, 0].tolist())) == 3 for row in assigned)


def test_the_same_seed_gives_the_same_centres() -> None:
    points = torch.rand(3, 200, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(kmeans(points, 5, seed=3), kmeans(points, 5, seed=3))
    assert not torch.equal(kmeans(points, 5, seed=3), kmeans(points, 5, seed=4))


def test_centres_are_the_means_of_their_points() -> None:
    points = clouds()
    centres = kmeans(points, 3)
    member = torch.nn.functional.one_hot(nearest_centre(points, centres), 3).float()
    means = member.transpose(1, 2) @ points / member.sum(dim=1).unsqueeze(-1)
    torch.testing.assert_close(centres, means)


def test_equal_points_do_not_break_the_start() -> None:
    assert kmeans(torch.zeros(1, 10, 2), 3).shape == (1, 3, 2)


def test_more_clusters_than_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 4 points"):
        kmeans(torch.zeros(1, 3, 2), 4)
