"""Runs a network with a memory (STCN, Cutie) on a video: when to remember, and what a prompt changes.

Prompts may come at any frame and name any objects: new ones, all, or some of those that are followed; what
they do not name is segmented and kept. Memory has a budget, and the whole state can be saved and restored.

Source: Cheng et al., STCN, NeurIPS 2021; Cheng et al., Cutie, CVPR 2024: their inference programs. Where
these fail, as listed in `MemorySegmenter`, this does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vosssl.ops.images import as_float
from vosssl.ops.masks import soft_aggregate
from vosssl.ops.resize import Size, resize_masks
from vosssl.propagation.long_term import LongTerm
from vosssl.propagation.memory_bank import MemoryBank
from vosssl.propagation.memory_network import Carry, EncodedFrame, MemoryNetwork
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MemorySegmenter(VideoSegmenter):
    """Follows objects with a memory of earlier frames.

    Equal to the official programs where these work. In addition: a prompt may name some of the known objects,
    in any order, or be soft masks at any time; images may have fewer places than `top_k`; a removed object
    leaves nothing behind; `chunk_size` changes no result.

    Args:
        network: STCN, Cutie or alike.
        mem_every: frames between remembered ones.
        top_k: remembered places that each place of a frame reads.
        max_mem_frames: remembered frames, the permanent first one among them; None: no limit.
        max_mem_mb: of all remembered frames together, in MB (2**20 bytes); None: no limit.
        long_term: condense old frames instead of dropping them.
        stagger_updates: how many of the frames between remembered ones change what objects carry along.
        include_last: the last frame is read too, until the next one comes (STCN's option).
        permanent_prompts: frames with a prompt stay in memory for good, as a person's corrections should.
        flip_aug: segment the mirrored frame too, and average.
        chunk_size: at most so many objects at once, where that saves memory; -1: what suits the device: all
            on a GPU, one on a CPU, whose caches hold no more (8 objects are twice as fast so).
        official_chunks: objects of one chunk compete only among themselves, as in Cutie's program, where
            chunk_size changes results.
        max_internal_size: shorter side of the frames that the network sees, at most; -1: no limit.
        scale: the size of the frames that the network sees, as a multiple of what it would be.
        pad_colour: (R, G, B) in [0, 1] of the padding to a multiple of the network's stride.
        precision: of the network; memory is read in fp32.
        device: where it runs; None: where the network is.

    Attributes:
        memory: what is remembered.
        memorising: False: from now on nothing is remembered unless a prompt is given, and what objects carry
            stays as it is (the official `end`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mem_every: int = 5,
        top_k: int | None = 30,
        max_mem_frames: int | None = 5,
        max_mem_mb: float | None = None,
        long_term: LongTerm | None = None,
        stagger_updates: int = 5,
        include_last: bool = False,
        permanent_prompts: bool = False,
        flip_aug: bool = False,
        chunk_size: int = -1,
        official_chunks: bool = False,
        max_internal_size: int = -1,
        scale: float = 1.0,
        pad_colour: tuple[float, float, float] = (0.0, 0.0, 0.0),
        precision: Precision = "fp32",
        device: torch.device | str | None = None,
    ) -> None:
        weight = next(network.parameters())
        self.network: MemoryNetwork = network.eval()  # type: ignore[assignment]
        super().__init__(
            size=max_internal_size if max_internal_size > 0 else None,
            stride=self.network.stride,
            pad_colour=pad_colour,
            device=weight.device if device is None else device,
        )
        if mem_every < 1 or stagger_updates < 1:
            raise ValueError(f"mem_every={mem_every}, stagger_updates={stagger_updates}: expected 1 or more")
        if precision not in _DTYPES:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(_DTYPES)}")
        self.scale = scale
        self.mem_every = mem_every
        self.include_last = include_last
        self.permanent_prompts = permanent_prompts
        self.flip_aug = flip_aug
        self.chunk_size = chunk_size
        self.official_chunks = official_chunks
        self._at_once = 1 if chunk_size < 1 and self.device.type == "cpu" else chunk_size
        self.dtype = _DTYPES[precision]
        updates = torch.linspace(1, mem_every, min(stagger_updates, mem_every)).round()
        self._updates = {int(update) for update in updates}
        self.memory = MemoryBank(
            top_k=top_k, max_mem_frames=max_mem_frames, max_mem_mb=max_mem_mb, long_term=long_term
        )
        self.forget()

    def forget(self) -> None:
        self.memory.clear()
        self.memorising = True
        self._keep_next = False
        self._last_memory = 0
        self._carry: Carry = {}
        self._masks: Tensor | None = None  # (B, N, h, w) of the last frame

    def keep_next(self) -> None:
        """Makes the next frame a permanent part of the memory, whatever it shows."""
        self._keep_next = True

    def remove_objects(self, ids: Sequence[int]) -> None:
        """Stops following objects and forgets all about them; their ids may be given anew.

        Raises:
            ValueError: an id that is not followed.
        """
        kept = self._rows_without(ids)
        self.memory.remove(list(ids))
        self._carry = {name: rows[:, kept] for name, rows in self._carry.items()}
        self._masks = None if self._masks is None else self._masks[:, kept]
        self._keep_rows(kept)

    def state_dict(self) -> dict[str, Any]:
        """All that the segmenter knows of the video, as tensors and plain values, for `torch.save`."""
        names = (
            "object_ids",
            "frame_index",
            "memorising",
            "_rows",
            "_frame_size",
            "_last_memory",
            "_carry",
            "_masks",
        )
        return {name: getattr(self, name) for name in names} | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; the network and the options have to be the same."""
        self.reset()
        self.memory.load_state_dict(state["memory"])
        for name in set(state) - {"memory"}:
            setattr(self, name, state[name])

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        images = torch.stack([frame, frame.flip(-1)]) if self.flip_aug else frame[None]  # (B, 3, h, w)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            encoded = self.network.encode_frame(images)
            rows = None
            if self.memory.groups and not self._says_all(prompted):
                rows = self._predict(encoded)
            if prompted is not None:
                rows = merged(None if rows is None else rows[1:], prompted, self.object_ids)
            if rows is None:  # objects are named, but nothing is known of them
                raise RuntimeError("objects are followed but nothing is remembered; call reset()")
            masks = rows[None, 1:]
            self._masks = torch.cat([masks, masks.flip(-1)]) if self.flip_aug else masks
            self._memorise(images, encoded, prompted is not None)
        return rows

    def _says_all(self, prompted: Prompted | None) -> bool:
        """Whether a prompt leaves nothing to segment: it names the known objects, and no other."""
        if prompted is None or prompted.unknown is not None:
            return False
        return set(prompted.ids) == set(self.memory.ids)

    def _predict(self, encoded: EncodedFrame) -> Tensor:
        """(N + 1, h, w) probabilities of the objects that are remembered."""
        assert self._masks is not None
        readouts = self.memory.read(encoded)
        if self.official_chunks and self.chunk_size > 0:
            readouts = [chunk for readout in readouts for chunk in readout.split(self.chunk_size, dim=1)]
        update = self.memorising and self.frame_index - self._last_memory in self._updates
        rows, carry = self.network.predict(
            encoded, readouts, self._carry, self._masks, update=update, chunk_size=self._at_once
        )
        self._carry = carry
        rows = rows.float()
        return (rows[0] + rows[1].flip(-1)) / 2 if self.flip_aug else rows[0]

    def _memorise(self, images: Tensor, encoded: EncodedFrame, prompted: bool) -> None:
        """Appends the frame to the memory, if it is its turn."""
        due = self.memorising and self.frame_index - self._last_memory >= self.mem_every
        temporary = not (due or prompted or self._keep_next)
        if temporary and not (self.include_last and self.memorising):
            return
        assert self._masks is not None
        count = len(self.object_ids) - len(self.memory.ids)
        carry = self._carry
        if count:
            fresh = self.network.fresh_carry(encoded, count)
            carry = {
                name: torch.cat([carry[name], rows], 1) if name in carry else rows
                for name, rows in fresh.items()
            }
        values, carry = self.network.memorise(images, encoded, self._masks, carry, chunk_size=self._at_once)
        permanent = self._keep_next or (prompted and self.permanent_prompts)
        self.memory.append(encoded, values, self.object_ids, permanent=permanent, temporary=temporary)
        self._carry = carry
        self._keep_next = False
        if not temporary:
            self._last_memory = self.frame_index

    def _working_size(self, size: Size) -> Size:
        shorter = min(size)
        limited = min(shorter, self.size) if isinstance(self.size, int) else shorter
        if limited == shorter and self.scale == 1:
            return size
        height, width = (int(side / shorter * limited * self.scale) for side in size)
        return height, width

    def _resized(self, frame: Tensor, working: Size) -> Tensor:
        return resize_masks(as_float(frame), working)  # without antialiasing, as the official programs


def merged(known: Tensor | None, prompted: Prompted, ids: Sequence[int]) -> Tensor:
    """What a frame shows when some of its objects are given: the others keep what nobody claims, and where
    the prompt says nothing (void), all do.

    Args:
        known: (n, h, w) probabilities of the first n objects as segmented, or None.
        prompted: masks of some objects.
        ids: of all N objects.

    Returns:
        (N + 1, h, w) probabilities, background first.
    """
    assert prompted.masks is not None
    given = prompted.masks.float()
    rows = given.new_zeros(len(ids), *given.shape[1:])
    if known is not None:
        rows[: len(known)] = known * (given.amax(0) <= 0.5)
    for identity, mask in zip(prompted.ids, given, strict=True):
        row = rows[ids.index(identity)]
        row.copy_(mask if prompted.unknown is None else torch.where(prompted.unknown, row, mask))
    return soft_aggregate(rows)
