"""Long-term memory: frames that get old are condensed into the few places that were read most.

Source: Cheng and Schwing, XMem, ECCV 2022, section 3.2 and supplement (usage, prototypes, potentiation,
removal of what is read least).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.ops.memory_reading import TopMatches, full_readout, memory_features, query_features

NEVER_READ = 1e-7  # the age of a place that was just stored, so that its use can be divided by it


@dataclass(frozen=True)
class LongTerm:
    """When frames are condensed into a few prototypes, and how many of these are kept.

    Attributes:
        max_mem_frames: so many frames of a group, its permanent one among them, are condensed.
        min_mem_frames: so many stay as they are.
        num_prototypes: places that each condensation keeps.
        max_num_tokens: prototypes of a group, at most.
        buffer_tokens: how many of them go at a time when there is no room.
    """

    max_mem_frames: int = 10
    min_mem_frames: int = 5
    num_prototypes: int = 128
    max_num_tokens: int = 10000
    buffer_tokens: int = 2000

    def __post_init__(self) -> None:
        if not 1 <= self.min_mem_frames < self.max_mem_frames:
            raise ValueError(f"{self}: expected 1 <= min_mem_frames < max_mem_frames")
        if self.max_num_tokens <= self.num_prototypes + self.buffer_tokens:
            raise ValueError(f"{self}: expected max_num_tokens above num_prototypes + buffer_tokens")


class Candidates(NamedTuple):
    """Places of old frames that are to be condensed.

    Attributes:
        key: (B, M, C).
        shrinkage: (B, M, 1).
        selection: (B, M, C).
        values: by object, (B, M, V).
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    values: dict[int, Tensor]


@dataclass
class Usage:
    """How much was read from each place of a group, and how often it could have been.

    Attributes:
        read: (B, M), weights added up.
        age: (B, M), readings since the place was stored.
    """

    read: Tensor
    age: Tensor

    @classmethod
    def of(cls, batch: int, places: int, like: Tensor, *, before: Usage | None = None) -> Usage:
        """Of so many places, on the device of `like`; the first ones as before."""
        read = like.new_zeros(batch, places, dtype=torch.float32)
        age = torch.full_like(read, NEVER_READ)
        if before is not None:
            read[:, : before.read.shape[1]], age[:, : before.age.shape[1]] = before.read, before.age
        return cls(read, age)

    def count(self, sample: int, matches: TopMatches) -> None:
        """Adds what a video of the batch read."""
        self.read[sample].index_add_(0, matches.places.flatten(), matches.weights.flatten())

    def grow_older(self) -> None:
        """One reading more that every place could have been part of."""
        self.age += 1

    def start(self, places: slice) -> None:
        """These places hold something new."""
        self.read[:, places] = 0
        self.age[:, places] = NEVER_READ

    def rate(self) -> Tensor:
        """(B, M) use per reading."""
        return self.read / self.age


def condense(candidates: Candidates, rate: Tensor, count: int) -> tuple[Tensor, dict[int, Tensor]]:
    """The most used places, each with the mean of what all candidates like it say.

    Args:
        candidates: M places.
        rate: (B, M) of their use.
        count: how many are kept, at most M.

    Returns:
        (B, count, F) features as of `memory_features`; and by object (B, count, V) values.
    """
    best = rate.topk(min(count, rate.shape[1]), dim=1).indices[..., None]  # (B, count, 1)
    key = candidates.key.gather(1, best.expand(-1, -1, candidates.key.shape[-1]))
    selection = candidates.selection.gather(1, best.expand(-1, -1, candidates.selection.shape[-1]))
    queries = query_features(key, selection)
    memory = memory_features(candidates.key, candidates.shrinkage, selects=True)
    shrinkage = full_readout(queries, memory, candidates.shrinkage)
    values = {identity: full_readout(queries, memory, held) for identity, held in candidates.values.items()}
    return memory_features(key, shrinkage, selects=True), values
