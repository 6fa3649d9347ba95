from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.layers.goldens import arrays
from vosssl.losses.temporal_similarity import (
    similarity_distribution,
    similarity_logits,
    temporal_similarity,
    temporal_similarity_loss,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "t075": {"temperature": 0.075},
    "t25": {"temperature": 0.25},
    "nothresh": {"temperature": 0.25, "threshold": None},
    "thresh6": {"temperature": 0.25, "threshold": 0.6},
}


def test_a_patch_that_moves_is_found_where_it_went() -> None:
    first = torch.eye(4)
    keys = torch.stack([first, first.roll(1, 0)])[None]  # patch i of frame 0 is patch i + 1 of frame 1
    target = temporal_similarity(keys, temperature=0.01)
    assert torch.allclose(target[0, 0], first.roll(1, 1), atol=1e-6)


def test_a_patch_without_any_similar_one_is_uniform() -> None:
    keys = torch.tensor([[[[1.0, 0.0]], [[-1.0, 0.0]]]]).expand(1, 2, 3, 2)
    assert torch.allclose(temporal_similarity(keys, temperature=0.1), torch.full((1, 1, 3, 3), 1 / 3))


def test_scaling_the_features_changes_nothing() -> None:
    keys = torch.randn(2, 3, 5, 4)
    straight = temporal_similarity(keys, temperature=0.1)
    assert torch.allclose(straight, temporal_similarity(3 * keys, temperature=0.1), atol=1e-6)


def test_the_last_frame_of_the_prediction_gets_no_gradient() -> None:
    prediction = torch.randn(1, 3, 4, 4, requires_grad=True)
    temporal_similarity_loss(prediction, torch.full((1, 2, 4, 4), 0.25)).backward()
    assert prediction.grad is not None
    assert prediction.grad[:, 2].abs().sum() == 0 and prediction.grad[:, 1].abs().sum() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_official_loss_agrees(variant: str) -> None:
    golden = arrays()
    target = temporal_similarity(golden["loss/features"], **VARIANTS[variant])
    assert torch.allclose(target.flatten(1, 2), golden[f"loss/timesim_{variant}/target"], atol=1e-6)
    prediction = golden["loss/prediction"].clone().requires_grad_()
    loss = temporal_similarity_loss(prediction[..., 20:], target)
    assert torch.allclose(loss, golden[f"loss/timesim_{variant}/value"], rtol=1e-6)
    loss.backward()
    assert prediction.grad is not None
    assert torch.allclose(prediction.grad[..., 20:], golden[f"loss/timesim_{variant}/grad"], atol=1e-7)


def test_the_official_similarities_agree() -> None:
    golden = arrays()
    features = golden["loss/features"]
    shifted = temporal_similarity(features, temperature=0.25, shift=2)
    assert torch.allclose(shifted, golden["loss/similarity_time2"], atol=1e-6)
    alone = similarity_logits(features, features, temperature=0.25, mask_diagonal=True)
    assert torch.allclose(similarity_distribution(alone), golden["loss/similarity_self"], atol=1e-6)
    plain = similarity_logits(features[:, :-1], features[:, 1:], temperature=0.5, threshold=0.1, floor=-2.0)
    assert torch.allclose(plain, golden["loss/similarity_nosoftmax"], atol=1e-6)


def test_a_single_frame_has_no_future() -> None:
    with pytest.raises(ValueError, match="clips of 1 frames, expected more than 1"):
        temporal_similarity(torch.randn(2, 1, 4, 3), temperature=0.1)
