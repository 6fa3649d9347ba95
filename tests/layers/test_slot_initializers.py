from __future__ import annotations

import pytest
import torch

from vosssl.layers.slot_initializers import ConditionalInit, LearnedInit, RandomInit, condition_from_labels


def _labels() -> torch.Tensor:
    labels = torch.zeros(1, 8, 4, dtype=torch.uint8)
    labels[0, 2:6, 1:3] = 2
    labels[0, 0, 0] = 255
    return labels


def test_boxes_and_centres_are_fractions_and_absent_objects_are_zero() -> None:
    boxes = condition_from_labels(_labels(), kind="boxes", objects=3)
    assert boxes.tolist() == [[[0, 0, 0, 0], [0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]]]
    centres = condition_from_labels(_labels(), kind="centres", objects=2)
    assert centres.tolist() == [[[0, 0], [0.5, 0.5]]]


def test_masks_are_one_per_id_and_void_belongs_to_none() -> None:
    masks = condition_from_labels(_labels(), kind="masks", objects=3)
    assert masks.shape == (1, 3, 8, 4)
    assert masks.sum(dim=(-2, -1)).tolist() == [[0, 8, 0]]


@pytest.mark.parametrize("kind", ["boxes", "centres", "masks"])
def test_conditional_slots_are_the_background_then_the_objects_then_zero_hints(kind: str) -> None:
    initializer = ConditionalInit(5, 6, kind=kind)  # type: ignore[arg-type]
    slots = initializer(1, condition=condition_from_labels(_labels(), kind=kind, objects=2))  # type: ignore[arg-type]
    assert slots.shape == (1, 5, 6)
    assert torch.equal(slots[:, 0], slots[:, 4])  # both from a zero hint
    assert not torch.allclose(slots[:, 0], slots[:, 2])


def test_conditional_slots_want_a_condition_that_leaves_room_for_the_background() -> None:
    initializer = ConditionalInit(3, 6)
    with pytest.raises(ValueError, match="pass condition="):
        initializer(1)
    with pytest.raises(ValueError, match="raise num_slots"):
        initializer(1, condition=torch.zeros(1, 3, 4))


def test_random_slots_follow_their_noise_and_come_in_any_number() -> None:
    initializer = RandomInit(4, 6)
    noise = torch.randn(2, 9, 6)
    assert torch.allclose(initializer(2, noise=noise), noise * 6**-0.5)
    assert initializer(2, num_slots=9).shape == (2, 9, 6)
    assert not torch.equal(initializer(2), initializer(2))


def test_learned_slots_are_shared_and_limited() -> None:
    initializer = LearnedInit(4, 6)
    assert torch.equal(initializer(2)[0], initializer(2)[1])
    assert initializer(2, num_slots=3).shape == (2, 3, 6)
    with pytest.raises(ValueError, match="4 were learned"):
        initializer(2, num_slots=5)
