"""Soft labels of a frame with the ids of their rows: following them through features, fusing two opinions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.ops.masks import labels_to_masks, masks_to_labels, object_ids
from vosssl.propagation.source_memory import Attend, SourceMemory, propagate


class SoftLabels(NamedTuple):
    """What one direction says of a frame.

    Attributes:
        rows: (h, w, 1 + N) float, background first.
        ids: of the other rows, rising.
    """

    rows: Tensor
    ids: tuple[int, ...]

    @property
    def labels(self) -> Tensor:
        """(h, w) uint8 ids."""
        return masks_to_labels(self.rows.permute(2, 0, 1), self.ids)


@torch.inference_mode()
def spread(features: Sequence[Tensor], labels: Tensor, attend: Attend) -> Iterator[SoftLabels]:
    """Follows the labels of the first of some frames through the others.

    Args:
        features: (h, w, D) of each, unit length, in the order to go.
        labels: (h, w) uint8 of the first.
        attend: how; the first frame stays a source.

    Yields:
        What is known of each frame, the first included.
    """
    ids = object_ids(labels)
    masks = labels_to_masks(labels, ids)  # (N, h, w)
    rows = torch.cat([~masks.any(0, keepdim=True), masks]).permute(1, 2, 0).float()  # (h, w, 1 + N)
    memory = SourceMemory(attend)
    memory.add(features[0], rows, None, keep=True)
    yield SoftLabels(rows, ids)
    for frame in features[1:]:
        rows = propagate(frame, memory) if ids else torch.ones_like(rows)
        memory.add(frame, rows, None, keep=False)
        yield SoftLabels(rows, ids)


def fuse(first: SoftLabels, second: SoftLabels, *, share: float) -> SoftLabels:
    """Two opinions on a frame; where one does not know an object, its background asks the other.

    Args:
        first: counts 1 - share.
        second: counts share.
        share: in [0, 1].

    Returns:
        All objects of both.
    """
    ids = tuple(sorted({*first.ids, *second.ids}))
    one, other = _completed(first, second, ids), _completed(second, first, ids)
    return SoftLabels((1 - share) * one + share * other, ids)


def _completed(own: SoftLabels, other: SoftLabels, ids: tuple[int, ...]) -> Tensor:
    """(h, w, 1 + len(ids)): own rows, and of what is not known the other's part of the own background."""
    rows = own.rows.new_zeros(*own.rows.shape[:2], len(ids) + 1)
    rows[..., 0] = own.rows[..., 0]
    for place, identity in enumerate(ids, start=1):
        if identity in own.ids:
            rows[..., place] = own.rows[..., 1 + own.ids.index(identity)]
        else:
            asked = own.rows[..., 0] * other.rows[..., 1 + other.ids.index(identity)]
            rows[..., place] = asked
            rows[..., 0] -= asked
    return rows


def renamed(labels: Tensor, names: Mapping[int, int]) -> Tensor:
    """Labels (...) uint8 with other ids; those not named stay."""
    table = torch.arange(256, dtype=torch.uint8, device=labels.device)
    for old, new in names.items():
        table[old] = new
    return table[labels.long()]


def rename_rows(soft: SoftLabels, names: Mapping[int, int]) -> SoftLabels:
    """Soft labels with other ids, in rising order; no two of them become one."""
    ids = [names.get(identity, identity) for identity in soft.ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rows = soft.rows[..., [0, *(1 + place for place in order)]]
    return SoftLabels(rows, tuple(ids[place] for place in order))
