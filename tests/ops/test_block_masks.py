"""Block masks: how much is hidden, and that each mask is its seed's."""

from __future__ import annotations

import torch

from vosssl.ops.block_masks import block_masks


def test_hidden_shares_stay_within_their_bounds() -> None:
    masks = block_masks(torch.arange(200), (12, 12), share=(0.1, 0.5), probability=1.0)
    shares = masks.float().mean(1)
    assert masks.shape == (200, 144)
    assert shares.max() <= 0.5 + 1 / 144
    assert shares.min() > 0.02
    assert 0.2 < shares.mean() < 0.35


def test_half_of_the_pictures_are_left_whole() -> None:
    masks = block_masks(torch.arange(400), (8, 8), probability=0.5)
    assert 0.4 < masks.any(1).float().mean() < 0.6
    assert not block_masks(torch.arange(9), (8, 8), probability=0.0).any()


def test_a_mask_depends_on_its_seed_alone() -> None:
    together = block_masks(torch.tensor([5, 9, 5]), (10, 14), probability=1.0)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1], block_masks(torch.tensor([9]), (10, 14), probability=1.0)[0])


def test_hidden_patches_come_in_blocks() -> None:
    mask = block_masks(torch.tensor([3]), (16, 16), share=(0.3, 0.3), probability=1.0)[0].unflatten(
        0, (16, 16)
    )
    beside = (mask[:, 1:] & mask[:, :-1]).sum() / mask.sum()
    assert beside > 0.6  # 0.28 where patches were drawn one by one
