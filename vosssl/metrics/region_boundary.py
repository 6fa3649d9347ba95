"""Region similarity J and contour accuracy F, exactly as the DAVIS toolkit computes them.

J of two masks is |A and B| / |A or B|, 1 if the union is empty. F is the harmonic mean of precision and
recall of the boundary pixels, where a pixel counts as found if a boundary pixel of the other mask lies
within the disc of `boundary_radius`; both boundaries empty: F = 1; exactly one empty: F = 0. Void pixels
(truth 255) are cut out of both masks before anything else. Counts are integers, so the values equal the
official ones bit for bit.

One pass scores all objects, or all pairs of proposals and objects, of a frame: masks travel as bits, the
joint bounding box is cropped (which changes nothing), and only boundary pixels look at their
neighbourhood.

Source: Perazzi et al., DAVIS 2016, CVPR, section 4; Pont-Tuset et al., DAVIS 2017; Caelles et al., DAVIS 2019
(unsupervised); the toolkit davis2017-evaluation for every detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.metrics.contingency import check_labels, joint_counts
from vosssl.ops.assignment import optimal_assignment
from vosssl.ops.boundary import (
    boundary_map,
    boundary_radius,
    discs_at,
    pack_masks,
    set_pixels,
    union,
    unpack_bits,
)

RECALL_THRESHOLD = 0.5


class FrameJF(NamedTuple):
    """J and F of one frame: (Q, N) float64 each, proposal by object."""

    j: Tensor
    f: Tensor


class Statistics(NamedTuple):
    """What is reported of an object's per-frame values."""

    mean: float
    recall: float
    decay: float


class Matching(NamedTuple):
    """Proposals assigned to objects, as positions, in rising order of the proposal."""

    proposals: list[int]
    objects: list[int]
    score: Tensor  # (Q, N) float64, mean of J and F over the frames


def frame_jf(
    predicted: Tensor,
    truth: Tensor,
    *,
    predicted_ids: Sequence[int],
    true_ids: Sequence[int],
    void: bool = False,
) -> FrameJF:
    """J and F of every proposal against every object of one frame.

    Args:
        predicted: (H, W) uint8 ids.
        truth: (H, W) uint8 ids.
        predicted_ids: Q ids; one that does not occur is an empty mask.
        true_ids: N ids.
        void: pixels with truth 255 are cut out of both masks; otherwise 255 is background.

    Returns:
        (Q, N) J and (Q, N) F, float64, on the CPU.

    Raises:
        ValueError: shapes that differ, or other dtypes than uint8.
    """
    check_labels(predicted, truth)
    radius = boundary_radius(*truth.shape)
    if void:
        predicted = predicted * (truth ^ VOID).bool()
    predicted, truth = _crop(predicted, truth, margin=radius + 1)
    maps_p, maps_t = pack_masks(predicted, predicted_ids), pack_masks(truth, true_ids)
    if len(predicted_ids) == len(true_ids) == 1:
        pixels = [maps.count_nonzero().view(1) for maps in (maps_p & maps_t, maps_p, maps_t)]
        j = _jaccard(pixels[0][None], pixels[1], pixels[2])
    else:
        j = _jaccard(*_areas(predicted, truth, predicted_ids, true_ids))
    f = _f_measure(maps_p, maps_t, radius, len(predicted_ids), len(true_ids))
    return FrameJF(j.cpu(), f.cpu())


def paired_frame_jf(predicted: Tensor, truth: Tensor, ids: Sequence[int], *, void: bool = False) -> FrameJF:
    """J and F of every object against the prediction of the same id.

    Args:
        predicted: (H, W) uint8 ids.
        truth: (H, W) uint8 ids.
        ids: N ids.
        void: as in `frame_jf`.

    Returns:
        (N,) J and (N,) F, float64, on the CPU.
    """
    pairs = frame_jf(predicted, truth, predicted_ids=ids, true_ids=ids, void=void)
    return FrameJF(pairs.j.diagonal(), pairs.f.diagonal())


def jaccard(predicted: Tensor, truth: Tensor) -> float:
    """J of two binary masks.

    Args:
        predicted: (H, W) bool.
        truth: (H, W) bool.

    Returns:
        [0, 1]; 1 when both are empty.
    """
    return float(paired_frame_jf(predicted.byte(), truth.byte(), [1]).j[0])


def boundary_f(predicted: Tensor, truth: Tensor) -> float:
    """F of two binary masks.

    Args:
        predicted: (H, W) bool.
        truth: (H, W) bool.

    Returns:
        [0, 1]; 1 when neither has a boundary (empty, or filling the image), 0 when exactly one has none.
    """
    return float(paired_frame_jf(predicted.byte(), truth.byte(), [1]).f[0])


def statistics(values: Tensor) -> Statistics:
    """Mean, recall and decay of one object's values over time.

    Recall is the share of values above (not at) 0.5. Decay is the mean of the first quarter minus that of the
    last; neighbouring quarters share a frame. The toolkit stores the quarters' edges in 8 bits, so its
    decay is wrong or NaN from 256 frames on; this is the value it means.

    Args:
        values: (T,) float64, T >= 1.

    Returns:
        The three numbers; decay may be negative.

    Raises:
        ValueError: no values.
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values are {tuple(values.shape)}, expected (T,) with at least one frame")
    count = len(values)
    edges = [round(1 + (count - 1) * quarter / 4 + 1e-10) - 1 for quarter in range(5)]
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    recall = (values > RECALL_THRESHOLD).double().mean()
    return Statistics(float(values.mean()), float(recall), float(first.mean() - last.mean()))


def match_proposals(j: Tensor, f: Tensor) -> Matching:
    """Assigns one proposal to each object for the whole video, for the largest sum of (mean J + mean F) / 2.

    Args:
        j: (Q, N, T) float64, Q >= N (pad with empty proposals).
        f: (Q, N, T) float64.

    Returns:
        N pairs in rising order of the proposal, and the (Q, N) scores.

    Raises:
        ValueError: fewer proposals than objects.
    """
    if j.shape[0] < j.shape[1]:
        raise ValueError(
            f"{j.shape[0]} proposals for {j.shape[1]} objects, expected at least as many; add empty proposals"
        )
    score = (j.mean(dim=2) + f.mean(dim=2)) / 2
    proposals, objects = optimal_assignment(score)
    return Matching(proposals.tolist(), objects.tolist(), score)


def _crop(predicted: Tensor, truth: Tensor, *, margin: int) -> tuple[Tensor, Tensor]:
    """Both maps on the joint bounding box of what is not background, plus a margin."""
    used = predicted | truth
    rows, columns = used.amax(dim=1).nonzero(), used.amax(dim=0).nonzero()
    if not len(rows):
        return predicted[:2, :2], truth[:2, :2]
    top, bottom = int(rows[0]) - margin, int(rows[-1]) + margin + 1
    left, right = int(columns[0]) - margin, int(columns[-1]) + margin + 1
    window = (slice(max(top, 0), bottom), slice(max(left, 0), right))
    return predicted[window].contiguous(), truth[window].contiguous()


def _areas(
    predicted: Tensor, truth: Tensor, predicted_ids: Sequence[int], true_ids: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels shared by each pair of masks, and pixels of each: (Q, N), (Q,), (N,) int64."""
    table = joint_counts(predicted, truth)  # (256, 256), truth by prediction
    rows, columns = list(true_ids), list(predicted_ids)
    return table[rows][:, columns].T, table[:, columns].sum(dim=0), table[rows].sum(dim=1)


def _jaccard(shared: Tensor, first: Tensor, second: Tensor) -> Tensor:
    union = (first[:, None] + second - shared).double()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def _f_measure(maps_p: Tensor, maps_t: Tensor, radius: int, count: int, other: int) -> Tensor:
    """(Q, N) float64 F of Q predicted and N true masks, given as bit maps (M, H, W)."""
    edges = boundary_map(torch.cat([maps_p, maps_t]))
    pixels = set_pixels(union(edges))  # (P,), every boundary pixel of anything
    on = edges.flatten(1).index_select(1, pixels)  # (M, H, W) -> (M, P)
    near = discs_at(edges, pixels, radius)
    on_p, near_p = (unpack_bits(bits[: len(maps_p)], count).double() for bits in (on, near))  # (Q, P)
    on_t, near_t = (unpack_bits(bits[len(maps_p) :], other).double() for bits in (on, near))  # (N, P)
    size_p, size_t = on_p.sum(dim=1)[:, None], on_t.sum(dim=1)[None]
    precision = on_p @ near_t.T / size_p.clamp(min=1)
    recall = near_p @ on_t.T / size_t.clamp(min=1)
    total = precision + recall
    f = 2 * precision * recall / torch.where(total > 0, total, 1.0)
    return torch.where((size_p == 0) & (size_t == 0), 1.0, f)
