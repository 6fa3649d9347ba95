from __future__ import annotations

import pytest
import torch

from vosssl.layers.slot_groups import ForegroundGroups


def test_other_numbers_of_slots_are_split_in_proportion() -> None:
    groups = ForegroundGroups(4, counts=(1, 3))
    assert groups.group_of(4).tolist() == [0, 1, 1, 1]
    assert groups.group_of(8).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_each_group_gets_its_offset() -> None:
    groups = ForegroundGroups(4, counts=(1, 1))
    assert torch.equal(groups(torch.zeros(1, 2, 4))[0], groups.offsets)


def test_every_patch_is_seen_by_one_group() -> None:
    groups = ForegroundGroups(4, counts=(2, 2))
    visible = groups.visible(torch.rand(3, 6, 10), num_slots=4, first=True)
    assert visible is not None
    assert torch.equal(visible[:, 0], ~visible[:, 2]) and torch.equal(visible[:, 0], visible[:, 1])


def test_groups_want_the_class_tokens_attention() -> None:
    with pytest.raises(ValueError, match="cls_attention"):
        ForegroundGroups(4).visible(None, num_slots=4, first=True)
    assert ForegroundGroups(4, strategy="initial").visible(None, num_slots=4, first=False) is None
