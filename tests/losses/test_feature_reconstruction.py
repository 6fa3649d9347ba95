from __future__ import annotations

import pytest
import torch

from tests.layers.goldens import arrays
from vosssl.losses.feature_reconstruction import (
    feature_reconstruction,
    future_reconstruction,
    pixel_reconstruction,
)


def test_the_error_is_averaged_over_everything_and_targets_get_no_gradient() -> None:
    features = torch.zeros(1, 2, 1, 2, requires_grad=True)
    reconstruction = torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]], requires_grad=True)
    loss = feature_reconstruction(reconstruction, features)
    assert loss.item() == pytest.approx(6 / 4)
    loss.backward()
    assert features.grad is None and reconstruction.grad is not None


def test_each_step_is_compared_with_its_own_frame_from_the_same_sources() -> None:
    features = 5 * torch.randn(1, 4, 3, 8) + 1  # any scale: both sides are normalised
    future = torch.stack([features, features.roll(-1, 1), features.roll(-2, 1)], dim=2)  # (B, T, S, P, C)
    losses = future_reconstruction(future, features, steps=(0, 1, 2))
    assert all(loss.item() == pytest.approx(0, abs=1e-6) for loss in losses.values())
    wrong = future_reconstruction(future, features, steps=(0, 2, 1))
    assert wrong[0].item() == pytest.approx(0, abs=1e-6) and wrong[1] > 0.1 and wrong[2] > 0.1


def test_a_clip_too_short_for_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="longer clips"):
        future_reconstruction(torch.zeros(1, 2, 1, 3, 8), torch.zeros(1, 2, 3, 8), steps=(2,))


def test_pixels_are_summed_within_a_frame() -> None:
    loss = pixel_reconstruction(torch.ones(2, 3, 4, 3), torch.zeros(2, 3, 4, 3))
    assert loss.item() == 12


def test_the_official_loss_agrees() -> None:
    golden = arrays()
    loss = feature_reconstruction(golden["loss/prediction"][..., :20], golden["loss/features"])
    assert torch.allclose(loss, golden["loss/featrec"], rtol=1e-6)
