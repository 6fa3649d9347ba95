"""Storage of a memory's frames: slots of fixed size that are written over in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vosssl.ops.resize import Size


class FrameStorage:
    """What is kept of frames (by name) and of objects in them (by id), a slot per frame.

    Appending copies nothing that is stored, but where storage grows or shrinks; where gradients have to flow,
    frames are concatenated.

    Args:
        reserved: places in front of every object's values, for long-term memory.
        differentiable: concatenate.

    Attributes:
        places: (B, slots * h*w, C) by name.
        values: (B, reserved + slots * h*w, V) by object.
        slots: how many frames there is room for.
        map_size: (h, w).
    """

    def __init__(self, *, reserved: int = 0, differentiable: bool = False) -> None:
        self.reserved = reserved
        self.differentiable = differentiable
        self.clear()

    def clear(self) -> None:
        """Lets go of everything."""
        self.places: dict[str, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.slots = 0
        self.map_size: Size = (0, 0)

    @property
    def area(self) -> int:
        """Places of a frame."""
        return self.map_size[0] * self.map_size[1]

    @property
    def tensors(self) -> list[Tensor]:
        """All that takes memory."""
        return [*self.places.values(), *self.values.values()]

    def write(self, slot: int, parts: Mapping[str, Tensor], held: Mapping[int, Tensor]) -> None:
        """Puts a frame into a slot that there is room for.

        Args:
            slot: where.
            parts: (B, h*w, C) by name.
            held: (B, h*w, V) by object; those that are new get storage.
        """
        for name, part in parts.items():
            self.places[name] = self._written(self.places.get(name), part, slot, before=0)
        for identity, value in held.items():
            self.values[identity] = self._written(
                self.values.get(identity), value, slot, before=self.reserved
            )

    def _written(self, storage: Tensor | None, part: Tensor, slot: int, *, before: int) -> Tensor:
        if self.differentiable:
            return part if storage is None else torch.cat([storage, part], dim=1)
        batch, area, channels = part.shape
        size = before + self.slots * area
        if storage is None or storage.shape[1] < size:
            larger = part.new_empty(batch, size, channels)
            if storage is not None:
                larger[:, : storage.shape[1]] = storage
            storage = larger
        storage[:, before + slot * area : before + (slot + 1) * area] = part
        return storage

    def shrink(self, used: Sequence[int], slots: int) -> None:
        """Keeps the used slots, numbered anew in their order, and room for some more.

        Args:
            used: at most `slots` of them.
            slots: how many there are afterwards.
        """
        self.places = {
            name: self.shortened(kept, used, slots, before=0) for name, kept in self.places.items()
        }
        self.values = {identity: self.shortened(kept, used, slots) for identity, kept in self.values.items()}
        self.slots = slots

    def shortened(
        self, storage: Tensor, used: Sequence[int], slots: int, *, before: int | None = None
    ) -> Tensor:
        """Storage (B, before + ..., ...) of only the used slots, with room for `slots`."""
        before = self.reserved if before is None else before
        made = storage.new_zeros(len(storage), before + slots * self.area, *storage.shape[2:])
        made[:, :before] = storage[:, :before]
        for new, old in enumerate(used):
            made[:, self.span(new, before)] = storage[:, self.span(old, before)]
        return made

    def span(self, slot: int, before: int | None = None) -> slice:
        """The places of a slot, behind those that are reserved."""
        first = (self.reserved if before is None else before) + slot * self.area
        return slice(first, first + self.area)

    def gathered(self, storage: Tensor, slots: Sequence[int], *, before: int | None = None) -> Tensor:
        """(B, n * h*w, ...) of some slots; a view where they lie in a row."""
        first, before = slots[0], self.reserved if before is None else before
        if list(slots) == list(range(first, first + len(slots))):
            return storage[:, self.span(first, before).start : self.span(slots[-1], before).stop]
        framed = storage[:, before:].unflatten(1, (-1, self.area))  # (B, slots, h*w, ...)
        return framed[:, list(slots)].flatten(1, 2)

    def place(self, name: str, slots: Sequence[int]) -> Tensor:
        """(B, n * h*w, C) of some slots."""
        return self.gathered(self.places[name], slots, before=0)

    def value(self, identity: int, slots: Sequence[int]) -> Tensor:
        """(B, n * h*w, V) of an object in some slots."""
        return self.gathered(self.values[identity], slots)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain values; not a copy."""
        return {"places": self.places, "values": self.values, "slots": self.slots, "map_size": self.map_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copies what `state_dict` gave."""
        self.places = {name: tensor.clone() for name, tensor in state["places"].items()}
        self.values = {identity: tensor.clone() for identity, tensor in state["values"].items()}
        self.slots, self.map_size = state["slots"], (state["map_size"][0], state["map_size"][1])
