"""Correspondence of patches: targets between patches, the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vosssl.losses.correspondence import correspondence, match_targets


def test_a_place_between_patches_is_shared_bilinearly() -> None:
    matches = torch.tensor([[[1.0, 0.0], [0.25, 0.5], [math.nan, math.nan]]])
    targets = match_targets(matches, (2, 2))
    assert torch.allclose(targets[0, 0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert torch.allclose(targets[0, 1], torch.tensor([0.375, 0.125, 0.375, 0.125]))
    assert (targets[0, 2] == 0).all()


def test_places_beyond_the_last_centre_belong_to_the_border() -> None:
    targets = match_targets(torch.tensor([[[-0.4, 1.3]]]), (2, 2))
    assert torch.allclose(targets[0, 0], torch.tensor([0.0, 0.0, 1.0, 0.0]))


def test_the_loss_of_two_patches_by_hand() -> None:
    first = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    second = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])  # the second patch's match is unknown
    expected = math.log(math.exp(2.0) + 1.0) - 2.0
    assert correspondence(first, second, targets, temperature=0.5).item() == pytest.approx(expected)


def test_patches_of_other_pictures_are_negatives() -> None:
    first = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    loss = correspondence(first, first.clone(), torch.ones(2, 1, 1), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(2.0))


def test_without_known_matches_the_loss_is_zero_and_has_a_gradient() -> None:
    first = torch.rand(1, 4, 3, requires_grad=True)
    loss = correspondence(first, torch.rand(1, 4, 3), torch.zeros(1, 4, 4), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert first.grad is not None
    assert first.grad.isfinite().all()
