"""Region similarity J and contour accuracy F, exactly as the DAVIS toolkit computes them.

J of two masks is |A and B| / |A or B|, 1 if the union is empty. F is the harmonic mean of precision and
recall of the boundary pixels, where a pixel counts as found if a boundary pixel of the other mask lies
within the disc of `boundary_radius`; both boundaries empty: F = 1; exactly one empty: F = 0. Void pixels
(truth 255) are cut out of both masks before anything else. Counts are integers, so the values equal the
official ones bit for bit.

One pass scores all objects, or all pairs of proposals and objects, of several frames: only places where a
label changes are looked at (`outlines`), and masks are bits there.

Source: Perazzi et al., DAVIS 2016, CVPR, section 4; Pont-Tuset et al., DAVIS 2017; Caelles et al., DAVIS 2019
(unsupervised); the toolkit davis2017-evaluation for every detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.metrics.outlines import Outlines, near, trace
from vosssl.ops.assignment import optimal_assignment
from vosssl.ops.boundary import BITS, unpack_bits

RECALL_THRESHOLD = 0.5


class FrameJF(NamedTuple):
    """J and F, float64 on the CPU: (N, T) object by frame, or (Q, N, T) proposal by object by frame."""

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


def paired_jf(
    outlines: Outlines,
    ids: Sequence[int],
    *,
    void: bool = False,
    merge_predictions: bool = False,
    merge_truth: bool = False,
) -> FrameJF:
    """J and F of every object against the prediction of the same id, in every frame.

    Args:
        outlines: of T frames, from `trace`.
        ids: N ids; one that does not occur is an empty mask.
        void: pixels with truth 255 are cut out of both masks; otherwise 255 is background.
        merge_predictions: every predicted value above 0 is object 1.
        merge_truth: every true value above 0, 255 included, is object 1.

    Returns:
        (N, T) J and (N, T) F.
    """
    count = len(ids)
    predicted = _bit_table(ids, range(0, 2 * count, 2), 2 * count, merge=merge_predictions)
    true = _bit_table(ids, range(1, 2 * count, 2), 2 * count, merge=merge_truth)
    here, edges = _masks_at(outlines, predicted, true, void=void)
    hits = edges & _swap(near(outlines, edges, _swap(edges)))
    pixels = torch.cat([unpack_bits(maps, 2 * count) for maps in (edges, hits)])  # (4 N, P)
    size_p, size_t, hit_p, hit_t = (
        _per_frame(pixels, outlines).view(2, count, 2, -1).transpose(1, 2).flatten(0, 1)
    )
    masks = torch.cat([unpack_bits(here, 2 * count), unpack_bits(here & _swap(here), 2 * count)[::2]])
    areas = _per_frame(masks * outlines.lengths, outlines)  # (3 N, T)
    area_p, area_t = areas[: 2 * count].view(count, 2, -1).unbind(1)
    return FrameJF(_jaccard(areas[2 * count :], area_p, area_t), _f_measure(hit_p, size_p, hit_t, size_t))


def pairwise_jf(
    outlines: Outlines,
    *,
    predicted_ids: Sequence[int],
    true_ids: Sequence[int],
    void: bool = False,
    merge_predictions: bool = False,
    merge_truth: bool = False,
) -> FrameJF:
    """J and F of every proposal against every object, in every frame.

    Args:
        outlines: of T frames, from `trace`.
        predicted_ids: Q ids; one that does not occur is an empty mask.
        true_ids: N ids.
        void: as in `paired_jf`.
        merge_predictions: as in `paired_jf`.
        merge_truth: as in `paired_jf`.

    Returns:
        (Q, N, T) J and (Q, N, T) F.
    """
    split, total = len(predicted_ids), len(predicted_ids) + len(true_ids)
    predicted = _bit_table(predicted_ids, range(split), total, merge=merge_predictions)
    true = _bit_table(true_ids, range(split, total), total, merge=merge_truth)
    here, edges = _masks_at(outlines, predicted, true, void=void)
    found = near(outlines, edges, torch.full_like(edges, 255))
    masks, on, around = (unpack_bits(maps, total).double() for maps in (here, edges, found))  # (Q + N, P)
    weighted = masks * outlines.lengths
    tables = []
    starts = [0, *outlines.ends.tolist()]
    for part in map(slice, starts[:-1], starts[1:]):
        shared = weighted[:split, part] @ masks[split:, part].T  # (Q, N)
        areas, sizes = weighted[:, part].sum(1), on[:, part].sum(1)
        hits_p = on[:split, part] @ around[split:, part].T
        hits_t = around[:split, part] @ on[split:, part].T
        j = _jaccard(shared, areas[:split, None], areas[split:])
        tables.append((j, _f_measure(hits_p, sizes[:split, None], hits_t, sizes[split:])))
    return FrameJF(*(torch.stack(values, dim=-1) for values in zip(*tables, strict=True)))


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
        void: as in `paired_jf`.

    Returns:
        (Q, N) J and (Q, N) F.

    Raises:
        ValueError: shapes that differ, or other dtypes than uint8.
    """
    outlines = trace(predicted[None], truth[None])
    pairs = pairwise_jf(outlines, predicted_ids=predicted_ids, true_ids=true_ids, void=void)
    return FrameJF(pairs.j[..., 0], pairs.f[..., 0])


def paired_frame_jf(predicted: Tensor, truth: Tensor, ids: Sequence[int], *, void: bool = False) -> FrameJF:
    """J and F of every object of one frame against the prediction of the same id.

    Args:
        predicted: (H, W) uint8 ids.
        truth: (H, W) uint8 ids.
        ids: N ids.
        void: as in `paired_jf`.

    Returns:
        (N,) J and (N,) F.
    """
    pairs = paired_jf(trace(predicted[None], truth[None]), ids, void=void)
    return FrameJF(pairs.j[:, 0], pairs.f[:, 0])


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


def _bit_table(ids: Sequence[int], bits: Sequence[int], total: int, *, merge: bool) -> Tensor:
    """(M, 256) uint8: the bits that a label sets, of `total` bits in M maps."""
    table = torch.zeros(-(-total // BITS), VOID + 1, dtype=torch.uint8)
    for identity, bit in zip(ids, bits, strict=True):
        labels = slice(1, None) if merge else identity
        table[bit // BITS, labels] |= 1 << bit % BITS
    return table


def _masks_at(outlines: Outlines, predicted: Tensor, true: Tensor, *, void: bool) -> tuple[Tensor, Tensor]:
    """(M, P) bit maps at each place: which masks it is in, and on the boundary of which it lies."""
    device = outlines.places.device
    labels_p, labels_t = outlines.predicted.flatten().int(), outlines.truth.flatten().int()  # (4 P,)
    if void:
        keep = (outlines.truth.flatten() != VOID).view(torch.uint8)
        labels_p = labels_p * keep
    here, edges = [], []
    for of_predicted, of_true in zip(predicted.to(device), true.to(device), strict=True):
        bits = of_predicted.index_select(0, labels_p) | of_true.index_select(0, labels_t)
        own, right, below, beyond = bits.view(4, -1)
        here.append(own)
        edges.append(((own ^ right) | (own ^ below) | (own ^ beyond)) * outlines.inside)
    return torch.stack(here), torch.stack(edges)


def _swap(bits: Tensor) -> Tensor:
    """Neighbouring bits, an object's prediction and truth, change places."""
    return ((bits & 0x55) << 1) | ((bits >> 1) & 0x55)


def _per_frame(rows: Tensor, outlines: Outlines) -> Tensor:
    """(R, T) float64 sums of each row's (R, P) integers over the places of each frame."""
    sums = torch.nn.functional.pad(rows.cumsum(1, dtype=torch.int64), (1, 0))[:, outlines.ends]
    return sums.diff(dim=1, prepend=sums.new_zeros(len(sums), 1)).double().cpu()


def _jaccard(shared: Tensor, first: Tensor, second: Tensor) -> Tensor:
    union = first + second - shared
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0).cpu()


def _f_measure(hits_p: Tensor, size_p: Tensor, hits_t: Tensor, size_t: Tensor) -> Tensor:
    """F from how many boundary pixels were found, and how many there are, on either side."""
    precision, recall = hits_p / size_p.clamp(min=1), hits_t / size_t.clamp(min=1)
    total = precision + recall
    f = 2 * precision * recall / torch.where(total > 0, total, 1.0)
    return torch.where((size_p == 0) & (size_t == 0), 1.0, f).cpu()
