"""DINO's and iBOT's losses: by hand, and what keeps them from collapsing."""

from __future__ import annotations

import math

import pytest
import torch

from vosssl.losses.self_distillation import (
    distillation_targets,
    masked_distillation,
    moved_centre,
    self_distillation,
)


def test_two_views_of_two_prototypes_by_hand() -> None:
    student = torch.tensor([[[0.0, 0.0]], [[math.log(3.0), 0.0]]])  # softmax: (1/2, 1/2) and (3/4, 1/4)
    targets = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    # target 0 meets view 1: -log 3/4; target 1 meets view 0: log 2
    expected = (-math.log(0.75) + math.log(2.0)) / 2
    assert self_distillation(student, targets, temperature=1.0).item() == pytest.approx(expected)


def test_small_crops_meet_every_target_and_large_ones_only_the_other() -> None:
    student = torch.zeros(4, 3, 8, requires_grad=True)
    targets = torch.rand(2, 3, 8).softmax(-1)
    loss = self_distillation(student, targets, temperature=0.1)
    assert loss.item() == pytest.approx(math.log(8))
    lonely = torch.zeros(2, 1, 2)
    lonely[0, 0] = torch.tensor([50.0, -50.0])  # view 0 contradicts target 0, which it does not meet
    agreeing = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    assert self_distillation(lonely, agreeing, temperature=1.0).item() == pytest.approx(math.log(2) / 2)


def test_targets_are_centred_and_sharpened_without_gradient() -> None:
    logits = torch.tensor([[2.0, 1.0]], requires_grad=True)
    targets = distillation_targets(logits, torch.tensor([[1.0, 0.0]]), temperature=0.5)
    assert torch.allclose(targets, torch.tensor([[0.5, 0.5]]))
    assert not targets.requires_grad
    sharp = distillation_targets(logits, torch.zeros(1, 2), temperature=0.01)
    assert sharp[0, 0] > 0.999


def test_a_centre_takes_back_what_one_prototype_always_wins() -> None:
    logits = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    logits[:, 3] += 5.0  # this one would win everywhere
    assert (distillation_targets(logits, torch.zeros(1, 16), temperature=0.1).argmax(-1) == 3).all()
    centre = torch.zeros(1, 16)
    for _ in range(100):
        centre = moved_centre(centre, logits.mean(0, keepdim=True), momentum=0.9)
    targets = distillation_targets(logits, centre, temperature=0.1)
    assert targets.argmax(-1).unique().numel() > 8
    usage = targets.mean(0)
    assert -(usage * usage.log()).sum() > 0.9 * math.log(16)


def test_only_masked_patches_count_and_images_count_alike() -> None:
    student = torch.zeros(3, 4, 2)
    student[0, 0] = torch.tensor([0.0, 100.0])  # contradicts its target, but is not masked
    targets = torch.tensor([1.0, 0.0]).expand(3, 4, 2)
    masks = torch.tensor([[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    loss = masked_distillation(student, targets, masks, temperature=1.0)
    assert loss.item() == pytest.approx(2 * math.log(2) / 3)


def test_a_single_view_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 crops"):
        self_distillation(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), temperature=0.1)
