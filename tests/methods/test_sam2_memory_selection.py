"""Which frames SAM 2 looks back at."""

from __future__ import annotations

import pytest

from vosssl.methods.sam2.memory_selection import Recall, pointer_reach, recall


def test_a_frame_looks_back_at_prompts_and_at_the_last_tracked_frames() -> None:
    assert recall(3, conditioning=(0,), tracked=(1, 2)) == Recall(
        ((0, 6), (1, 1), (2, 0)), ((0, 3), (2, 1), (1, 2))
    )
    late = recall(20, conditioning=(0,), tracked=range(1, 20))
    assert late.maps == ((0, 6), (14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0))
    assert late.pointers == ((0, 20), *((20 - distance, distance) for distance in range(1, 16)))


def test_looking_back_backwards_is_looking_back_in_a_mirror() -> None:
    forward = recall(9, conditioning=(0, 12), tracked=(4, 5, 7, 8), stride=2)
    backward = recall(-9, conditioning=(0, -12), tracked=(-4, -5, -7, -8), stride=2, reverse=True)
    assert sorted((-index, age) for index, age in backward.maps) == sorted(forward.maps)
    assert tuple((-index, distance) for index, distance in backward.pointers) == forward.pointers


def test_with_a_stride_older_memories_lie_on_its_multiples() -> None:
    chosen = recall(14, conditioning=(), tracked=range(1, 14), stride=3)
    assert chosen.maps == ((3, 4), (6, 3), (9, 2), (12, 1), (13, 0))


def test_a_limit_keeps_the_nearest_prompts_and_leaves_the_others_as_tracked_frames() -> None:
    chosen = recall(10, conditioning=(0, 9, 8, 30), tracked=(), max_conditioning=2)
    assert chosen.maps == ((9, 6), (30, 6), (8, 1))
    assert chosen.pointers == ((9, 1), (8, 2), (0, 10))
    with pytest.raises(ValueError, match="at least 2"):
        recall(10, conditioning=(0, 9), tracked=(), max_conditioning=1)


def test_short_videos_have_a_shorter_reach() -> None:
    assert (pointer_reach(None), pointer_reach(100), pointer_reach(6)) == (15, 15, 5)
