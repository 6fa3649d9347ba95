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
from vosssl.propagation.frame_storage import FrameStorage
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
        self.storage = FrameStorage(
            reserved=long_term.max_num_tokens if long_term else 0, differentiable=differentiable
        )
        self.groups: list[Group] = []

    def clear(self) -> None:
        """Forgets everything."""
        self.groups = []
        self.storage.clear()

    def __len__(self) -> int:
        return len(self._used())

    @property
    def ids(self) -> list[int]:
        """Objects that are remembered, group by group."""
        return [identity for group in self.groups for identity in group.ids]

    @property
    def megabytes(self) -> float:
        """Bytes of all storage, in MB (2**20)."""
        stored = self.storage.tensors
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
        self.storage.map_size = (frame.key.shape[-2], frame.key.shape[-1])
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

    def read(self, frame: EncodedFrame, *, only: Tensor | None = None) -> list[Tensor]:
        """What the memory says at every place of a frame.

        Args:
            frame: its key and selection ask.
            only: (B, R) int64, which frames each clip reads, by the order in which they were appended; of a
                differentiable memory. None: all.

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
            with torch.autocast(queries.device.type, enabled=False):
                return [self._read_all(queries, group, only) for group in self.groups]
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
        for identity in ids:
            del self.storage.values[identity]
        self.groups = [group for group in self.groups if group.ids]
        if not self.groups:
            self.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as tensors and plain values; not a copy."""
        groups = [
            vars(group) | {"usage": None if group.usage is None else vars(group.usage)}
            for group in self.groups
        ]
        return {"storage": self.storage.state_dict(), "groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, and copies it."""
        self.storage.load_state_dict(state["storage"])
        self.groups = []
        for entry in state["groups"]:
            copied: dict[str, Any] = {name: list(entry[name]) for name in ("ids", "permanent", "rolling")}
            copied["features"] = None if entry["features"] is None else entry["features"].clone()
            counts = entry["usage"]
            copied["usage"] = None if counts is None else Usage(counts["read"].clone(), counts["age"].clone())
            self.groups.append(Group(**{**entry, **copied}))

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
        return [identity for identity in ids if identity not in self.storage.values]

    def _check_map(self, frame: EncodedFrame) -> None:
        size = tuple(frame.key.shape[-2:])
        if size != self.storage.map_size:
            raise ValueError(
                f"the frame's key is {size}, what is remembered {self.storage.map_size}; clear the memory "
                "first"
            )

    def _room(self, frame: EncodedFrame, values: Tensor, permanents: int, *, groups: int) -> float:
        """How many frames there may be beside the permanent ones; infinity without a limit."""
        room = (
            math.inf
            if self.max_mem_frames is None or self.storage.differentiable
            else self.max_mem_frames - 1
        )
        if self.max_mem_mb is None:
            return room
        batch, _, height, width = frame.key.shape
        widths = {name: part.shape[-1] for name, part in self._parts(frame).items()}
        counted = 8 * groups if self.long_term else 0  # usage and age
        place = values.shape[1] * values.shape[2] * values.element_size() + counted
        long_term = batch * self.storage.reserved * (place + 4 * groups * widths["features"])
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
        """Writes a frame into a free slot and returns it; room for `slots` frames is made at once."""
        held = dict(zip(ids, values.flatten(3).transpose(2, 3).unbind(1), strict=True))  # (B, h*w, V) each
        storage = self.storage
        if storage.slots > slots and self.max_mem_mb:
            self._shrink(int(slots))
        used = self._used()
        slot = next(slot for slot in range(len(used) + 1) if slot not in used)
        if slot >= storage.slots:
            unlimited = max(FIRST_SLOTS, 2 * storage.slots)
            storage.slots = unlimited if slots == math.inf else max(int(slots), slot + 1)
        storage.write(slot, self._parts(frame), held)
        for group in self.groups if self.long_term else ():
            self._start_counting(group, slot)
        return slot

    def _shrink(self, slots: int) -> None:
        """Less storage: objects or permanent frames have come, and the budget is for all of them."""
        used = self._used()
        for group in self.groups:
            if group.usage is not None:
                group.usage.read = self.storage.shortened(group.usage.read, used, slots)
                group.usage.age = self.storage.shortened(group.usage.age, used, slots)
        self.storage.shrink(used, slots)
        for group in self.groups:
            group.permanent = [used.index(slot) for slot in group.permanent]
            group.rolling = [used.index(slot) for slot in group.rolling]

    def _start_counting(self, group: Group, slot: int) -> None:
        """Nobody has read the frame in this slot yet."""
        features = self.storage.places["features"]
        places = self.storage.reserved + features.shape[1]
        if group.features is None:
            group.features = features.new_empty(len(features), self.storage.reserved, features.shape[2])
        if group.usage is None or group.usage.read.shape[1] < places:
            group.usage = Usage.of(len(features), places, features, before=group.usage)
        group.usage.start(self.storage.span(slot))

    def _condense_oldest(self, group: Group, room: float) -> None:
        """Turns old frames of a full group into prototypes."""
        if self.long_term is None or len(group.rolling) < room:
            return
        keep = int(min(self.long_term.min_mem_frames, room)) - 1
        old = group.rolling[: len(group.rolling) - keep]
        held = {identity: self.storage.value(identity, old) for identity in group.ids}
        raw = {name: self.storage.place(name, old) for name in ("key", "shrinkage", "selection")}
        assert group.usage is not None and group.features is not None
        rate = self.storage.gathered(group.usage.rate(), old)
        features, values = condense(Candidates(**raw, values=held), rate, self.long_term.num_prototypes)
        if group.prototypes >= self.long_term.max_num_tokens - self.long_term.num_prototypes:
            self._drop_unread(group)
        new = slice(group.prototypes, group.prototypes + features.shape[1])
        group.features[:, new] = features
        for identity, value in values.items():
            self.storage.values[identity][:, new] = value
        group.usage.start(new)
        group.prototypes = new.stop
        del group.rolling[: len(old)]

    def _drop_unread(self, group: Group) -> None:
        """Keeps the prototypes that are read most."""
        assert self.long_term is not None and group.usage is not None and group.features is not None
        limit = self.long_term.max_num_tokens - self.long_term.num_prototypes - self.long_term.buffer_tokens
        best = group.usage.rate()[:, : group.prototypes].topk(limit, dim=1).indices
        stores = [group.features, group.usage.read, group.usage.age]
        for store in stores + [self.storage.values[identity] for identity in group.ids]:
            index = best if store.ndim == 2 else best[..., None].expand(-1, -1, store.shape[-1])
            store[:, :limit] = store.gather(1, index)
        group.prototypes = limit

    def _read_all(self, queries: Tensor, group: Group, only: Tensor | None) -> Tensor:
        """Softmax over everything that a group remembers, or over some frames: (B, n, V, h, w)."""
        memory = self.storage.place("features", group.slots)
        values = [self.storage.value(identity, group.slots) for identity in group.ids]
        if group.features is not None:
            memory = torch.cat([group.features[:, : group.prototypes], memory], dim=1)
            old = [self.storage.values[identity][:, : group.prototypes] for identity in group.ids]
            values = [torch.cat(pair, dim=1) for pair in zip(old, values, strict=True)]
        held = torch.cat(values, dim=2).float()  # (B, M, n*V)
        if only is not None:
            rows = torch.arange(len(only), device=only.device)[:, None]
            memory, held = (
                places.unflatten(1, (-1, self.storage.area))[rows, only].flatten(1, 2)  # (B, R, h*w, ...)
                for places in (memory, held)
            )
        readout = full_readout(queries, memory, held)  # (B, h*w, n*V)
        return readout.transpose(1, 2).unflatten(2, self.storage.map_size).unflatten(1, (len(values), -1))

    def _read_top(self, queries: Tensor, sample: int) -> list[Tensor]:
        """The best matches of one video of the batch: (n, V, h, w) for each group."""
        used = self._used()
        memory = self.storage.place("features", used)[sample]  # (U * h*w, F)
        matches: list[list[TopMatches]] = [[] for _ in self.groups]
        for part in query_parts(len(queries), len(memory) + self.storage.reserved, queries.device):
            scores = queries[part] @ memory.T  # (q, F) @ (F, U * h*w)
            for found, group in zip(matches, self.groups, strict=True):
                found.append(self._group_matches(group, scores, queries[part], used, sample))
        readouts = []
        for found, group in zip(matches, self.groups, strict=True):
            whole = TopMatches(*(torch.cat(parts) for parts in zip(*found, strict=True)))
            if group.usage is not None:
                group.usage.count(sample, whole)
            values = [top_readout(whole, self.storage.values[identity][sample]) for identity in group.ids]
            readouts.append(torch.stack([value.T.unflatten(1, self.storage.map_size) for value in values]))
        return readouts

    def _group_matches(
        self, group: Group, scores: Tensor, queries: Tensor, used: Sequence[int], sample: int
    ) -> TopMatches:
        """What some queries take from a group's places, numbered as the values of its objects are."""
        area = self.storage.area
        slots = sorted(group.slots)
        if slots != list(used):
            columns = [used.index(slot) for slot in slots]
            scores = scores.unflatten(1, (-1, area))[:, columns].flatten(1)
        if group.prototypes and group.features is not None:
            scores = torch.cat([queries @ group.features[sample, : group.prototypes].T, scores], dim=1)
        matches = top_softmax(scores, self.top_k)
        place = matches.places - group.prototypes
        slot = torch.tensor(slots, device=place.device)[place.div(area, rounding_mode="floor").clamp(min=0)]
        in_slots = self.storage.reserved + slot * area + place % area
        return TopMatches(matches.weights, torch.where(place < 0, matches.places, in_slots))


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)
