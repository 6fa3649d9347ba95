"""What a slot network sees in a stretch of video: its most confident frame, and which slots are objects."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.assignment import optimal_assignment
from vosssl.ops.masks import labels_to_masks, object_ids
from vosssl.ops.resize import Size, resize_masks
from vosssl.ops.slot_matching import mask_overlap
from vosssl.propagation.slot_tracking import SlotTracker


class Discovery(NamedTuple):
    """The slots of the frame that they were surest of.

    Attributes:
        place: number of the frame among those that were looked at.
        confidence: of it, in [0, 1].
        masks: (K, h, w) slot masks of it, summing to 1 over K.
    """

    place: int
    confidence: float
    masks: Tensor


def confidence(masks: Tensor, before: Tensor | None) -> float:
    """How sure slots are of a frame: the winner's mean share, times how well masks agree with those before.

    Args:
        masks: (K, h, w), summing to 1 over K.
        before: of the frame before, in the same order; None: agreement is not known and counts as 1.

    Returns:
        In [0, 1].
    """
    sure = float(masks.amax(0).mean())
    if before is None:
        return sure
    weight = masks.sum((1, 2))  # (K,) large slots count more
    kept = mask_overlap(before, masks).diagonal()  # (K,)
    return sure * float((kept * weight).sum() / weight.sum().clamp(min=1e-8))


def surest(tracker: SlotTracker, frames: Tensor) -> Discovery:
    """Runs slots over frames from scratch and keeps the frame that they are surest of.

    The first frame has none before it to agree with, so it is chosen only where there is no other.

    Args:
        tracker: discovers objects; reset first.
        frames: (T, 3, H, W) RGB uint8.

    Returns:
        The discovery; on equal confidence the earlier frame.
    """
    tracker.reset()
    best: Discovery | None = None
    before: Tensor | None = None
    for place, frame in enumerate(frames):
        tracker.step(frame)
        masks = tracker.masks
        sure = confidence(masks, before)
        if best is None or best.place == 0 or sure > best.confidence:
            best = Discovery(place, sure, masks)
        before = masks
    assert best is not None, "no frame"
    return best


class Background(NamedTuple):
    """When a slot stands for the background.

    Attributes:
        area: it wins a larger share of the frame than this.
        border: it wins a larger share of the frame's outermost patches than this.
        alike: its mean feature has a larger cosine with the background's than this: a piece of it that
            touches no border.
    """

    area: float = 0.35
    border: float = 0.2
    alike: float = 0.9


def object_labels(
    masks: Tensor,
    features: Tensor,
    *,
    background: Background,
    known: Tensor | None = None,
    smallest: float = 0.002,
) -> tuple[Tensor, Tensor]:
    """The slots that are objects, as labels.

    Args:
        masks: (K, h', w') slot masks.
        features: (h, w, D) unit-length features of the frame, on the grid that labels are wanted on.
        background: when a slot is not one.
        known: (D,) what the background looked like elsewhere in the video, any length, or None.
        smallest: share of the frame that an object has at least.

    Returns:
        (h, w) uint8: 0 background, 1.. objects in the order of their slots; (D,) what the background
        looks like here, of a length that grows with its share of the frame.
    """
    grid: Size = (features.shape[0], features.shape[1])
    winners = resize_masks(masks.float(), grid).argmax(0)  # (h, w)
    owned = F.one_hot(winners, len(masks)).permute(2, 0, 1).float()  # (K, h, w)
    area = owned.mean((1, 2))  # (K,)
    border = _border_share(owned)
    apart = (area > background.area) | (border > background.border)
    sums = owned.flatten(1) @ features.flatten(0, 1).float() / (grid[0] * grid[1])  # (K, D)
    look = sums[apart].sum(0)
    prototype = look if known is None else look + known
    if bool(prototype.any()):
        apart |= F.normalize(sums, dim=-1) @ F.normalize(prototype, dim=0) > background.alike
    apart |= area < smallest
    numbers = torch.where(apart, 0, (~apart).cumsum(0))  # (K,) rank among the objects
    return numbers[winners].byte(), look


def _border_share(owned: Tensor) -> Tensor:
    """(K,) share of the outermost patches that each of (K, h, w) masks owns."""
    ring = torch.ones_like(owned[0])
    ring[1:-1, 1:-1] = 0
    return (owned * ring).sum((1, 2)) / ring.sum()


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) intersection over union of bool masks (N, ...) and (M, ...); 0 where both are empty."""
    one, other = first.flatten(1).float(), second.flatten(1).float()
    inside = one @ other.T
    return inside / (one.sum(1)[:, None] + other.sum(1) - inside).clamp(min=1)


def same_objects(first: Tensor, second: Tensor, *, overlap: float) -> dict[int, int]:
    """Which objects of two label maps (of the same frames) are one, each at most once.

    An id that both know means the same object and is left out.

    Args:
        first: (..., h, w) uint8 ids.
        second: likewise.
        overlap: smallest intersection over union, over all the frames together.

    Returns:
        id in `second` -> id in `first`.
    """
    shared = set(object_ids(first)) & set(object_ids(second))
    rows = [identity for identity in object_ids(first) if identity not in shared]
    columns = [identity for identity in object_ids(second) if identity not in shared]
    if not rows or not columns:
        return {}
    score = mask_iou(
        labels_to_masks(first, rows).transpose(0, -3), labels_to_masks(second, columns).transpose(0, -3)
    )
    pairs = zip(*(part.tolist() for part in optimal_assignment(score)), strict=True)
    return {columns[m]: rows[n] for n, m in pairs if float(score[n, m]) >= overlap}


def joined(found: Tensor, carried: Tensor, *, visible: float = 0.5) -> Tensor:
    """Labels found in a frame, with tracks that came there and were not found: where nothing else is.

    Args:
        found: (h, w) uint8 ids, already those of the tracks where they are the same objects.
        carried: (h, w) uint8 ids of the tracks.
        visible: share of a track's area that has to be free; else it is taken for covered and left out.

    Returns:
        (h, w) uint8.
    """
    result = found.clone()
    for identity in object_ids(carried):
        mask = carried == identity
        free = mask & (found == 0)
        if not bool((found == identity).any()) and float(free.sum()) >= visible * float(mask.sum()):
            result[free] = identity
    return result
