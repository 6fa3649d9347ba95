"""Which objects of a labelled clip a network is trained on, and labels that hold nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID, Clip

Others = Literal["background", "merged", "void"]


class AreaRule(NamedTuple):
    """When an object of the first frame is large enough to be a target; areas in pixels.

    Attributes:
        more_than: it has to be larger than this, and
        certain: larger than this too,
        grown: unless it stays smaller than this in all other frames (then it is small, not cut off).

    Source: STCN's loader uses (100, 900, 400) for BL30K; other datasets have no rule, which is (0, 0, 0).
    """

    more_than: int = 0
    certain: int = 0
    grown: int = 0


EVERY_PIXEL = AreaRule()


def object_areas(labels: Tensor) -> Tensor:
    """Pixels of every id in every frame.

    Args:
        labels: (T, H, W) uint8 ids.

    Returns:
        (T, 256) int64.
    """
    return torch.stack([frame.flatten().bincount(minlength=256) for frame in labels])  # (T, 256)


def target_ids(labels: Tensor, *, rule: AreaRule = EVERY_PIXEL) -> list[int]:
    """Ids that may be targets: objects of the first frame that are large enough, in ascending order.

    Args:
        labels: (T, H, W) uint8 ids; 0 and 255 (void) are no objects.
        rule: how large they have to be.

    Returns:
        The ids.
    """
    if rule == EVERY_PIXEL or len(labels) == 1:
        first = labels[0].flatten().bincount(minlength=256)
        later = torch.zeros_like(first)
    else:
        areas = object_areas(labels)
        first, later = areas[0], areas[1:].amax(0)
    allowed = (first > rule.more_than) & ((first > rule.certain) | (later < rule.grown))
    allowed[0] = allowed[VOID] = False
    return allowed.nonzero().flatten().tolist()


def keep_objects(labels: Tensor, ids: Sequence[int], *, others: Others = "background") -> Tensor:
    """Labels in which the ids are 1, 2, … in the order given.

    Args:
        labels: (..., H, W) uint8 ids.
        ids: which to keep.
        others: what the other objects become: background (0), one more object behind the last, or void.

    Returns:
        (..., H, W) uint8; void stays void.
    """
    rest = {"background": 0, "merged": len(ids) + 1, "void": VOID}[others]
    table = torch.full((256,), rest, dtype=torch.uint8)
    table[0], table[VOID] = 0, VOID
    table[list(ids)] = torch.arange(1, len(ids) + 1, dtype=torch.uint8)
    return table[labels.int()]


def with_targets(
    clip: Clip,
    order: Sequence[int],
    *,
    max_objects: int | None = None,
    others: Others = "background",
    rule: AreaRule = EVERY_PIXEL,
) -> Clip | None:
    """The clip with at most so many of its objects as targets.

    Args:
        clip: the clip, with labels.
        order: ids in the order in which they are preferred.
        max_objects: how many targets at most; None: all.
        others: what becomes of objects that are not chosen. "merged": where there are more than max_objects
            (at least 2), those in excess are the last target together.
        rule: how large targets have to be.

    Returns:
        The clip with labels 1..num_objects; None when its first frame holds no target.
    """
    assert clip.labels is not None
    allowed = set(target_ids(clip.labels, rule=rule))
    ids = [number for number in order if number in allowed]
    if not ids:
        return None
    limit = len(ids) if max_objects is None else max_objects
    merges = others == "merged" and len(ids) > limit > 1
    chosen = ids[: limit - merges]
    fate: Others = "background" if others == "merged" and not merges else others
    labels = keep_objects(clip.labels, chosen, others=fate)
    return replace(clip, labels=labels, num_objects=len(chosen) + merges)


def shuffled(ids: Sequence[int], generator: torch.Generator) -> list[int]:
    """The ids in a random order."""
    return [ids[place] for place in torch.randperm(len(ids), generator=generator).tolist()]
