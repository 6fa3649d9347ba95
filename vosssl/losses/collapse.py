"""Signs that slot training has collapsed: slots unused, slots that look everywhere, slots alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def slot_usage(masks: Tensor, *, share: float = 0.01) -> Tensor:
    """Share of the slots that win at least some part of a frame.

    Args:
        masks: (..., K, h, w), summing to 1 over K.
        share: the part of the positions that counts as used.

    Returns:
        A scalar in (0, 1], averaged over frames; 1 / K when one slot takes everything.
    """
    return (_won(masks) >= share).float().mean()


def largest_share(masks: Tensor) -> Tensor:
    """Part of a frame that its largest slot wins, averaged over frames: (..., K, h, w) -> scalar."""
    return _won(masks).amax(dim=-1).mean()


def attention_entropy(attention: Tensor) -> Tensor:
    """Entropy of each patch's share among the slots, as a part of its maximum log K.

    Args:
        attention: (..., K, h, w), non-negative.

    Returns:
        A scalar in [0, 1]: 0 when every patch belongs to one slot, 1 when all slots share it equally.
    """
    weights = attention / attention.sum(dim=-3, keepdim=True).clamp_min(1e-8)
    entropy = -(weights * weights.clamp_min(1e-12).log()).sum(dim=-3)
    return entropy.mean() / math.log(max(2, attention.shape[-3]))


def duplicate_slots(slots: Tensor, *, cosine: float = 0.95) -> Tensor:
    """Share of the slots that have a near twin in the same frame.

    Args:
        slots: (..., K, D).
        cosine: similarity from which two slots count as twins.

    Returns:
        A scalar in [0, 1].
    """
    unit = F.normalize(slots, dim=-1)
    similarity = unit @ unit.transpose(-2, -1)
    itself = torch.eye(similarity.shape[-1], dtype=torch.bool, device=slots.device)
    return (similarity.masked_fill(itself, -1.0).amax(dim=-1) > cosine).float().mean()


@torch.no_grad()
def collapse_measures(slots: Tensor, masks: Tensor, attention: Tensor) -> dict[str, Tensor]:
    """All of them for one trace.

    Args:
        slots: (B, T, K, D).
        masks: (B, T, K, h, w).
        attention: (B, T, K, h, w).

    Returns:
        `slot_usage`, `largest_share`, `attention_entropy`, `duplicate_slots`: scalars on the device of the
        slots.
    """
    slots, masks, attention = slots.float(), masks.float(), attention.float()  # small numbers vanish in half
    return {
        "slot_usage": slot_usage(masks),
        "largest_share": largest_share(masks),
        "attention_entropy": attention_entropy(attention),
        "duplicate_slots": duplicate_slots(slots),
    }


def collapse_alarms(measures: Mapping[str, Tensor | float]) -> dict[str, str]:
    """What is wrong; empty when nothing is.

    Args:
        measures: from `collapse_measures`, averaged over as many clips as there are.

    Returns:
        A sentence per alarm by its name. The limits are generous: a run beyond them has no objects to show.
    """
    value = {name: float(measure) for name, measure in measures.items()}
    alarms = {
        "one_slot_takes_all": (
            value["largest_share"] > 0.95,
            f"one slot takes {value['largest_share']:.0%} of each frame",
        ),
        "few_slots_used": (
            value["slot_usage"] < 0.25,
            f"only {value['slot_usage']:.0%} of the slots are used",
        ),
        "slots_look_everywhere": (
            value["attention_entropy"] > 0.95,
            f"all slots look everywhere (entropy {value['attention_entropy']:.2f} of 1)",
        ),
        "duplicate_slots": (
            value["duplicate_slots"] > 0.8,
            f"{value['duplicate_slots']:.0%} of the slots have a twin",
        ),
    }
    return {name: sentence for name, (raised, sentence) in alarms.items() if raised}


def _won(masks: Tensor) -> Tensor:
    """Part of the positions where each slot is the largest: (..., K, h, w) -> (..., K)."""
    winner = masks.argmax(dim=-3).flatten(-2)  # (..., h*w)
    return F.one_hot(winner, masks.shape[-3]).float().mean(dim=-2)
