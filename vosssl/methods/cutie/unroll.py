"""Cutie over whole clips, differentiable, for training: made of the same steps that it follows video with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vosssl.ops.images import as_float
from vosssl.ops.memory_reading import full_readout, memory_features, query_features
from vosssl.propagation.memory_network import EncodedFrame

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


class _Memory:
    """The pixel memory of a batch of clips, of which each clip may read other frames.

    Args:
        encoded: of (B, T) frames, flattened.
        clips: B and T.
    """

    def __init__(self, encoded: EncodedFrame, clips: Sequence[int]) -> None:
        assert encoded.shrinkage is not None and encoded.selection is not None
        self.size = encoded.key.shape[-2:]
        key = _tokens(encoded.key)
        remembered = memory_features(key, _tokens(encoded.shrinkage), selects=True)
        self.places = remembered.unflatten(0, clips)  # (B, T, h*w, F)
        self.queries = query_features(key, _tokens(encoded.selection)).unflatten(0, clips)
        self.values: list[Tensor] = []  # of each memorised frame (B, h*w, N * C)

    def append(self, values: Tensor) -> None:
        """Values (B, N, C, h, w) of the next frame."""
        self.objects = values.shape[1]
        self.values.append(_tokens(values.flatten(1, 2)))

    def read(self, time: int, references: Tensor) -> Tensor:
        """What a frame's query finds in the frames (B, R) it may read: (B, N, C, h, w)."""
        rows = torch.arange(len(references), device=references.device)[:, None]
        places = self.places[rows, references].flatten(1, 2)  # (B, R, h*w, F) -> (B, R*h*w, F)
        values = torch.stack(self.values, dim=1)[rows, references].flatten(1, 2)
        with torch.autocast(values.device.type, enabled=False):
            found = full_readout(self.queries[:, time], places, values.float())  # (B, h*w, N*C)
        return found.transpose(1, 2).unflatten(1, (self.objects, -1)).unflatten(-1, self.size)


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
    memory = _Memory(encoded, clips)
    selector = present.to(images.dtype)
    masks, steps = first_masks, []
    carry = network.fresh_carry(_at(encoded, clips, 0), first_masks.shape[1])
    for time in range(1, frames.shape[1]):
        deep = time == 1 or deep_updates[time - 2]
        before = _at(encoded, clips, time - 1)
        values, carry = network.memorise(images[:, time - 1], before, masks, carry, deep_update=deep)
        memory.append(values)
        frame, readout = _at(encoded, clips, time), memory.read(time, references[time - 1])
        fused = network.fuse(frame, readout, carry["sensory"], masks)
        features, levels = network.read_objects(fused, carry["summaries"], selector=selector)
        auxiliary = network.auxiliary_logits(frame, carry["sensory"], features, levels, selector=selector)
        logits, sensory = network.decode(frame, features, carry["sensory"], update=time + 1 < frames.shape[1])
        log_odds = network.compete(logits, selector=selector)
        carry = {**carry, "sensory": sensory}
        masks = log_odds.softmax(dim=1)[:, 1:]
        steps.append((log_odds, auxiliary.sensory, auxiliary.queries))
    return ClipLogits(*(torch.stack(kind, dim=1) for kind in zip(*steps, strict=True)))


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)


def _at(encoded: EncodedFrame, clips: Sequence[int], time: int) -> EncodedFrame:
    """One time of the encoded frames of clips, which are (B, T) = `clips` flattened."""

    def pick(maps: Tensor | None) -> Tensor | None:
        return None if maps is None else maps.unflatten(0, clips)[:, time]

    key, *features = (maps.unflatten(0, clips)[:, time] for maps in (encoded.key, *encoded.features))
    return EncodedFrame(key, pick(encoded.shrinkage), pick(encoded.selection), tuple(features))
