"""Choosing objects: who may be a target, and what becomes of the others."""

from __future__ import annotations

import torch

from vosssl.clip import Clip
from vosssl.data.objects import AreaRule, keep_objects, object_areas, shuffled, target_ids, with_targets


def labels_of(*rows: list[int]) -> torch.Tensor:
    """One frame per row: (T, 1, W)."""
    return torch.tensor(rows, dtype=torch.uint8)[:, None]


def clip_of(labels: torch.Tensor) -> Clip:
    return Clip("made", torch.zeros(len(labels), 3, *labels.shape[1:], dtype=torch.uint8), labels)


def test_targets_are_the_objects_of_the_first_frame() -> None:
    assert target_ids(labels_of([0, 7, 255, 2], [5, 5, 5, 5])) == [2, 7]


def test_areas_count_pixels_of_each_frame() -> None:
    areas = object_areas(labels_of([0, 7, 7, 2], [7, 0, 0, 0]))
    assert areas.shape == (2, 256)
    assert areas[:, 7].tolist() == [2, 1]


def test_a_small_object_counts_only_where_it_stays_small() -> None:
    labels = labels_of([1, 2, 3, 3, 3, 4, 4, 0], [1, 2, 2, 2, 2, 4, 4, 3])
    # areas in frame 0: 1, 1, 3, 2; the most later: 1, 4, 1, 2
    assert target_ids(labels, rule=AreaRule(more_than=0, certain=2, grown=3)) == [1, 3, 4]
    assert target_ids(labels, rule=AreaRule(more_than=1, certain=2, grown=3)) == [3, 4]


def test_kept_objects_are_numbered_in_the_order_given() -> None:
    labels = labels_of([0, 9, 4, 7, 255])
    assert keep_objects(labels, [7, 9])[0, 0].tolist() == [0, 2, 0, 1, 255]
    assert keep_objects(labels, [7], others="merged")[0, 0].tolist() == [0, 2, 2, 1, 255]
    assert keep_objects(labels, [7], others="void")[0, 0].tolist() == [0, 255, 255, 1, 255]


def test_objects_in_excess_become_background_or_one_merged_target() -> None:
    clip = clip_of(labels_of([1, 2, 3, 0], [3, 2, 1, 4]))
    plain = with_targets(clip, [3, 1, 2], max_objects=2)
    assert plain is not None
    assert plain.num_objects == 2
    assert plain.labels is not None
    assert plain.labels[:, 0].tolist() == [[2, 0, 1, 0], [1, 0, 2, 0]]
    merged = with_targets(clip, [3, 1, 2], max_objects=2, others="merged")
    assert merged is not None
    assert merged.num_objects == 2
    assert merged.labels is not None
    assert merged.labels[:, 0].tolist() == [[2, 2, 1, 0], [1, 2, 2, 2]]


def test_with_room_for_all_objects_none_are_merged() -> None:
    merged = with_targets(clip_of(labels_of([1, 2, 0])), [1, 2], max_objects=2, others="merged")
    assert merged is not None
    assert merged.num_objects == 2


def test_an_object_that_the_first_frame_does_not_show_is_no_target() -> None:
    clip = clip_of(labels_of([1, 0], [2, 2]))
    found = with_targets(clip, [2, 1])
    assert found is not None
    assert found.labels is not None
    assert (found.num_objects, found.labels[:, 0].tolist()) == (1, [[1, 0], [0, 0]])
    assert with_targets(clip, [2]) is None


def test_an_order_is_a_permutation() -> None:
    orders = {tuple(shuffled([3, 5, 8], torch.Generator().manual_seed(seed))) for seed in range(60)}
    assert len(orders) == 6
