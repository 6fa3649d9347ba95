"""Bootstrap intervals: two videos solved by hand, and what has to hold for any."""

from __future__ import annotations

import math

import pytest
import torch

from vosssl.engine.significance import (
    Measured,
    bootstrap_interval,
    composed_difference,
    composed_interval,
    measured_by_metric,
    paired_difference,
)
from vosssl.metrics.score import Score

VIDEOS = {f"video {i}": [0.3 + 0.05 * i, 0.9 - 0.04 * i][: 1 + i % 2] for i in range(10)}


def test_two_videos_solved_by_hand() -> None:
    # draws: a a (1/4), a b or b a (1/2), b b (1/4); means 0, 0.5, 1
    assert bootstrap_interval({"a": [0.0], "b": [1.0]}) == (0.0, 1.0)
    assert bootstrap_interval({"a": [0.0], "b": [1.0]}, confidence=0.4) == (0.5, 0.5)


def test_a_video_carries_all_of_its_objects() -> None:
    # draws: a a -> 0, a b -> 3 objects of which one is 0: 2/3, b b -> 1
    assert bootstrap_interval({"a": [0.0], "b": [1.0, 1.0]}, confidence=0.4) == pytest.approx((2 / 3, 2 / 3))


def test_weights_count_like_repeated_values() -> None:
    repeated = bootstrap_interval({"a": [0.0], "b": [1.0] * 3, "c": [0.4]})
    weighted = bootstrap_interval(
        {"a": [0.0], "b": [1.0], "c": [0.4]}, weights_by_video={"a": [1], "b": [3], "c": [1]}
    )
    assert weighted == pytest.approx(repeated)


def test_the_interval_of_normal_values_is_that_of_the_textbook() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1)).double()
    low, high = bootstrap_interval({str(i): [float(v)] for i, v in enumerate(values)}, resamples=4000)
    half = 1.96 * float(values.std(correction=0)) / 20  # of the mean of 400
    assert low == pytest.approx(float(values.mean()) - half, abs=0.006)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.006)


def test_the_mean_lies_inside_and_more_confidence_is_wider() -> None:
    everything = [value for row in VIDEOS.values() for value in row]
    narrow, wide = (bootstrap_interval(VIDEOS, confidence=share) for share in (0.5, 0.99))
    assert wide.low < narrow.low < sum(everything) / len(everything) < narrow.high < wide.high


def test_equal_videos_leave_no_doubt() -> None:
    assert bootstrap_interval({name: [0.7, 0.7] for name in "abcd"}) == pytest.approx((0.7, 0.7))


def test_order_of_the_videos_and_empty_ones_change_nothing() -> None:
    turned = dict(reversed(VIDEOS.items())) | {"empty": []}
    assert bootstrap_interval(turned) == bootstrap_interval(VIDEOS)
    assert bootstrap_interval(VIDEOS, seed=1) != bootstrap_interval(VIDEOS)


def test_adding_a_constant_moves_the_interval_by_it() -> None:
    moved = {name: [value + 0.1 for value in row] for name, row in VIDEOS.items()}
    low, high = bootstrap_interval(VIDEOS)
    assert bootstrap_interval(moved) == pytest.approx((low + 0.1, high + 0.1))


def test_one_video_says_nothing_about_others() -> None:
    for videos in ({}, {"a": [0.5, 0.6]}):
        assert all(math.isnan(end) for end in bootstrap_interval(videos))
    assert math.isnan(paired_difference({"a": [0.5]}, {"a": [0.6]}).low)
    assert paired_difference({"a": [0.5]}, {"a": [0.6]}).mean == pytest.approx(0.1)


def test_nan_values_give_nan_not_a_number_that_looks_right() -> None:
    assert math.isnan(bootstrap_interval({"a": [0.5], "b": [math.nan], "c": [0.4]}).low)


def test_a_paired_difference_forgets_what_makes_videos_hard() -> None:
    better = {name: [value + 0.01 for value in row] for name, row in VIDEOS.items()}
    difference = paired_difference(VIDEOS, better)
    assert difference[:3] == pytest.approx((0.01, 0.01, 0.01))
    assert difference.better == 1.0
    assert difference.clear
    low, high = bootstrap_interval(VIDEOS)
    assert high - low > 0.1  # while each mean alone is uncertain


def test_a_paired_difference_turns_its_sign_with_the_methods() -> None:
    other = {name: [value**2 for value in row] for name, row in VIDEOS.items()}
    there, back = paired_difference(VIDEOS, other), paired_difference(other, VIDEOS)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.better == pytest.approx(1 - back.better)


def test_a_method_beside_itself_is_no_different() -> None:
    same = paired_difference(VIDEOS, VIDEOS)
    assert same == (0.0, 0.0, 0.0, 0.5)
    assert not same.clear


def test_videos_of_one_method_only_are_named() -> None:
    with pytest.raises(ValueError, match="video 3 scored for one"):
        paired_difference(VIDEOS, {name: row for name, row in VIDEOS.items() if name != "video 3"})
    paired_difference(VIDEOS | {"empty": []}, VIDEOS)  # nothing was measured in it: no video of either


def test_wrong_weights_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="positive weight per value"):
        bootstrap_interval(VIDEOS, weights_by_video={"video 0": [1.0]})
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(VIDEOS, confidence=95)
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap_interval(VIDEOS, resamples=0)


def test_a_mean_of_means_is_drawn_part_by_part() -> None:
    seen, unseen = Measured({"a": [0.0], "b": [1.0], "c": [1.0]}), Measured({"a": [0.4], "b": [0.4]})
    low, high = composed_interval([seen, unseen])
    assert (low, high) == pytest.approx((0.2, 0.7))  # c c c has nothing unseen and is left out
    same = composed_interval([seen])
    assert same == bootstrap_interval(seen.values)


def test_the_difference_of_means_of_means_is_paired() -> None:
    seen, unseen = Measured({"a": [0.0], "b": [1.0], "c": [1.0]}), Measured({"a": [0.4], "b": [0.4]})
    better = Measured({"a": [0.6], "b": [0.6]})
    difference = composed_difference([seen, unseen], [seen, better])
    assert difference[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert difference.better == 1.0


def test_values_of_a_report_are_grouped_by_video() -> None:
    scores = [
        Score("dog", 1, "J", 0.8),
        Score("dog", 2, "J", 0.4),
        Score("dog", 1, "F", 0.6),
        Score("cat", None, "image/mbo", 0.5, 10),
    ]
    measured = measured_by_metric(scores)
    assert measured["J"] == ({"dog": [0.8, 0.4]}, {"dog": [1.0, 1.0]})
    assert measured["image/mbo"] == ({"cat": [0.5]}, {"cat": [10]})
    assert "video/ari" not in measured
