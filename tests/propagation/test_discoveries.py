"""Which frame slots are surest of, which slots are objects, and which tracks are one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.propagation.discoveries import (
    Background,
    confidence,
    joined,
    mask_iou,
    object_labels,
    same_objects,
)

GRID = (8, 10)


def masks_of(labels: Tensor, count: int) -> Tensor:
    return F.one_hot(labels.long(), count).permute(2, 0, 1).float()


def scene() -> Tensor:
    """Slots (8, 10): 0 the ground, 1 and 2 objects inside, 3 a piece of ground in the middle."""
    slots = torch.zeros(GRID, dtype=torch.long)
    slots[2:4, 2:4], slots[5:7, 6:9], slots[2:4, 6:8] = 1, 2, 3
    return slots


def test_confidence_is_the_winners_share_times_agreement() -> None:
    masks = torch.full((2, 4, 4), 0.2)
    masks[0, :, :2], masks[1, :, 2:] = 0.8, 0.8
    assert abs(confidence(masks, None) - 0.8) < 1e-6
    assert abs(confidence(masks, masks) - 0.8) < 1e-6
    assert abs(confidence(masks, masks.flip(0)) - 0.8 * 0.25) < 1e-6  # IoU of 0.2 and 0.8


def test_background_is_what_is_large_or_on_the_border_or_looks_like_it() -> None:
    look = torch.eye(3)[torch.tensor([0, 1, 2, 0])]  # slots 0 and 3 look the same
    labels, seen = object_labels(masks_of(scene(), 4), look[scene()], background=Background())
    assert torch.equal(labels, torch.tensor([0, 1, 2, 0])[scene()].byte())
    share = float((scene() == 0).float().mean())
    torch.testing.assert_close(seen, torch.tensor([share, 0.0, 0.0]))


def test_what_the_background_looked_like_elsewhere_counts() -> None:
    look = F.one_hot(scene(), 4).float()
    settings = {"background": Background()}
    alone, _ = object_labels(masks_of(scene(), 4), look, **settings)
    known, _ = object_labels(
        masks_of(scene(), 4), look, known=torch.tensor([0.0, 0.0, 0.0, 50.0]), **settings
    )
    assert set(alone.unique().tolist()) == {0, 1, 2, 3}
    assert set(known.unique().tolist()) == {0, 1, 2}


def test_specks_are_no_objects() -> None:
    slots = scene()
    look = F.one_hot(slots, 4).float()
    labels, _ = object_labels(masks_of(slots, 4), look, background=Background(), smallest=0.06)
    assert set(labels.unique().tolist()) == {0, 1}  # of 80 patches only slot 2 has more than 4.8


def test_iou_by_hand() -> None:
    first = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    second = torch.tensor([[0, 1, 1, 0]]).bool()
    torch.testing.assert_close(mask_iou(first, second), torch.tensor([[1 / 3], [0.0]]))


def test_tracks_that_overlap_are_one_object_each_at_most_once() -> None:
    first, second = torch.zeros(2, 4, 8, dtype=torch.uint8), torch.zeros(2, 4, 8, dtype=torch.uint8)
    first[:, :2, :4], first[:, 2:, 4:] = 1, 2
    second[:, :2, :3], second[:, :2, 3] = 7, 8  # 8 is a quarter of object 1
    second[:, 2:, 5:] = 9
    assert same_objects(first, second, overlap=0.2) == {7: 1, 9: 2}
    assert same_objects(first, second, overlap=0.8) == {}


def test_an_id_that_both_know_is_not_given_away() -> None:
    first = torch.tensor([[1, 1, 2, 2]], dtype=torch.uint8)
    second = torch.tensor([[3, 3, 1, 1]], dtype=torch.uint8)
    assert same_objects(first, second, overlap=0.1) == {}


def test_tracks_not_found_go_on_where_nothing_else_is() -> None:
    found = torch.tensor([[1, 1, 0, 0, 0, 0]], dtype=torch.uint8)
    carried = torch.tensor([[0, 2, 2, 2, 0, 0]], dtype=torch.uint8)
    assert joined(found, carried).tolist() == [[1, 1, 2, 2, 0, 0]]
    covered = torch.tensor([[3, 3, 3, 0, 1, 1]], dtype=torch.uint8)  # two thirds of 3 are taken, 1 was found
    assert joined(found, covered).tolist() == found.tolist()
