"""Slot-slot contrast: a slot must recognise itself in the next frame among the slots of the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def slot_contrast(slots: Tensor, *, temperature: float = 0.1, across_batch: bool = True) -> Tensor:
    """Contrastive loss between the slots of consecutive frames.

    For each slot of frame t + 1 the softmax runs over the slots of frame t (that direction only); gradient
    reaches both frames.

    Args:
        slots: (B, T, K, D).
        temperature: of the cosine similarities.
        across_batch: whether slots of the other clips are negatives too.

    Returns:
        A scalar, averaged over frame pairs and slots.

    Raises:
        ValueError: a clip of one frame.

    Source: Manasyan et al., "Temporally Consistent Object-Centric Learning by Contrasting Slots"
        (SlotContrast), CVPR 2025, section 3.2.
    """
    if slots.shape[1] < 2:
        raise ValueError(
            "slot contrast compares consecutive frames, got clips of one frame; use longer clips"
        )
    with torch.autocast(slots.device.type, enabled=False):  # a small temperature magnifies rounding
        slots = F.normalize(slots.float(), dim=-1)
        if across_batch:
            slots = slots.transpose(0, 1).flatten(1, 2)  # (B, T, K, D) -> (T, B*K, D)
            earlier, later = slots[:-1], slots[1:]
        else:
            earlier, later = slots[:, :-1].flatten(0, 1), slots[:, 1:].flatten(0, 1)  # (B*(T-1), K, D)
        logits = earlier @ later.transpose(-2, -1) / temperature  # (pairs, S earlier, S later)
        same = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[0], -1)
        return F.cross_entropy(logits, same)  # classes are axis 1: the earlier slots
