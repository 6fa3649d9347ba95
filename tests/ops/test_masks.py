"""Ids to masks and back, and soft masks that share a pixel."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.masks import labels_to_masks, masks_to_labels, object_ids, soft_aggregate, strongest

LABELS = torch.tensor([[0, 3, 3], [255, 7, 0]], dtype=torch.uint8)


def test_background_and_void_are_no_objects() -> None:
    assert object_ids(LABELS) == (3, 7)


def test_masks_give_the_labels_back() -> None:
    masks = labels_to_masks(LABELS, (3, 7))
    background = ~masks.any(dim=0, keepdim=True)
    expected = LABELS.masked_fill(LABELS == 255, 0)
    assert torch.equal(masks_to_labels(torch.cat([background, masks]).float(), (3, 7)), expected)


def test_an_id_that_does_not_occur_has_an_empty_mask() -> None:
    assert not labels_to_masks(LABELS, (9,)).any()


def test_a_missing_background_row_is_named() -> None:
    with pytest.raises(ValueError, match="add the background row"):
        masks_to_labels(torch.zeros(2, 4, 4), (1, 2))


def test_the_strongest_row_is_the_arg_max() -> None:
    masks = torch.randint(
        0, 4, (2, 6, 9, 11), generator=torch.Generator().manual_seed(0)
    ).float()  # with ties
    names = torch.tensor([0, 9, 254, 3, 17, 255], dtype=torch.uint8)
    assert torch.equal(strongest(masks, names.tolist()), names[masks.argmax(dim=1)])


def test_soft_aggregation_of_one_object_keeps_its_odds() -> None:
    rows = soft_aggregate(torch.full((1, 2, 2), 0.8))
    # odds 4 against 1/4
    torch.testing.assert_close(rows[:, 0, 0], torch.tensor([0.25 / 4.25, 4 / 4.25]))


def test_soft_aggregation_sums_to_one_and_prefers_the_surer_object() -> None:
    rows = soft_aggregate(torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(rows.sum(dim=0), torch.ones(5, 5))
    two = soft_aggregate(torch.tensor([0.9, 0.6]).view(2, 1, 1)).flatten()
    assert two.argmax() == 1
