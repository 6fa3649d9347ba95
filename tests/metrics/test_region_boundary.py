"""J and F: by hand, by definition, and against the official DAVIS toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vosssl.metrics.region_boundary import (
    boundary_f,
    frame_jf,
    jaccard,
    match_proposals,
    paired_frame_jf,
    statistics,
)
from vosssl.ops.boundary import boundary_map, boundary_radius, dilate_disc

GOLDENS = Path(__file__).parents[1] / "goldens" / "jf"


def load(name: str) -> tuple[Any, Any]:
    return np.load(GOLDENS / f"{name}.npz"), json.loads((GOLDENS / f"{name}.json").read_text())


SEMI, SEMI_VALUES = load("synthetic_semi")
UNSUP, UNSUP_VALUES = load("synthetic_unsup")
YTVOS, YTVOS_VALUES = load("ytvos_like")


def close(value: Tensor | float, expected: Any) -> bool:
    return bool(np.abs(np.asarray(value) - np.asarray(expected)).max() <= 1e-12)


def masks(case: str, arrays: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays[f"{case}/pred"]), torch.from_numpy(arrays[f"{case}/gt"])


def square(top: int, left: int, *, side: int = 10) -> Tensor:
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_j_of_shifted_squares_is_solved_by_hand() -> None:
    assert jaccard(square(10, 10), square(10, 15)) == pytest.approx(50 / 150)


def test_f_tolerates_the_radius_and_no_more() -> None:
    assert boundary_radius(60, 80) == 1
    assert boundary_f(square(10, 10), square(10, 11)) == 1.0
    assert boundary_f(square(10, 10), square(10, 12)) < 1.0


def test_two_empty_masks_agree_and_one_empty_mask_is_wrong() -> None:
    empty = torch.zeros(60, 80, dtype=torch.bool)
    assert (jaccard(empty, empty), boundary_f(empty, empty)) == (1.0, 1.0)
    assert (jaccard(empty, square(5, 5)), boundary_f(empty, square(5, 5))) == (0.0, 0.0)
    assert (jaccard(square(5, 5), empty), boundary_f(square(5, 5), empty)) == (0.0, 0.0)


def test_an_object_that_fills_the_frame_has_no_contour() -> None:
    full, empty = torch.ones(60, 80, dtype=torch.bool), torch.zeros(60, 80, dtype=torch.bool)
    assert boundary_f(full, empty) == 1.0
    assert jaccard(full, empty) == 0.0


def test_void_is_cut_out_of_both_masks() -> None:
    truth = square(10, 10).byte()
    truth[:, 30:] = 255
    predicted = truth.clamp(max=1)
    with_void = paired_frame_jf(predicted, truth, [1], void=True)
    assert (float(with_void.j), float(with_void.f)) == (1.0, 1.0)
    without = paired_frame_jf(predicted, truth, [1])
    assert float(without.j) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_all_pairs_at_once_equal_the_definition_pair_by_pair(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 12, (2, 9, 12), generator=generator).byte()
    predicted, truth = blocks.repeat_interleave(13, 1).repeat_interleave(11, 2)
    radius = boundary_radius(*truth.shape)
    ids = range(1, 12)
    both = frame_jf(predicted, truth, predicted_ids=ids, true_ids=ids)
    for q in ids:
        for k in ids:
            a, b = predicted == q, truth == k
            edge_a, edge_b = boundary_map(a), boundary_map(b)
            found_a = (edge_a & dilate_disc(edge_b, radius)).sum() / edge_a.sum()
            found_b = (edge_b & dilate_disc(edge_a, radius)).sum() / edge_b.sum()
            f = 2 * found_a * found_b / (found_a + found_b) if found_a + found_b > 0 else 0.0
            assert float(both.f[q - 1, k - 1]) == pytest.approx(float(f), abs=1e-6)
            assert float(both.j[q - 1, k - 1]) == pytest.approx(
                float((a & b).sum() / (a | b).sum()), abs=1e-6
            )


@pytest.mark.parametrize("case", SEMI_VALUES["cases"])
def test_semi_supervised_values_equal_the_official_ones(case: str) -> None:
    official = SEMI_VALUES["cases"][case]
    predicted, truth = masks(case, SEMI)
    first, last = official["evaluated_frames"]
    ids = range(1, official["num_objects"] + 1)
    frames = [paired_frame_jf(predicted[t], truth[t], ids) for t in range(first, last + 1)]
    for name, values in (
        ("J", torch.stack([f.j for f in frames], 1)),
        ("F", torch.stack([f.f for f in frames], 1)),
    ):
        assert close(values, official[name])
        for place, row in enumerate(values):
            mean, recall, decay = statistics(row)
            meant = official.get(f"{name}_decay_without_wrap", official[f"{name}_decay"])
            assert close(mean, official[f"{name}_mean"][place])
            assert close(recall, official[f"{name}_recall"][place])
            assert close(decay, meant[place])


@pytest.mark.parametrize("case", UNSUP_VALUES["cases"])
def test_unsupervised_matching_equals_the_official_one(case: str) -> None:
    official = UNSUP_VALUES["cases"][case]
    predicted, truth = masks(case, UNSUP)
    proposals = range(1, max(official["num_proposals"], official["num_objects"]) + 1)
    objects = range(1, official["num_objects"] + 1)
    frames = [
        frame_jf(p, t, predicted_ids=proposals, true_ids=objects, void=True)
        for p, t in zip(predicted, truth, strict=True)
    ]
    j, f = torch.stack([frame.j for frame in frames], 2), torch.stack([frame.f for frame in frames], 2)
    matching = match_proposals(j, f)
    assert [q + 1 for q in matching.proposals] == official["matched_proposals"]
    assert [k + 1 for k in matching.objects] == official["matched_objects"]
    assert close(matching.score, official["score"])
    assert close(j[matching.proposals, matching.objects], official["J"])
    assert close(f[matching.proposals, matching.objects], official["F"])


@pytest.mark.parametrize("place", range(len(YTVOS_VALUES["objects"])))
def test_objects_that_appear_late_have_the_stored_values(place: int) -> None:
    official = YTVOS_VALUES["objects"][place]
    predicted, truth = masks(official["video"], YTVOS)
    frames = [paired_frame_jf(p, t, [official["id"]]) for p, t in zip(predicted, truth, strict=True)]
    j, f = torch.cat([frame.j for frame in frames]), torch.cat([frame.f for frame in frames])
    assert close(j, official["J"]) and close(f, official["F"])
    first = official["first"]
    assert close(j[first:].mean(), official["from_first"]["J"])
    assert close(f[first + 1 :].mean(), official["after_first"]["F"])


def test_recall_counts_values_above_half_only() -> None:
    assert statistics(torch.tensor([0.5, 0.5, 0.6, 1.0], dtype=torch.float64)).recall == 0.5


def test_decay_of_one_frame_is_zero() -> None:
    assert statistics(torch.tensor([0.7], dtype=torch.float64)).decay == 0.0


def test_decay_is_the_meant_value_from_256_frames_on() -> None:
    falling = torch.linspace(1, 0, 1001, dtype=torch.float64)
    assert statistics(falling).decay == pytest.approx(0.75)


def test_no_values_and_too_few_proposals_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        statistics(torch.zeros(0))
    with pytest.raises(ValueError, match="add empty proposals"):
        match_proposals(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
