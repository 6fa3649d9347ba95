from __future__ import annotations

import math

import pytest
import torch

from tests.layers.goldens import arrays
from vosssl.losses.slot_contrast import slot_contrast


def test_orthogonal_slots_that_stay_are_told_apart() -> None:
    slots = torch.eye(2).expand(1, 3, 2, 2)
    expected = -math.log(math.exp(10) / (math.exp(10) + 1))
    assert slot_contrast(slots, temperature=0.1).item() == pytest.approx(expected, rel=1e-3)


def test_equal_slots_cost_the_log_of_their_number_and_other_clips_add_to_it() -> None:
    slots = torch.ones(3, 2, 4, 5)
    assert slot_contrast(slots, across_batch=False).item() == pytest.approx(math.log(4), rel=1e-5)
    assert slot_contrast(slots).item() == pytest.approx(math.log(12), rel=1e-5)


def test_permuting_the_slots_of_all_frames_changes_nothing() -> None:
    slots, order = torch.randn(2, 3, 4, 5), torch.tensor([2, 0, 3, 1])
    assert torch.allclose(slot_contrast(slots), slot_contrast(slots[:, :, order]), atol=1e-6)


def test_one_frame_cannot_be_contrasted() -> None:
    with pytest.raises(ValueError, match="consecutive frames"):
        slot_contrast(torch.randn(2, 1, 4, 5))


@pytest.mark.parametrize(("name", "across_batch"), [("batch", True), ("video", False)])
def test_the_official_loss_agrees(name: str, across_batch: bool) -> None:
    golden = arrays()
    slots = golden["loss/slots"].clone().requires_grad_()
    loss = slot_contrast(slots, across_batch=across_batch)
    assert torch.allclose(loss, golden[f"loss/contrast_{name}/value"], rtol=1e-6)
    loss.backward()
    assert slots.grad is not None
    assert torch.allclose(slots.grad, golden[f"loss/contrast_{name}/grad"], atol=1e-7)
