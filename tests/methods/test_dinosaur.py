from __future__ import annotations

from typing import Any

import pytest
import torch

from vosssl.clip import Batch
from vosssl.methods.dinosaur import DINOSAUR, Objective

SMALL: dict[str, Any] = {
    "backbone": None,
    "features_dim": 24,
    "grid": (4, 4),
    "num_slots": 4,
    "slot_dim": 16,
    "hidden_dims": (32, 32),
}


def _batch(frames: int, *, attention: bool = False) -> Batch:
    features = {"features": torch.randn(2, frames, 16, 24)}
    if attention:
        features["cls_attention"] = torch.rand(2, frames, 3, 16)
    return Batch(frames=torch.zeros(2, frames, 3, 64, 64), features=features, seeds=torch.tensor([1, 2]))


def test_the_loss_is_the_distance_to_the_features() -> None:
    network, batch = DINOSAUR(**SMALL), _batch(1)
    trace = Objective().trace(network, batch)
    loss = Objective(weight=2.0)(network, batch, 0)["feature_reconstruction"]
    assert loss.item() == pytest.approx(
        2 * (trace.reconstruction - trace.features).square().mean().item(), rel=1e-5
    )


def test_an_image_model_has_the_names_of_the_released_one() -> None:
    names = list(DINOSAUR(**SMALL).state_dict())
    assert names[:2] == ["initializer.mean", "initializer.log_std"]
    assert "encoder.output_transform.layers.0.weight" in names
    assert "processor.corrector.to_k.weight" in names and "decoder.mlp.layers.0.weight" in names
    assert not any(".module." in name for name in names)


@pytest.mark.parametrize("mode", ["linear", "attention", "shared"])
def test_each_time_step_is_a_term_and_all_of_them_teach(mode: Any) -> None:
    network = DINOSAUR(**SMALL, video=True, time_steps=(0, 1, 2), time_mode=mode)
    terms = Objective(time_steps=(0, 1, 2))(network, _batch(4), 0)
    assert set(terms) == {f"feature_reconstruction_t{ahead}" for ahead in (0, 1, 2)}
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_time_steps_need_a_time_decoder() -> None:
    with pytest.raises(ValueError, match="give the network the same"):
        Objective(time_steps=(0, 1))(DINOSAUR(**SMALL, video=True), _batch(3), 0)


def test_groups_read_the_class_tokens_attention() -> None:
    network = DINOSAUR(**SMALL, video=True, group_counts=(2, 2), gru_state="raw")
    batch = _batch(2, attention=True)
    attention = Objective().trace(network, batch).attention.detach().flatten(-2)  # (B, T, K, P)
    seen = attention > 0
    assert not (seen[:, :, 0] & seen[:, :, 2]).any()
    with pytest.raises(ValueError, match="cls_attention"):
        Objective()(network, _batch(2), 0)


def test_implicit_differentiation_gives_the_initial_slots_no_gradient() -> None:
    network = DINOSAUR(**SMALL, implicit=True)
    Objective()(network, _batch(1), 0)["feature_reconstruction"].backward()
    assert network.initializer.mean.grad is None
    assert network.encoder.output_transform.layers[1].weight.grad is not None


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    network, batch = DINOSAUR(**SMALL, video=True), _batch(3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = Objective()(network, batch, step)["feature_reconstruction"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
