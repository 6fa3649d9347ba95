"""Losses at sampled points: solved by hand, and what void and absent objects mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vosssl.losses.point_sampled_masks import mask_loss, point_sampled_loss, soft_dice, truth_masks
from vosssl.losses.point_sampling import PointRule

RULE = PointRule(points=64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def square() -> tuple[Tensor, Tensor]:
    """Labels (1, 8, 8) of one square object, and logits (1, 2, 8, 8) that are right about it."""
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, 2:6, 2:6] = 1
    logits = 8 * (labels.float() - 0.5)[:, None]
    return labels, torch.cat([-logits, logits], dim=1)


def test_truth_is_background_objects_and_void_and_other_ids_are_background() -> None:
    labels = torch.tensor([[[0, 1, 2, 3, 255]]], dtype=torch.uint8)
    masks = truth_masks(labels, 2)
    assert masks[0, :, 0].tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]


def test_cross_entropy_sums_over_frames_and_averages_over_points() -> None:
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    truth = torch.tensor([[[0.0, 0.5], [1.0, 0.5], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    first = (-math.log(0.75) - math.log(0.5)) / 2  # sure by 3/4; a point on the border
    assert mask_loss(logits, truth).cross_entropy.item() == pytest.approx(first + math.log(2), abs=1e-6)


def test_dice_by_hand() -> None:
    masks = torch.tensor([[[1.0, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.5, 0.5]]])
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])
    first = ((1 - 4 / 4.5) + 0) / 2  # shared 1.5, areas 1.5 and 2; the other object is neither there nor seen
    second = (0 + (1 - 3 / 4)) / 2
    assert soft_dice(masks, target).item() == pytest.approx(first + second, abs=1e-6)


def test_void_counts_in_neither_loss() -> None:
    truth = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    one, other = torch.tensor([[[0.3, 9.0], [0.1, -9.0]]]), torch.tensor([[[0.3, -9.0], [0.1, 9.0]]])
    assert mask_loss(one, truth).dice == mask_loss(other, truth).dice
    assert mask_loss(one, truth).cross_entropy == mask_loss(other, truth).cross_entropy


def test_logits_and_truth_may_have_different_sizes() -> None:
    labels, logits = square()
    large = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    right = point_sampled_loss(logits, truth_masks(large, 1), RULE, generator=generator())
    wrong = point_sampled_loss(-logits, truth_masks(large, 1), RULE, generator=generator())
    assert wrong.cross_entropy > right.cross_entropy + 1
    assert wrong.dice > right.dice + 0.2


def test_the_order_of_the_objects_does_not_matter() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8), dtype=torch.uint8)
    swapped = torch.tensor([0, 3, 2, 1], dtype=torch.uint8)[labels.long()]
    one = point_sampled_loss(logits, truth_masks(labels, 3), RULE, generator=generator())
    other = point_sampled_loss(logits[:, [0, 3, 2, 1]], truth_masks(swapped, 3), RULE, generator=generator())
    assert one.cross_entropy.item() == pytest.approx(other.cross_entropy.item(), abs=1e-6)
    assert one.dice.item() == pytest.approx(other.dice.item(), abs=1e-6)


def test_the_gradient_calls_for_the_object() -> None:
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    labels = torch.full((2, 8, 8), 2, dtype=torch.uint8)
    loss = point_sampled_loss(logits, truth_masks(labels, 2), RULE, generator=generator())
    (loss.cross_entropy + loss.dice).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 2] <= 0).all() and (logits.grad[:, 2] < 0).any()
    assert (logits.grad[:, 0] >= 0).all()


def test_masks_without_a_void_row_are_refused() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    with pytest.raises(ValueError, match="of the truth void"):
        point_sampled_loss(logits, logits, RULE)
