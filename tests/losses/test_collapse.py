from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosssl.losses.collapse import (
    attention_entropy,
    collapse_alarms,
    collapse_measures,
    duplicate_slots,
    largest_share,
    slot_usage,
)


def _halves() -> Tensor:
    masks = torch.zeros(1, 1, 4, 2, 2)
    masks[0, 0, 0, 0] = 1.0
    masks[0, 0, 1, 1] = 1.0
    return masks


def test_two_slots_that_halve_the_frame_are_half_of_four() -> None:
    assert slot_usage(_halves()).item() == 0.5
    assert largest_share(_halves()).item() == 0.5


def test_entropy_is_zero_for_hard_and_one_for_equal_attention() -> None:
    assert attention_entropy(_halves()).item() == pytest.approx(0, abs=1e-6)
    assert attention_entropy(torch.full((1, 1, 4, 2, 2), 0.1)).item() == pytest.approx(1, abs=1e-6)


def test_twins_are_counted_whatever_their_length() -> None:
    slots = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert duplicate_slots(slots).item() == 0.5


def test_measures_do_not_depend_on_the_order_of_slots() -> None:
    slots, masks = torch.randn(2, 3, 5, 4), torch.rand(2, 3, 5, 6, 6).softmax(2)
    order = torch.tensor([4, 2, 0, 1, 3])
    straight = collapse_measures(slots, masks, masks)
    permuted = collapse_measures(slots[:, :, order], masks[:, :, order], masks[:, :, order])
    assert all(torch.allclose(straight[name], permuted[name], atol=1e-6) for name in straight)


def test_a_collapsed_run_is_named_and_a_sound_one_is_not() -> None:
    everything = torch.zeros(1, 1, 8, 2, 2)
    everything[:, :, 0] = 1.0
    uniform = torch.full((1, 1, 8, 2, 2), 1 / 8)
    alarms = collapse_alarms(collapse_measures(torch.ones(1, 1, 8, 3), everything, uniform))
    assert set(alarms) == {
        "one_slot_takes_all",
        "few_slots_used",
        "slots_look_everywhere",
        "duplicate_slots",
    }
    sound = collapse_measures(torch.eye(4)[None, None], _halves(), _halves())
    assert collapse_alarms(sound) == {}


def test_the_measures_of_half_precision_traces_are_numbers() -> None:
    masks = torch.zeros(1, 1, 3, 4, 4).half()
    masks[:, :, 0] = 1
    measures = collapse_measures(torch.randn(1, 1, 3, 8).half(), masks, masks)
    assert all(bool(measure.isfinite()) for measure in measures.values())
    assert measures["attention_entropy"] == 0
