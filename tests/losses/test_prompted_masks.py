"""Losses of promptable masks, solved by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vosssl.losses.prompted_masks import mask_iou, prompt_losses, sigmoid_dice, sigmoid_focal


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def row(*probabilities: float) -> torch.Tensor:
    """(1, 1, 1, W) logits."""
    return torch.tensor([logit(value) for value in probabilities]).view(1, 1, 1, -1)


def test_focal_loss_of_two_pixels() -> None:
    found = sigmoid_focal(row(0.8, 0.8), torch.tensor([[[True, False]]]))
    on_object = 0.25 * 0.2**2 * -math.log(0.8)
    beside = 0.75 * 0.8**2 * -math.log(0.2)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx((on_object + beside) / 2, rel=1e-5)


def test_dice_of_two_pixels() -> None:
    found = sigmoid_dice(row(0.75, 0.25), torch.tensor([[[True, False]]]))
    assert found.item() == pytest.approx(1 - (2 * 0.75 + 1) / (1 + 1 + 1), rel=1e-5)


def test_the_iou_of_masks_is_counted_above_a_half() -> None:
    truth = torch.tensor([[[True, True, False, False]]])
    assert mask_iou(row(0.9, 0.4, 0.6, 0.1), truth).item() == pytest.approx(1 / 3)
    assert mask_iou(row(0.1, 0.1), torch.zeros(1, 1, 2, dtype=torch.bool)).item() == 0


def test_only_the_best_candidate_learns_and_every_predicted_iou_does() -> None:
    logits = torch.cat([row(0.9, 0.1), row(0.1, 0.9)], dim=1).requires_grad_()
    quality = torch.tensor([[0.4, 0.3]], requires_grad=True)
    score = torch.tensor([[logit(0.25)]])
    losses = prompt_losses(logits, quality, score, torch.tensor([[[True, False]]]))
    assert losses.iou.item() == pytest.approx((0.6 + 0.3) / 2)  # the candidates' IoUs are 1 and 0
    assert losses.object_score.item() == pytest.approx(-math.log(0.25), rel=1e-5)
    (losses.focal + losses.dice + losses.iou).sum().backward()
    assert logits.grad is not None and quality.grad is not None
    assert logits.grad[0, 0].abs().min() > 0
    assert logits.grad[0, 1].abs().max() == 0
    assert quality.grad.tolist() == [[-0.5, 0.5]]


def test_an_object_that_is_not_there_teaches_its_score_alone() -> None:
    losses = prompt_losses(
        row(0.9, 0.9), torch.tensor([[0.5]]), torch.tensor([[0.0]]), torch.zeros(1, 1, 2, dtype=torch.bool)
    )
    assert [float(loss) for loss in losses] == pytest.approx([0, 0, 0, math.log(2)])


def test_void_pixels_count_nowhere() -> None:
    truth = torch.tensor([[[True, False, True]]])
    known = torch.tensor([[[True, True, False]]])
    quality, score = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    some = prompt_losses(row(0.8, 0.3, 0.1), quality, score, truth, known=known)
    rest = prompt_losses(row(0.8, 0.3), quality, score, truth[..., :2])
    assert [float(loss) for loss in some] == pytest.approx([float(loss) for loss in rest], rel=1e-5)


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    logits = torch.tensor([1024.0, -1024.0]).view(1, 1, 1, 2).requires_grad_()
    losses = prompt_losses(logits, torch.ones(1, 1), torch.ones(1, 1), torch.tensor([[[False, True]]]))
    losses.focal.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and losses.focal.isfinite().all()


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        prompt_losses(row(0.5), torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 1, 1, dtype=torch.bool))


def test_a_shared_part_of_the_loss_is_that_of_all_candidates() -> None:
    logits = torch.cat([row(0.9, 0.2), row(0.4, 0.7)], dim=1)
    truth, quality, score = torch.tensor([[[True, False]]]), torch.zeros(1, 2), torch.zeros(1, 1)
    best, mixed, mean = (
        prompt_losses(logits, quality, score, truth, shared=part) for part in (0.0, 0.25, 1.0)
    )
    focal, dice = sigmoid_focal(logits, truth), sigmoid_dice(logits, truth)
    assert best.focal.item() == pytest.approx(focal[0, 0].item())
    assert mean.dice.item() == pytest.approx(dice.mean().item())
    assert mixed.dice.item() == pytest.approx(0.75 * dice[0, 0].item() + 0.25 * dice.mean().item())


def test_focal_loss_that_trusts_nothing_is_half_the_cross_entropy() -> None:
    truth = torch.tensor([[[True, False]]])
    found = prompt_losses(
        row(0.8, 0.3), torch.zeros(1, 1), torch.zeros(1, 1), truth, alpha=0.5, gamma=0.0
    ).focal
    assert found.item() == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 4, rel=1e-5)
