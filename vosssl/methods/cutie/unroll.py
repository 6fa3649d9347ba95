"""Cutie over whole clips, differentiable, for training: made of the same steps that it follows video with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vosssl.ops.images import as_float
from vosssl.propagation.memory_bank import MemoryBank
from vosssl.propagation.memory_network import frame_at

if TYPE_CHECKING:
    from vosssl.methods.cutie.network import Cutie


class ClipLogits(NamedTuple):
    """Log-odds of objects that compete, background first, in all frames but the first.

    Attributes:
        masks: (B, T - 1, N + 1, H, W).
        sensory: (B, T - 1, N + 1, h, w), from the sensory memory before each frame.
        queries: (B, T - 1, N + 1, L, h, w), of the object transformer at L levels.
    """

    masks: Tensor
    sensory: Tensor
    queries: Tensor


def follow_clips(
    network: Cutie,
    frames: Tensor,
    first_masks: Tensor,
    present: Tensor,
    *,
    references: Sequence[Tensor],
    deep_updates: Sequence[bool],
) -> ClipLogits:
    """Follows the masks of first frames through clips; every frame but the last is memorised as predicted.

    Args:
        network: the network.
        frames: (B, T, 3, H, W) RGB, uint8 or float in [0, 1]; sides multiples of 16.
        first_masks: (B, N, H, W) in [0, 1].
        present: (B, N), 0 or False for objects that a clip does not have; they claim no pixel.
        references: for each frame from the second on, the earlier frames that it reads: (B, R) int64.
        deep_updates: for each frame from the second to the last but one, whether the sensory memory sees what
            was memorised of it; of the first frame it does.

    Returns:
        Logits of the frames from the second on.
    """
    images, clips = as_float(frames), frames.shape[:2]
    encoded = network.encode_frame(images.flatten(0, 1))  # (B, T, 3, H, W) -> (B*T, ...)
    memory = MemoryBank(top_k=None, differentiable=True)
    selector = present.to(images.dtype)
    masks, steps = first_masks, []
    carry = network.fresh_carry(frame_at(encoded, clips, 0), first_masks.shape[1])
    for time in range(1, frames.shape[1]):
        deep = time == 1 or deep_updates[time - 2]
        before = frame_at(encoded, clips, time - 1)
        values, carry = network.memorise(images[:, time - 1], before, masks, carry, deep_update=deep)
        memory.append(before, values, range(1, masks.shape[1] + 1))
        frame = frame_at(encoded, clips, time)
        (readout,) = memory.read(frame, only=references[time - 1])
        fused = network.fuse(frame, readout, carry["sensory"], masks)
        features, levels = network.read_objects(fused, carry["summaries"], selector=selector)
        auxiliary = network.auxiliary_logits(frame, carry["sensory"], features, levels, selector=selector)
        logits, sensory = network.decode(frame, features, carry["sensory"], update=time + 1 < frames.shape[1])
        log_odds = network.compete(logits, selector=selector)
        carry = {**carry, "sensory": sensory}
        masks = log_odds.softmax(dim=1)[:, 1:]
        steps.append((log_odds, auxiliary.sensory, auxiliary.queries))
    return ClipLogits(*(torch.stack(kind, dim=1) for kind in zip(*steps, strict=True)))
