"""The frames that labels are copied from: a bounded memory, and reading it.

Source: see `label_propagation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.affinity import Matches, Shape, merge, read, top_matches


@dataclass(frozen=True)
class Attend:
    """How a target patch finds its sources.

    Attributes:
        context: how many of the last frames are sources.
        top_k: matches that vote, over all sources together.
        temperature: of their softmax.
        radius: of the window in patches; 0 switches it off.
        shape: of the window, see `ops.affinity.window`.
        keep_prompted: frames with a prompt stay sources for good (at most `most_kept`, the first one always).
        restrict_kept: whether the window holds for them too.
        repeat_first: the first frame stands for the frames before the video begins, as CRW does it, and
            counts among the last frames afterwards; else it is only a kept one.
        most_kept: prompted frames that are kept.
        gate_strength: exponent of the agreement of slots, where there is a gate.
    """

    context: int = 7
    top_k: int = 5
    temperature: float = 0.1
    radius: float = 12
    shape: Shape = "square"
    keep_prompted: bool = True
    restrict_kept: bool = True
    repeat_first: bool = False
    most_kept: int = 4
    gate_strength: float = 1.0


class SourceMemory:
    """Features and soft labels of the frames that may be copied from: kept ones first, then the last few.

    Args:
        attend: how many frames, and which.
    """

    def __init__(self, attend: Attend) -> None:
        self.attend = attend
        self.kept = 0  # frames in front that stay
        self.recent = 0  # of the last frames, up to `context`
        self._next = 0  # place of the next one among them
        self.features = torch.empty(0)
        self.labels = torch.empty(0)
        self.gates: Tensor | None = None

    def __len__(self) -> int:
        return self.kept + self.recent

    def add(self, features: Tensor, labels: Tensor, gate: Tensor | None, *, keep: bool) -> None:
        """Takes in a frame.

        Args:
            features: (h, w, D), unit length.
            labels: (h, w, C), background first.
            gate: (h, w, K) distribution over groups, or None.
            keep: whether it stays for good.
        """
        self._make_room(features, labels, gate)
        first = len(self) == 0
        if keep and self.attend.keep_prompted:
            self.keep(features, labels, gate)
        if self.attend.repeat_first and first:
            for _ in range(self.attend.context):
                self._push(features, labels, gate)
        elif self.attend.repeat_first or not (keep and self.attend.keep_prompted):
            self._push(features, labels, gate)

    def keep(self, features: Tensor, labels: Tensor, gate: Tensor | None) -> None:
        """Makes a frame a source for good; where there is no room, the oldest but the first one goes."""
        self._make_room(features, labels, gate)
        self._write(self._kept_place(), features, labels, gate)

    def relabel(self, features: Tensor, masks: Tensor, rows: Sequence[int]) -> None:
        """Objects that are new in a frame were background so far: finds them in the sources, where they show.

        Args:
            features: (h, w, D) of the frame that names them.
            masks: (n, h, w) of the new objects there, in [0, 1].
            rows: their rows in the soft labels.
        """
        named = torch.cat([1 - masks.sum(0, keepdim=True).clamp(max=1), masks]).flatten(1).T  # (h*w, 1 + n)
        self._widen(max(rows) + 1)
        attend = self.attend
        for place in range(len(self)):
            matches = top_matches(
                self.features[place],
                features[None],
                top_k=attend.top_k,
                radius=attend.radius,
                shape=attend.shape,
                temperature=attend.temperature,
            )
            found = read(matches, named).unflatten(0, features.shape[:2])  # (h, w, 1 + n)
            self.labels[place] *= found[..., :1]
            self.labels[place][..., list(rows)] = found[..., 1:]

    def sources(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """(S, h, w, D) features, (S, h, w, C) labels, (S, h, w, K) gates of the sources, not copied."""
        count = len(self)
        return self.features[:count], self.labels[:count], None if self.gates is None else self.gates[:count]

    def _make_room(self, features: Tensor, labels: Tensor, gate: Tensor | None) -> None:
        if self.features.numel():
            self._widen(labels.shape[-1])
            return
        room = self.attend.context + (self.attend.most_kept if self.attend.keep_prompted else 0)
        self.features = features.new_empty(room, *features.shape)
        self.labels = labels.new_zeros(room, *labels.shape)
        self.gates = None if gate is None else gate.new_empty(room, *gate.shape)

    def _widen(self, rows: int) -> None:
        """Objects that come later were nowhere before."""
        missing = rows - self.labels.shape[-1]
        if missing > 0:
            self.labels = F.pad(self.labels, (0, missing))

    def _kept_place(self) -> int:
        """Where the next kept frame goes: the last few move up, or the oldest but the first makes room."""
        if self.kept == self.attend.most_kept:
            for stack in self._stacks():
                stack[1 : self.kept - 1] = stack[2 : self.kept].clone()
            return self.kept - 1
        for stack in self._stacks():
            stack[self.kept + 1 : len(self) + 1] = stack[self.kept : len(self)].clone()
        self.kept += 1
        return self.kept - 1

    def _push(self, features: Tensor, labels: Tensor, gate: Tensor | None) -> None:
        if self.attend.context == 0:
            return
        self._write(self.kept + self._next, features, labels, gate)
        self._next = (self._next + 1) % self.attend.context
        self.recent = min(self.recent + 1, self.attend.context)

    def _write(self, place: int, features: Tensor, labels: Tensor, gate: Tensor | None) -> None:
        self.features[place], self.labels[place] = features, labels
        if self.gates is not None and gate is not None:
            self.gates[place] = gate

    def _stacks(self) -> list[Tensor]:
        return [self.features, self.labels] + ([] if self.gates is None else [self.gates])


def propagate(features: Tensor, memory: SourceMemory, *, gate: Tensor | None = None) -> Tensor:
    """Soft labels of a frame from those of its sources.

    Args:
        features: (h, w, D), unit length.
        memory: at least one source.
        gate: (h, w, K) distribution over groups where the memory has them.

    Returns:
        (h, w, C), background first.
    """
    attend = memory.attend
    sources, labels, gates = memory.sources()

    def matches(part: slice, radius: float) -> Matches:
        paired = None if gate is None or gates is None else (gate, gates[part])
        return top_matches(
            features,
            sources[part],
            top_k=attend.top_k,
            radius=radius,
            shape=attend.shape,
            gates=paired,
            gate_strength=attend.gate_strength,
            temperature=attend.temperature,
        )

    if attend.restrict_kept or not memory.kept:
        found = matches(slice(None), attend.radius)
    else:
        found = matches(slice(0, memory.kept), 0)
        if memory.recent:
            offset = memory.kept * features.shape[0] * features.shape[1]
            near = matches(slice(memory.kept, None), attend.radius)
            found = merge(found, near, top_k=attend.top_k, offset=offset)
    return read(found, labels.flatten(0, 2)).unflatten(0, features.shape[:2])  # (h*w, C) -> (h, w, C)
