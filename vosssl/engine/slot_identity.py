"""Which true object each slot holds at each frame, and where identities switch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.ops.assignment import optimal_assignment

NOTHING = -1  # matched value of a slot that holds no object and is not background


class Switch(NamedTuple):
    """One broken identity.

    Attributes:
        frame: index of the first frame at which it shows.
        slot: the slot, from 0.
        object: the object that it holds now.
        slot_before: the slot that held the object last, or None when nobody else did.
        object_before: the object that the slot held last, or None when it held no other.
    """

    frame: int
    slot: int
    object: int
    slot_before: int | None
    object_before: int | None


class SlotIdentity(NamedTuple):
    """What slots hold over time.

    Attributes:
        areas: (T, K) float, the share of the frame that each slot wins.
        matched: (T, K) int64, the true object's id, 0 for background, -1 for nothing (also without truth).
        ious: (T, K) float, IoU with the matched object, 0 where there is none.
        switches: in the order of frames.
    """

    areas: Tensor
    matched: Tensor
    ious: Tensor
    switches: list[Switch]


def slot_identity(
    slots: Tensor,
    truth: Tensor | None,
    *,
    num_slots: int,
    labelled: Tensor | None = None,
    min_iou: float = 0.1,
) -> SlotIdentity:
    """Matches slots to true objects, one to one at every frame, by the largest sum of IoU.

    A slot without an object is background when most of its labelled pixels are. An identity switches where
    an object moves to another slot, or a slot to another object, than the one it was last matched with,
    however long ago; background and unmatched frames in between switch nothing.

    Args:
        slots: (T, H, W) integer, the winning slot of each pixel, 0..K-1; other values belong to no slot.
        truth: (T, H, W) uint8 ids, 255 does not count; or None.
        num_slots: K.
        labelled: (T,) bool, frames with truth. None means all.
        min_iou: a pair that overlaps less is no match.

    Returns:
        Areas, matches and switches.
    """
    length, height, width = slots.shape
    areas = torch.stack([(slots == k).sum(dim=(1, 2)) for k in range(num_slots)], dim=1) / (height * width)
    matched = torch.full((length, num_slots), NOTHING, dtype=torch.int64)
    ious = torch.zeros(length, num_slots)
    for t in range(length if truth is not None else 0):
        if truth is not None and (labelled is None or labelled[t]):
            matched[t], ious[t] = _match_frame(slots[t], truth[t], num_slots=num_slots, min_iou=min_iou)
    return SlotIdentity(areas.cpu(), matched, ious, _switches(matched))


def _match_frame(slots: Tensor, truth: Tensor, *, num_slots: int, min_iou: float) -> tuple[Tensor, Tensor]:
    """Objects and IoUs of the slots of one frame: (H, W) and (H, W) -> (K,) int64 and (K,) float."""
    counted = (truth != VOID) & (slots >= 0) & (slots < num_slots)
    pairs = slots[counted].long() * VOID + truth[counted].long()
    table = torch.bincount(pairs, minlength=num_slots * VOID).reshape(num_slots, VOID).cpu()  # (K, 255)
    sizes = torch.bincount(truth[truth != VOID].long(), minlength=VOID).cpu()  # (255,)
    union = table.sum(dim=1, keepdim=True) + sizes - table  # (K, 255)
    iou = table / union.clamp(min=1)
    mostly_background = table[:, 0] * 2 > table.sum(dim=1)
    matched = torch.where(mostly_background, 0, NOTHING)
    ious = torch.where(mostly_background, iou[:, 0], 0.0)
    rows, columns = optimal_assignment(iou[:, 1:])
    overlaps = iou[rows, columns + 1]
    kept = (overlaps >= min_iou) & (overlaps > 0)
    matched[rows[kept]], ious[rows[kept]] = columns[kept] + 1, overlaps[kept]
    return matched, ious


def _switches(matched: Tensor) -> list[Switch]:
    """Reads (T, K) matches in the order of time."""
    found: list[Switch] = []
    holder: dict[int, int] = {}  # object -> the slot that held it last
    held: dict[int, int] = {}  # slot -> the object that it held last
    for t, row in enumerate(matched.tolist()):
        now = {slot: identity for slot, identity in enumerate(row) if identity > 0}
        for slot, identity in now.items():
            slot_before = holder.get(identity, slot)
            object_before = held.get(slot, identity)
            if slot_before != slot or object_before != identity:
                found.append(
                    Switch(
                        t,
                        slot,
                        identity,
                        None if slot_before == slot else slot_before,
                        None if object_before == identity else object_before,
                    )
                )
        for slot, identity in now.items():
            holder[identity], held[slot] = slot, identity
    return found
