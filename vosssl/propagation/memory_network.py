"""What a network has to offer to be run with a memory of earlier frames: STCN and Cutie, in training and use.

A video is read frame by frame: encode the frame, read the bank with its key, predict masks from what was
read, and now and then encode the masks and append them to the bank (`memory_bank.MemoryBank`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

Carry = dict[str, Tensor]  # what objects take along from frame to frame: (B, N, ...) each, a row an object


class EncodedFrame(NamedTuple):
    """One frame of a batch of videos, encoded without regard to objects.

    Attributes:
        key: (B, CK, h, w).
        shrinkage: (B, 1, h, w), how sharp a remembered place is; None: as sharp as any other (STCN).
        selection: (B, CK, h, w), which channels a query looks at; None: all alike (STCN).
        features: what else the network wants to see again, batch first.
    """

    key: Tensor
    shrinkage: Tensor | None
    selection: Tensor | None
    features: tuple[Tensor, ...]


def frame_at(encoded: EncodedFrame, clips: Sequence[int], time: int) -> EncodedFrame:
    """One time of clips whose frames were encoded together.

    Args:
        encoded: of (B, T) frames, flattened.
        clips: B and T.
        time: which of the T.
    """

    def pick(maps: Tensor) -> Tensor:
        return maps.unflatten(0, clips)[:, time]

    shrinkage = None if encoded.shrinkage is None else pick(encoded.shrinkage)
    selection = None if encoded.selection is None else pick(encoded.selection)
    return EncodedFrame(pick(encoded.key), shrinkage, selection, tuple(map(pick, encoded.features)))


class MemoryNetwork(Protocol):
    """A network with a memory. N objects; h, w are H, W divided by `stride`."""

    stride: int

    def encode_frame(self, images: Tensor) -> EncodedFrame:
        """Frames (B, 3, H, W) in [0, 1] RGB, sides multiples of `stride`."""

    def fresh_carry(self, frame: EncodedFrame, count: int) -> Carry:
        """What `count` objects carry that are seen for the first time; empty where objects carry nothing."""

    def predict(
        self,
        frame: EncodedFrame,
        readouts: Sequence[Tensor],
        carry: Carry,
        last_masks: Tensor,
        *,
        update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """Masks of one frame from what was read.

        Args:
            frame: encoded.
            readouts: (B, n, CV, h, w) each: objects that compete with each other; together the N objects.
            carry: of the N objects.
            last_masks: (B, N, H, W) in [0, 1] of the frame before.
            update: whether the carry changes.
            chunk_size: at most so many objects at once where that changes nothing but memory; -1: all.

        Returns:
            (B, N + 1, H, W) probabilities, background first, summing to 1; and the carry.
        """

    def memorise(
        self,
        images: Tensor,
        frame: EncodedFrame,
        masks: Tensor,
        carry: Carry,
        *,
        deep_update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """Values for the bank.

        Args:
            images: as encoded.
            frame: encoded.
            masks: (B, N, H, W) in [0, 1].
            carry: of the N objects.
            deep_update: whether the values change what objects carry.
            chunk_size: as in `predict`.

        Returns:
            (B, N, CV, h, w) values, and the carry.
        """
