"""What a network remembers of a video: keys of frames, values of objects, within a budget no video exceeds.

Objects that start in the same frame are a group. Groups share frames: a key is stored and compared once,
however many groups read it. Frames lie in storage of fixed size and are written over in turn; nothing old is
copied, but where storage has to grow. In training, where gradients flow through what is remembered, the few
frames of a clip are concatenated instead.

Source: Cheng et al., STCN, NeurIPS 2021; Cheng and Schwing, XMem, ECCV 2022, section 3.2 (long-term memory);
Cheng et al., Cutie, CVPR 2024 (permanent frames). The official names of options are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vosssl.ops.memory_reading import (
    TopMatches,
    full_readout,
    memory_features,
    query_features,
    query_parts,
    top_readout,
    top_softmax,
)
from vosssl.propagation.long_term import Candidates, LongTerm, Usage, condense
from vosssl.propagation.memory_network import EncodedFrame

FIRST_SLOTS = 8  # frames that storage without a limit begins with


@dataclass
class Group:
    """Objects that started together, and the slots of storage that they read.

    Attributes:
        ids: of the objects.
        permanent: slots of frames that stay.
        rolling: slots of the others, the oldest first.
        temporary: slot of a frame that the next one replaces, or None.
        prototypes: how many places of long-term memory are in use.
        features: (B, places, F) of long-term memory.
        usage: of long-term places and slots, where there is long-term memory.
    """

    ids: list[int]
    permanent: list[int] = field(default_factory=list)
    rolling: list[int] = field(default_factory=list)
    temporary: int | None = None
    prototypes: int = 0
    features: Tensor | None = None
    usage: Usage | None = None

    @property
    def slots(self) -> list[int]:
        """Of all its frames."""
        return [*self.permanent, *self.rolling, *([] if self.temporary is None else [self.temporary])]


class MemoryBank:
    """The memory of one video (or of it and its mirror image), or of a batch of clips in training.

    Args:
        top_k: how many remembered places a query reads; None: all, weighted by a softmax (training).
        max_mem_frames: frames of a group, one permanent one among them; further permanent ones do not
            count. None: no limit. With long-term memory, its own number holds.
        max_mem_mb: of everything stored, in MB (2**20 bytes); the oldest frames that are not permanent go.
        long_term: condense old frames instead of dropping them.
        differentiable: for training: no limits, and gradients reach what was appended.
    """

    def __init__(
        self,
        *,
        top_k: int | None = 30,
        max_mem_frames: int | None = 5,
        max_mem_mb: float | None = None,
        long_term: LongTerm | None = None,
        differentiable: bool = False,
    ) -> None:
        if max_mem_frames is not None and max_mem_frames < 1:
            raise ValueError(f"max_mem_frames is {max_mem_frames}, expected 1 or more, or None for no limit")
        if differentiable and (long_term or max_mem_mb):
            raise ValueError("a differentiable memory keeps every frame; leave long_term and max_mem_mb out")
        self.top_k = top_k
        self.max_mem_frames = long_term.max_mem_frames if long_term else max_mem_frames
        self.max_mem_mb = max_mem_mb
        self.long_term = long_term
        self.differentiable = differentiable
        self._condensed = (
            long_term.max_num_tokens if long_term else 0
        )  # places in front of every object's values
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.groups: list[Group] = []
        self._places: dict[str, Tensor] = {}  # (B, slots * h*w, C) each, see `_parts`
        self._values: dict[int, Tensor] = {}  # by object: (B, long-term places + slots * h*w, V)
        self._map = (0, 0)
        self._slots = 0

    def __len__(self) -> int:
        return len(self._used())

    @property
    def ids(self) -> list[int]:
        """Objects that are remembered, group by group."""
        return [identity for group in self.groups for identity in group.ids]

    @property
    def megabytes(self) -> float:
        """Bytes of all storage, in MB (2**20)."""
        stored = [*self._places.values(), *self._values.values()]
        for group in self.groups:
            stored += [] if group.features is None else [group.features]
            stored += [] if group.usage is None else [group.usage.read, group.usage.age]
        return sum(tensor.numel() * tensor.element_size() for tensor in stored) / 2**20

    def append(
        self,
        frame: EncodedFrame,
        values: Tensor,
        ids: Sequence[int],
        *,
        permanent: bool = False,
        temporary: bool = False,
    ) -> None:
        """Remembers a frame. Objects that are new become a group; its first frame is permanent.

        Args:
            frame: its key, shrinkage and selection are stored.
            values: (B, N, V, h, w).
            ids: of the N objects; those already remembered must all be there.
            permanent: whether it stays for good.
            temporary: whether the next frame replaces it.

        Raises:
            ValueError: values that do not fit the key or the ids, another size than before, or a permanent
                frame too many for `max_mem_mb`. The memory is then as it was.
        """
        new = self._check_new(frame, values, ids)
        stays = permanent or bool(new)
        permanents = len({slot for group in self.groups for slot in group.permanent}) + stays
        room = self._room(frame, values, permanents, groups=len(self.groups) + bool(new))
        room -= temporary if self.max_mem_mb else 0
        self._map = (frame.key.shape[-2], frame.key.shape[-1])
        for group in self.groups:
            group.temporary = None
            del group.rolling[: int(max(0, len(group.rolling) + (not permanent and not temporary) - room))]
        self.groups += [Group(new)] if new else []
        if not stays and room < (not temporary):
            return
        slot = self._store(frame, values, ids, slots=permanents + room + temporary)
        for group in self.groups:
            if permanent or not group.permanent:
                group.permanent.append(slot)
            elif temporary:
                group.temporary = slot
            elif room > 0:
                group.rolling.append(slot)
                self._condense_oldest(group, room)

    def read(self, frame: EncodedFrame) -> list[Tensor]:
        """What the memory says at every place of a frame.

        Returns:
            (B, n, V, h, w) for each group, its objects in the order of `ids`.

        Raises:
            ValueError: nothing is remembered, or the frame has another size.
        """
        if not self.groups:
            raise ValueError("nothing is remembered yet; append a frame first")
        self._check_map(frame)
        selection = None if frame.selection is None else _tokens(frame.selection)
        queries = query_features(_tokens(frame.key), selection)  # (B, h*w, F)
        if self.top_k is None:
            return [self._read_all(queries, group) for group in self.groups]
        batch = [self._read_top(queries[sample], sample) for sample in range(len(queries))]
        for group in self.groups:
            if group.usage is not None:
                group.usage.grow_older()
        return [torch.stack(readouts) for readouts in zip(*batch, strict=True)]  # -> (B, n, V, h, w)

    def remove(self, ids: Sequence[int]) -> None:
        """Forgets objects, and frames that no other object reads.

        Raises:
            ValueError: an object that is not remembered.
        """
        unknown = sorted(set(ids) - set(self.ids))
        if unknown:
            raise ValueError(f"objects {unknown} are not remembered; there are {self.ids}")
        for group in self.groups:
            group.ids = [identity for identity in group.ids if identity not in ids]
        self._values = {identity: held for identity, held in self._values.items() if identity not in ids}
        self.groups = [group for group in self.groups if group.ids]
        if not self.groups:
            self.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as tensors and plain values; not a copy."""
        groups = [
            vars(group) | {"usage": None if group.usage is None else vars(group.usage)}
            for group in self.groups
        ]
        content = {"map": self._map, "slots": self._slots, "places": self._places, "values": self._values}
        return content | {"groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, and copies it."""
        self._map, self._slots = (state["map"][0], state["map"][1]), state["slots"]
        self._places = {name: tensor.clone() for name, tensor in state["places"].items()}
        self._values = {identity: tensor.clone() for identity, tensor in state["values"].items()}
        self.groups = []
        for entry in state["groups"]:
            group = Group(**{**entry, "usage": None})
            group.ids, group.permanent, group.rolling = (
                list(group.ids),
                list(group.permanent),
                list(group.rolling),
            )
            group.features = None if group.features is None else group.features.clone()
            if entry["usage"] is not None:
                group.usage = Usage(**{name: tensor.clone() for name, tensor in entry["usage"].items()})
            self.groups.append(group)

    def _check_new(self, frame: EncodedFrame, values: Tensor, ids: Sequence[int]) -> list[int]:
        """The ids that are new, if everything fits."""
        batch, _, height, width = frame.key.shape
        if values.ndim != 5 or (*values.shape[:2], *values.shape[3:]) != (batch, len(ids), height, width):
            raise ValueError(
                f"values are {tuple(values.shape)}, expected ({batch}, {len(ids)}, V, {height}, {width}): "
                f"objects {list(ids)}"
            )
        if self.groups:
            self._check_map(frame)
        if not ids or len(set(ids)) != len(ids) or set(self.ids) - set(ids):
            raise ValueError(
                f"values are of objects {list(ids)}, expected each of {self.ids} once, and new ones"
            )
        return [identity for identity in ids if identity not in self._values]

    def _check_map(self, frame: EncodedFrame) -> None:
        size = tuple(frame.key.shape[-2:])
        if size != self._map:
            raise ValueError(
                f"the frame's key is {size}, what is remembered {self._map}; clear the memory first"
            )

    def _room(self, frame: EncodedFrame, values: Tensor, permanents: int, *, groups: int) -> float:
        """How many frames there may be beside the permanent ones; infinity without a limit."""
        room = math.inf if self.max_mem_frames is None or self.differentiable else self.max_mem_frames - 1
        if self.max_mem_mb is None:
            return room
        batch, _, height, width = frame.key.shape
        widths = {name: part.shape[-1] for name, part in self._parts(frame).items()}
        place = values.shape[1] * values.shape[2] * values.element_size() + (
            8 * groups if self.long_term else 0
        )
        long_term = batch * self._condensed * (place + 4 * groups * widths["features"])
        slot = batch * height * width * (place + 4 * sum(widths.values()))
        slots = math.floor((self.max_mem_mb * 2**20 - long_term) / slot)
        if slots < permanents:
            raise ValueError(
                f"max_mem_mb={self.max_mem_mb} holds {max(slots, 0)} frames of {values.shape[1]} objects "
                f"({slot / 2**20:.1f} MB each, beside {long_term / 2**20:.1f} MB of long-term memory), "
                f"expected room for {permanents} that have to stay; raise it, or work on smaller frames"
            )
        return min(room, slots - permanents)

    def _parts(self, frame: EncodedFrame) -> dict[str, Tensor]:
        """(B, h*w, C) each: what is stored of a frame."""
        key, shrinkage = _tokens(frame.key), None if frame.shrinkage is None else _tokens(frame.shrinkage)
        parts = {"features": memory_features(key, shrinkage, selects=frame.selection is not None)}
        if self.long_term:
            if shrinkage is None or frame.selection is None:
                raise ValueError("long-term memory needs keys with shrinkage and selection, as Cutie's")
            parts |= {"key": key, "shrinkage": shrinkage, "selection": _tokens(frame.selection)}
        return parts

    def _used(self) -> list[int]:
        """Slots that any group reads."""
        return sorted({slot for group in self.groups for slot in group.slots})

    def _store(self, frame: EncodedFrame, values: Tensor, ids: Sequence[int], *, slots: float) -> int:
        """Writes a frame into a free slot and returns it; storage for `slots` frames is made at once."""
        parts = self._parts(frame)
        held = dict(zip(ids, values.flatten(3).transpose(2, 3).unbind(1), strict=True))  # (B, h*w, V) each
        if self.differentiable:
            self._places = {name: _joined(self._places.get(name), part) for name, part in parts.items()}
            self._values = {
                identity: _joined(self._values.get(identity), value) for identity, value in held.items()
            }
            return len(self)
        if self._slots > slots and self.max_mem_mb:
            self._shrink(int(slots))
        used = self._used()
        slot = next(slot for slot in range(len(used) + 1) if slot not in used)
        if slot >= self._slots:
            self._slots = (
                max(FIRST_SLOTS, 2 * self._slots) if slots == math.inf else max(int(slots), slot + 1)
            )
        for name, part in parts.items():
            self._places[name] = self._written(self._places.get(name), part, slot, before=0)
        for identity, value in held.items():
            self._values[identity] = self._written(
                self._values.get(identity), value, slot, before=self._condensed
            )
        for group in self.groups if self.long_term else ():
            self._start_counting(group, slot)
        return slot

    def _written(self, storage: Tensor | None, part: Tensor, slot: int, *, before: int) -> Tensor:
        """Storage (B, before + slots * h*w, C), made or enlarged where needed, with a frame in its slot."""
        batch, area, channels = part.shape
        size = before + self._slots * area
        if storage is None or storage.shape[1] < size:
            larger = part.new_empty(batch, size, channels)
            if storage is not None:
                larger[:, : storage.shape[1]] = storage
            storage = larger
        storage[:, before + slot * area : before + (slot + 1) * area] = part
        return storage

    def _shrink(self, slots: int) -> None:
        """Less storage, when objects or permanent frames have come and the budget is for all of them."""
        used, area = self._used(), self._map[0] * self._map[1]
        places = torch.tensor([slot * area + place for slot in used for place in range(area)])
        size = slots * area

        def shorter(storage: Tensor, before: int) -> Tensor:
            made = storage.new_zeros(len(storage), before + size, *storage.shape[2:])
            made[:, :before] = storage[:, :before]
            made[:, before : before + len(places)] = storage[:, before + places.to(storage.device)]
            return made

        self._places = {name: shorter(storage, 0) for name, storage in self._places.items()}
        self._values = {name: shorter(storage, self._condensed) for name, storage in self._values.items()}
        for group in self.groups:
            group.permanent = [used.index(slot) for slot in group.permanent]
            group.rolling = [used.index(slot) for slot in group.rolling]
            if group.usage is not None:
                group.usage.read = shorter(group.usage.read, self._condensed)
                group.usage.age = shorter(group.usage.age, self._condensed)
        self._slots = slots

    def _start_counting(self, group: Group, slot: int) -> None:
        """Nobody has read the frame in this slot yet."""
        features = self._places["features"]
        places = self._condensed + features.shape[1]
        if group.features is None:
            group.features = features.new_empty(len(features), self._condensed, features.shape[2])
        if group.usage is None or group.usage.read.shape[1] < places:
            group.usage = Usage.of(len(features), places, features, before=group.usage)
        group.usage.start(self._slot_places(slot))

    def _slot_places(self, slot: int) -> slice:
        """Of a frame, among the values of an object."""
        area = self._map[0] * self._map[1]
        return slice(self._condensed + slot * area, self._condensed + (slot + 1) * area)

    def _condense_oldest(self, group: Group, room: float) -> None:
        """Turns old frames of a full group into prototypes."""
        if self.long_term is None or len(group.rolling) < room:
            return
        keep = int(min(self.long_term.min_mem_frames, room)) - 1
        old = group.rolling[: len(group.rolling) - keep]
        held = {
            identity: self._gathered(self._values[identity], old, self._condensed) for identity in group.ids
        }
        raw = {name: self._gathered(self._places[name], old) for name in ("key", "shrinkage", "selection")}
        assert group.usage is not None and group.features is not None
        rate = self._gathered(group.usage.rate(), old, self._condensed)
        features, values = condense(Candidates(**raw, values=held), rate, self.long_term.num_prototypes)
        if group.prototypes >= self.long_term.max_num_tokens - self.long_term.num_prototypes:
            self._drop_unread(group)
        new = slice(group.prototypes, group.prototypes + features.shape[1])
        group.features[:, new] = features
        for identity, value in values.items():
            self._values[identity][:, new] = value
        group.usage.start(new)
        group.prototypes = new.stop
        del group.rolling[: len(old)]

    def _drop_unread(self, group: Group) -> None:
        """Keeps the prototypes that are read most."""
        assert self.long_term is not None and group.usage is not None and group.features is not None
        limit = self.long_term.max_num_tokens - self.long_term.num_prototypes - self.long_term.buffer_tokens
        best = group.usage.rate()[:, : group.prototypes].topk(limit, dim=1).indices
        stores = [group.features, group.usage.read, group.usage.age]
        for store in stores + [self._values[identity] for identity in group.ids]:
            index = best if store.ndim == 2 else best[..., None].expand(-1, -1, store.shape[-1])
            store[:, :limit] = store.gather(1, index)
        group.prototypes = limit

    def _gathered(self, storage: Tensor, slots: Sequence[int], before: int = 0) -> Tensor:
        """(B, n * h*w, ...) of some slots; a view where they lie in a row."""
        area = self._map[0] * self._map[1]
        first = slots[0]
        if list(slots) == list(range(first, first + len(slots))):
            return storage[:, before + first * area : before + (first + len(slots)) * area]
        framed = storage[:, before:].unflatten(1, (-1, area))  # (B, slots, h*w, ...)
        return framed[:, list(slots)].flatten(1, 2)

    def _read_all(self, queries: Tensor, group: Group) -> Tensor:
        """Softmax over everything that a group remembers: (B, n, V, h, w)."""
        memory = self._gathered(self._places["features"], group.slots)
        values = [
            self._gathered(self._values[identity], group.slots, self._condensed) for identity in group.ids
        ]
        if group.features is not None:
            memory = torch.cat([group.features[:, : group.prototypes], memory], dim=1)
            old = [self._values[identity][:, : group.prototypes] for identity in group.ids]
            values = [torch.cat(pair, dim=1) for pair in zip(old, values, strict=True)]
        readout = full_readout(queries, memory, torch.cat(values, dim=2))  # (B, h*w, n*V)
        return readout.transpose(1, 2).unflatten(2, self._map).unflatten(1, (len(values), -1))

    def _read_top(self, queries: Tensor, sample: int) -> list[Tensor]:
        """The best matches of one video of the batch: (n, V, h, w) for each group."""
        used = self._used()
        memory = self._gathered(self._places["features"][sample : sample + 1], used)[0]  # (U * h*w, F)
        matches: list[list[TopMatches]] = [[] for _ in self.groups]
        for part in query_parts(len(queries), len(memory) + self._condensed, queries.device):
            scores = queries[part] @ memory.T  # (q, F) @ (F, U * h*w)
            for found, group in zip(matches, self.groups, strict=True):
                found.append(self._group_matches(group, scores, queries[part], used, sample))
        readouts = []
        for found, group in zip(matches, self.groups, strict=True):
            whole = TopMatches(*(torch.cat(parts) for parts in zip(*found, strict=True)))
            if group.usage is not None:
                group.usage.count(sample, whole)
            values = [top_readout(whole, self._values[identity][sample]) for identity in group.ids]
            readouts.append(torch.stack([value.T.unflatten(1, self._map) for value in values]))
        return readouts

    def _group_matches(
        self, group: Group, scores: Tensor, queries: Tensor, used: Sequence[int], sample: int
    ) -> TopMatches:
        """What some queries take from a group's places, numbered as the values of its objects are."""
        area = self._map[0] * self._map[1]
        slots = sorted(group.slots)
        if slots != list(used):
            columns = [used.index(slot) for slot in slots]
            scores = scores.unflatten(1, (-1, area))[:, columns].flatten(1)
        if group.prototypes and group.features is not None:
            scores = torch.cat([queries @ group.features[sample, : group.prototypes].T, scores], dim=1)
        matches = top_softmax(scores, self.top_k)
        place = matches.places - group.prototypes
        slot = torch.tensor(slots, device=place.device)[place.div(area, rounding_mode="floor").clamp(min=0)]
        in_slots = self._condensed + slot * area + place % area
        return TopMatches(matches.weights, torch.where(place < 0, matches.places, in_slots))


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)


def _joined(storage: Tensor | None, part: Tensor) -> Tensor:
    return part if storage is None else torch.cat([storage, part], dim=1)
