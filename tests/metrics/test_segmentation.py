"""Contingency tables, ARI and overlaps: by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vosssl.metrics.ari import adjusted_rand_index, video_ari, video_fg_ari
from vosssl.metrics.contingency import contingency, full_contingency
from vosssl.metrics.object_jf import boundary_bands, video_object_jf
from vosssl.metrics.overlap import best_overlap, matched_overlap, video_mbo, video_miou


def random_labels(classes: int, *, seed: int = 0) -> Tensor:
    """(4, 9, 11) uint8 blobs."""
    coarse = torch.randint(0, classes, (4, 3, 4), generator=torch.Generator().manual_seed(seed)).byte()
    return coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :, :11]


def test_the_table_is_counted_by_hand() -> None:
    truth = torch.tensor([[0, 0, 5, 255]], dtype=torch.uint8)
    predicted = torch.tensor([[1, 2, 2, 9]], dtype=torch.uint8)
    assert contingency(predicted, truth).tolist() == [[1, 1], [0, 1]]


def test_ari_of_a_table_solved_by_hand() -> None:
    # pairs together 2, true pairs 2 + 2, predicted pairs 6 + 0 (each twice), of 12: (2 - 2) / (5 - 2) = 0
    assert adjusted_rand_index(torch.tensor([[2, 0], [1, 1]])) == pytest.approx(0.0)
    assert adjusted_rand_index(torch.tensor([[0, 3], [2, 0]])) == 1.0


def test_overlaps_solved_by_hand() -> None:
    table = torch.tensor([[4, 0, 0], [0, 3, 1], [0, 3, 0]])
    # class 1: 3 / 7 with segment 1, 1 / 4 with segment 2; class 2: 3 / 6 with segment 1
    assert best_overlap(table) == pytest.approx((3 / 7 + 3 / 6) / 2)
    assert matched_overlap(table) == pytest.approx((1 / 4 + 3 / 6) / 2)


@pytest.mark.parametrize("metric", [video_ari, video_fg_ari, video_mbo, video_miou])
def test_permuting_slots_changes_nothing(metric: object) -> None:
    truth, predicted = random_labels(4), random_labels(6, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2], dtype=torch.uint8)
    assert metric(order[predicted.long()], truth) == metric(predicted, truth)  # type: ignore[operator]


@pytest.mark.parametrize("metric", [video_ari, video_fg_ari, video_mbo, video_miou])
def test_void_pixels_do_not_count(metric: object) -> None:
    truth, predicted = random_labels(4), random_labels(6, seed=1)
    truth[:, :3] = 255
    other = predicted.clone()
    other[:, :3] = 17
    assert metric(other, truth) == metric(predicted, truth)  # type: ignore[operator]


def test_tables_of_frames_add_up_to_that_of_the_video() -> None:
    truth, predicted = random_labels(4), random_labels(6, seed=1)
    total = sum(full_contingency(p, t) for p, t in zip(predicted, truth, strict=True))
    assert torch.equal(torch.as_tensor(total), full_contingency(predicted, truth))


def test_a_segment_that_keeps_its_place_but_swaps_identity_loses_video_scores() -> None:
    truth = torch.ones(2, 4, 4, dtype=torch.uint8)
    truth[:, :, 2:] = 2
    predicted = truth.clone()
    predicted[1] = 3 - predicted[1]
    assert video_fg_ari(truth, truth) == 1.0
    assert video_fg_ari(predicted, truth) < 0.1
    assert video_mbo(predicted, truth) == pytest.approx(1 / 3)


def test_without_objects_fg_ari_is_one_and_overlaps_are_undefined() -> None:
    truth, predicted = torch.zeros(1, 4, 4, dtype=torch.uint8), random_labels(3)[:1, :4, :4]
    assert video_fg_ari(predicted, truth) == 1.0
    assert math.isnan(video_mbo(predicted, truth)) and math.isnan(video_miou(predicted, truth))
    assert math.isnan(video_object_jf(predicted, truth).j_and_f)


def test_boundary_bands_reach_the_image_border() -> None:
    labels = torch.zeros(1, 7, 7, dtype=torch.uint8)
    labels[:, :, 4:] = 1
    assert boundary_bands(labels, 1)[0, 3].tolist() == [0, 255, 255, 0, 1, 255, 1]


@pytest.mark.parametrize(
    ("predicted", "truth", "complaint"),
    [
        (torch.zeros(2, 2).byte(), torch.zeros(2, 3).byte(), "resize the prediction"),
        (torch.zeros(2, 2), torch.zeros(2, 2).byte(), "expected uint8 ids"),
    ],
)
def test_maps_that_do_not_fit_are_named(predicted: Tensor, truth: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        contingency(predicted, truth)
