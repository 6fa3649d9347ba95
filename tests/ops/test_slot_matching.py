from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.slot_matching import continue_order, mask_overlap, slot_similarity


def test_overlap_is_soft_intersection_over_union() -> None:
    masks = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[0.0, 1.0, 1.0, 0.0]]]])  # (2, 1, 1, 4)
    assert torch.allclose(mask_overlap(*masks), torch.tensor([[1 / 3]]))


@pytest.mark.parametrize("likeness", [slot_similarity, lambda a, b: mask_overlap(a[..., None], b[..., None])])
def test_shuffled_slots_are_put_back_in_the_order_of_the_first_frame(likeness) -> None:
    slots = F.one_hot(torch.arange(5), 8).float() + 0.1  # (K, D)
    before, belief = slots, None
    for seed in range(6):
        shuffled = slots[torch.randperm(5, generator=torch.Generator().manual_seed(seed))]
        order, belief = continue_order(likeness(before, shuffled), belief)
        before = shuffled[order]
        assert torch.equal(before, slots)
        torch.testing.assert_close(belief.sum(dim=1), torch.ones(5, dtype=torch.float64))


def noisy_likeness(seed: int) -> Tensor:
    """(K, K): a slot resembles itself by 0.8 and others by 0.6, give or take 0.05."""
    noise = 0.05 * torch.rand(8, 8, generator=torch.Generator().manual_seed(seed))
    return 0.6 + 0.2 * torch.eye(8) + noise


def test_the_first_frame_is_not_forgotten_in_a_long_video() -> None:
    belief = None
    for time in range(500):
        order, belief = continue_order(noisy_likeness(time), belief)
        assert order.tolist() == list(range(8)), f"lost at frame {time}"


def test_doubt_of_one_frame_is_remembered_in_the_next() -> None:
    likeness = torch.tensor([[0.51, 0.5], [0.5, 0.51]])
    _, doubtful = continue_order(likeness)
    _, sure = continue_order(torch.eye(2))
    assert 0.2 < doubtful[0, 1] < 0.3
    assert sure[0, 1] < 1e-4
