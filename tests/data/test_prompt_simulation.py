"""Simulated prompts: where clicks may lie, how far boxes are off, what follows from a seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from vosssl.data.prompt_simulation import (
    PromptRule,
    checked_rule,
    click_at_error_centre,
    click_in_errors,
    draw_plan,
    loose_boxes,
)


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    """(1, 20, 24) bool; the last row and column are outside."""
    mask = torch.zeros(1, 20, 24, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    return mask


def at(mask: Tensor, points: Tensor) -> bool:
    x, y = (int(value) for value in points[0])
    return bool(mask[0, y, x])


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.77, 0.999999])
def test_a_click_lies_in_the_error_and_says_of_which_kind(draw: float) -> None:
    truth, predicted = rectangle(2, 3, 10, 12), rectangle(4, 6, 14, 16)
    points, positive = click_in_errors(truth, predicted, torch.tensor([draw]))
    assert at(truth ^ predicted, points)
    assert bool(positive[0]) == at(truth, points)


def test_every_wrong_pixel_is_equally_likely() -> None:
    truth, predicted = rectangle(0, 0, 1, 4), rectangle(0, 2, 1, 6)
    draws = torch.arange(100) / 100
    points, _ = click_in_errors(truth.expand(100, -1, -1), predicted.expand(100, -1, -1), draws)
    assert Counter(points[:, 0].tolist()) == {0.0: 25, 1.0: 25, 4.0: 25, 5.0: 25}


def test_a_first_click_lies_on_the_object_and_without_errors_beside_it() -> None:
    truth = rectangle(2, 3, 10, 12)
    points, positive = click_in_errors(truth, None, torch.tensor([0.5]))
    assert at(truth, points) and positive[0]
    points, positive = click_in_errors(truth, truth, torch.tensor([0.5]))
    assert not at(truth, points) and not positive[0]
    points, positive = click_in_errors(rectangle(0, 0, 0, 0), None, torch.tensor([0.5]))
    assert not positive[0]


def test_the_centre_of_the_widest_error_is_found() -> None:
    truth, predicted = rectangle(2, 3, 7, 8), rectangle(0, 0, 0, 0)
    points, positive = click_at_error_centre(truth, predicted)
    assert points.tolist() == [[5.0, 4.0]] and positive.tolist() == [True]
    excess = rectangle(2, 3, 7, 8) | rectangle(10, 10, 19, 19)
    points, positive = click_at_error_centre(truth, excess)
    assert points.tolist() == [[14.0, 14.0]] and positive.tolist() == [False]


def test_a_box_is_exact_at_a_half_and_off_by_a_tenth_at_most() -> None:
    truth = rectangle(4, 6, 15, 17)  # rows 4..14, columns 6..16: 10 pixels from first to last
    assert loose_boxes(truth, torch.full((1, 4), 0.5)).tolist() == [[6.0, 4.0, 16.0, 14.0]]
    assert loose_boxes(truth, torch.zeros(1, 4)).tolist() == [[5.0, 3.0, 15.0, 13.0]]
    assert loose_boxes(truth, torch.zeros(1, 4), limit=0.5).tolist() == [[5.5, 3.5, 15.5, 13.5]]
    assert loose_boxes(rectangle(0, 0, 20, 24), torch.zeros(1, 4))[0, :2].tolist() == [0.0, 0.0]
    assert loose_boxes(rectangle(0, 0, 0, 0), torch.rand(1, 4)).tolist() == [[0.0] * 4]


def test_plans_follow_from_the_seed_and_have_the_published_shares() -> None:
    rule = PromptRule()
    plans = [draw_plan(rule, 8, seed=seed) for seed in range(2000)]
    assert plans == [draw_plan(rule, 8, seed=seed) for seed in range(2000)]
    kinds = Counter(plan.first[0] for plan in plans)
    assert kinds["mask"] / 2000 == pytest.approx(0.5, abs=0.04)
    assert kinds["click"] / 2000 == pytest.approx(0.25, abs=0.04)
    assert {len(plan.first) for plan in plans} == {1, 2}


def test_corrected_frames_hold_those_with_a_first_prompt_and_masks_are_not_corrected() -> None:
    for seed in range(300):
        plan = draw_plan(PromptRule(), 8, seed=seed)
        assert 0 in plan.first and all(0 <= frame < 8 for frame in (*plan.first, *plan.corrected))
        if plan.first[0] == "mask":
            assert set(plan.first.values()) == {"mask"} and plan.corrected == ()
        else:
            assert set(plan.first) <= set(plan.corrected) and len(set(plan.corrected)) <= 2


def test_a_single_frame_is_clicked_on_and_corrected() -> None:
    for seed in range(50):
        plan = draw_plan(PromptRule(), 1, seed=seed)
        assert plan.first[0] != "mask" and plan.corrected == (0,)


def test_rules_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        checked_rule(PromptRule(mask_probability=1.5))
    with pytest.raises(ValueError, match="1 <= prompted <= corrected"):
        checked_rule(PromptRule(prompted_frames=3))
