from __future__ import annotations

import torch
import torch.nn.functional as F

from vosssl.ops.slot_matching import order_over_time, overlap_over_time, reorder, similarity_over_time


def test_overlap_is_soft_intersection_over_union() -> None:
    masks = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[0.0, 1.0, 1.0, 0.0]]]])  # (2, 1, 1, 4)
    assert torch.allclose(overlap_over_time(masks), torch.tensor([[[1 / 3]]]))


def test_shuffled_slots_are_put_back_in_the_order_of_the_first_frame() -> None:
    slots = torch.randn(5, 16) + torch.zeros(6, 5, 16)
    shuffles = torch.stack([torch.arange(5), *(torch.randperm(5) for _ in range(5))])
    shuffled = reorder(slots, shuffles)
    order = order_over_time(similarity_over_time(shuffled))
    assert torch.equal(reorder(shuffled, order), slots)
    masks = F.one_hot(torch.arange(5), 5).float().unflatten(-1, (1, 5)).expand(6, 5, 1, 5)
    order = order_over_time(overlap_over_time(reorder(masks, shuffles)))
    assert torch.equal(reorder(reorder(masks, shuffles), order), masks)


def test_one_frame_keeps_its_order() -> None:
    assert order_over_time(similarity_over_time(torch.randn(1, 3, 4))).tolist() == [[0, 1, 2]]
