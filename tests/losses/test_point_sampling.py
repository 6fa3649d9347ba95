"""Where losses look: points solved by hand, and what is drawn from which generator."""

from __future__ import annotations

import pytest
import torch

from vosssl.losses.point_sampling import PointRule, checked_rule, doubt, doubtful_points
from vosssl.ops.resize import sample_points


def test_doubt_of_two_classes_is_the_size_of_the_second_logit() -> None:
    logits = torch.tensor([[[9.0, 9.0, 9.0], [-2.0, 0.5, 0.0]]])
    assert doubt(logits).tolist() == [[-2.0, -0.5, 0.0]]


def test_doubt_of_more_classes_is_how_close_the_two_best_are() -> None:
    logits = torch.tensor([[[1.0, 4.0], [3.0, 4.0], [2.5, -1.0]]])
    assert doubt(logits).tolist() == [[-0.5, 0.0]]


def test_the_points_in_doubt_come_first_and_lie_on_the_border() -> None:
    ramp = torch.linspace(-8, 8, 64).expand(1, 1, 64, 64)  # the border is the middle column
    logits = torch.cat([-ramp, ramp], dim=1)
    rule = PointRule(points=100, oversample=4, importance=0.75)
    points = doubtful_points(logits, rule, generator=torch.Generator().manual_seed(0))
    assert points.shape == (1, 100, 2)
    found = doubt(sample_points(logits, points))[0]
    assert torch.equal(found[:75], found[:75].sort(descending=True).values)
    inside = (points[0] > 0.02).all(1) & (points[0] < 0.98).all(1)  # at the edge logits fade to 0
    distance = (points[0, :, 0] - 0.5).abs()
    assert distance[:75][inside[:75]].max() < 0.12  # the best 75 of 400: 75 / 800 on each side of the border
    assert distance[75:].max() > 0.3


def test_candidates_are_drawn_before_the_even_rest() -> None:
    logits = torch.randn(2, 3, 5, 7)
    points = doubtful_points(logits, PointRule(points=9), generator=torch.Generator().manual_seed(3))
    same = torch.Generator().manual_seed(3)
    candidates, rest = torch.rand(2, 27, 2, generator=same), torch.rand(2, 3, 2, generator=same)
    assert torch.equal(points[:, 6:], rest)
    for row in range(2):
        assert all((candidates[row] == point).all(1).any() for point in points[row, :6])


def test_with_full_importance_nothing_is_drawn_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    rule = PointRule(points=5, oversample=1, importance=1)
    points = doubtful_points(torch.zeros(1, 2, 4, 4), rule, generator=generator)
    same = torch.Generator().manual_seed(0)
    candidates = torch.rand(1, 5, 2, generator=same)
    assert torch.equal(points.sort(1).values, candidates.sort(1).values)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=same))


@pytest.mark.parametrize("wrong", [PointRule(points=0), PointRule(oversample=0.5), PointRule(importance=1.5)])
def test_rules_that_cannot_be_followed_are_refused(wrong: PointRule) -> None:
    with pytest.raises(ValueError, match="expected 1 point or more"):
        checked_rule(wrong)
