"""Which sample comes when: draws, mixes, and a loader whose every batch is a function of its step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader

from vosssl.clip import Batch, Clip, collate
from vosssl.data.readahead import read_ahead

PROBES = 16  # clips whose content stands for a dataset that has no fingerprint
_MASK64 = (1 << 64) - 1


class Draw(NamedTuple):
    """What a clip dataset is asked for; a sample is a pure function of it.

    Attributes:
        index: which item, 0 <= index < len(dataset).
        seed: decides everything random about the sample (where the clip starts, crops, slot noise); >= 0.
        step: the training step that asks, for datasets with a curriculum; no source of randomness.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    seed: int = 0
    step: int = 0


class ClipDataset(Protocol):
    """A map-style dataset of clips; `__getitems__(list[Draw]) -> list[Clip]` is used too where it exists."""

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw | int) -> Clip: ...


def as_draw(draw: Draw | int) -> Draw:
    """A bare index is the draw of that index with seed 0, at step 0."""
    return draw if isinstance(draw, Draw) else Draw(int(draw))


def mixed_seed(*parts: int) -> int:
    """One well-mixed seed from several integers: neighbouring inputs give unrelated seeds.

    Args:
        parts: any integers, in an order that matters.

    Returns:
        A seed in [0, 2**63).

    Source: SplitMix64 finaliser, Steele et al., "Fast splittable pseudorandom number generators", 2014.
    """
    state = 0
    for part in parts:
        state = (state + (part & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state >> 1


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator started at a seed."""
    return torch.Generator().manual_seed(seed)


def read_draws(dataset: ClipDataset, draws: Sequence[Draw]) -> list[Clip]:
    """The clips of several draws, in one call where the dataset can (`__getitems__`)."""
    many = getattr(dataset, "__getitems__", None)
    return list(many(list(draws))) if callable(many) else [dataset[draw] for draw in draws]


def fingerprint_of(dataset: ClipDataset) -> str:
    """What tells a dataset from others: its `fingerprint()`, or its length and the content of some clips."""
    fingerprint = getattr(dataset, "fingerprint", None)
    if callable(fingerprint):
        return str(fingerprint())
    length = len(dataset)
    digest = hashlib.sha256(f"{type(dataset).__qualname__} {length}".encode())
    for index in sorted({length * probe // PROBES for probe in range(PROBES)}):
        clip = dataset[Draw(index, 0)]
        digest.update(clip.name.encode())
        digest.update(clip.frames.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    """(length,) int64, the order of one epoch."""
    return torch.randperm(length, generator=generator_of(mixed_seed(seed, epoch)))


class ClipLoader:
    """Batches without end, each a pure function of (dataset, seed, step).

    Neither the number of workers or processes nor the place where a run was stopped changes a batch. Position
    p = step * batch_size + row lies in epoch p // len(dataset); each epoch visits every index once, in an
    order that depends on (seed, epoch). A sample's own seed depends on (seed, epoch, index); its draw also
    holds the step, on which the datasets with a curriculum depend.

    Args:
        dataset: a clip dataset.
        batch_size: clips a step over all processes together; this process gets rows rank::world of them.
        seed: seed of orders and samples.
        workers: processes that read ahead. 0 reads in this process.
        rank: this process among `world`.
        world: number of processes that share a batch; it must divide batch_size.
        shuffle: a new order every epoch; False keeps the dataset's order.
        prefetch: batches read ahead, by each worker or, with `workers=0`, by one thread (0: no thread, each
            batch is read when it is asked for).
        pin_memory: page-locked batches for faster copies to a GPU; None pins where CUDA is available.

    Raises:
        ValueError: an empty dataset, or sizes that do not fit together.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        prefetch: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError(
                "ClipLoader got an empty dataset, expected at least one clip; check its root and split"
            )
        if world < 1 or not 0 <= rank < world:
            raise ValueError(f"ClipLoader got rank {rank} of world {world}, expected 0 <= rank < world")
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} is the size over all {world} processes, expected a positive "
                f"multiple of {world}; change batch_size or the number of processes"
            )
        if workers < 0 or prefetch < 0:
            raise ValueError(f"ClipLoader got workers {workers}, prefetch {prefetch}, expected 0 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self.prefetch = prefetch
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory

    def epoch(self, step: int) -> int:
        """The epoch in which a step's first clip lies."""
        return step * self.batch_size // len(self.dataset)

    def draws(self, step: int) -> list[Draw]:
        """What this process reads at a step: batch_size / world draws."""
        first = step * self.batch_size
        return [
            self._draw(position) for position in range(first + self.rank, first + self.batch_size, self.world)
        ]

    def _draw(self, position: int) -> Draw:
        epoch, offset = divmod(position, len(self.dataset))
        index = offset
        if self.shuffle:
            index = int(_permutation(len(self.dataset), self.seed, epoch)[offset])
        return Draw(index, mixed_seed(self.seed, epoch, index), position // self.batch_size)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Batches of start_step, start_step + 1, … without end; closing the iterator stops its workers.

        Args:
            start_step: the step to go on from; a resumed run passes the step it was stopped at.
        """
        if start_step < 0:
            raise ValueError(f"batches got start_step {start_step}, expected 0 or more")
        loader: Iterable[Batch] = DataLoader(
            _DrawnBatches(self.dataset),  # type: ignore[arg-type]  # map-style by lists of draws
            batch_size=None,  # the sampler yields whole batches
            sampler=_Steps(self, start_step),  # type: ignore[arg-type]  # any iterable of keys
            collate_fn=_unchanged,  # type: ignore[arg-type]
            num_workers=self.workers,
            prefetch_factor=max(1, self.prefetch) if self.workers else None,
            pin_memory=self.pin_memory,
            worker_init_fn=_single_threaded,
            generator=torch.Generator(),  # its own: an iterator must not move the global random state
        )
        return read_ahead(loader, depth=0 if self.workers else self.prefetch)


class _Steps:
    """The draws of start_step, start_step + 1, … without end."""

    def __init__(self, loader: ClipLoader, start_step: int) -> None:
        self.loader = loader
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[Draw]]:
        step = self.start_step
        while True:
            yield self.loader.draws(step)
            step += 1


class _DrawnBatches:
    """A clip dataset seen as batches: a list of draws in, a Batch out."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, draws: list[Draw]) -> Batch:
        return collate(read_draws(self.dataset, draws), seeds=[draw.seed for draw in draws])


def _unchanged(batch: Batch) -> Batch:
    return batch


def _single_threaded(worker: int) -> None:
    """Workers are the parallelism: a second level of threads inside each would only fight for the cores."""
    torch.set_num_threads(1)


class Mix:
    """Several clip datasets as one, each with its share of the draws of an epoch.

    Dataset d owns a block of `round(share_d * length)` indices, so shares hold exactly in every epoch. A
    block goes through its dataset as often as it fits in whole passes; what is left over is drawn at random
    by the draw's seed.

    Args:
        datasets: the datasets to mix.
        weights: positive relative shares; None gives every clip the same chance (shares like the lengths).
        repeats: instead of weights: how many times each dataset goes into the mix, whole numbers.
        length: draws an epoch; None: the sum of the lengths, each times its repeats.

    Raises:
        ValueError: no dataset, an empty one, or weights that do not fit.
    """

    def __init__(
        self,
        datasets: Sequence[ClipDataset],
        *,
        weights: Sequence[float] | None = None,
        repeats: Sequence[int] | None = None,
        length: int | None = None,
    ) -> None:
        lengths = [len(dataset) for dataset in datasets]
        if not lengths or 0 in lengths:
            raise ValueError(f"Mix got datasets of lengths {lengths}, expected at least one and none empty")
        if repeats is not None:
            if weights is not None or len(repeats) != len(lengths) or min(repeats) < 1:
                raise ValueError(
                    f"Mix got repeats {list(repeats)} and weights {weights} for {len(lengths)} datasets, "
                    "expected one whole number of 1 or more for each, and no weights"
                )
            lengths = [number * times for number, times in zip(lengths, repeats, strict=True)]
        shares = [float(share) for share in (lengths if weights is None else weights)]
        if len(shares) != len(lengths) or min(shares) <= 0:
            raise ValueError(
                f"Mix got weights {shares} for {len(lengths)} datasets, expected a positive one for each"
            )
        self.datasets = list(datasets)
        total = sum(lengths) if length is None else length
        cumulative = torch.tensor(shares, dtype=torch.float64).cumsum(0)
        ends = (cumulative / cumulative[-1] * total).round().long()
        self._bounds = [0, *ends.tolist()]

    def __len__(self) -> int:
        return self._bounds[-1]

    def place(self, draw: Draw | int) -> tuple[int, Draw]:
        """Which dataset a draw goes to, and the draw it becomes there."""
        index, seed, step = as_draw(draw)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a mix of {len(self)} clips")
        which = next(number for number, end in enumerate(self._bounds[1:]) if index < end)
        offset, block = index - self._bounds[which], self._bounds[which + 1] - self._bounds[which]
        length = len(self.datasets[which])
        whole_passes = offset < block // length * length
        inner = offset % length if whole_passes else mixed_seed(seed, which) % length
        return which, Draw(inner, seed, step)

    def __getitem__(self, draw: Draw | int) -> Clip:
        which, inner = self.place(draw)
        return self.datasets[which][inner]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Clip]:
        places = [self.place(draw) for draw in draws]
        clips: dict[int, Clip] = {}
        for which, dataset in enumerate(self.datasets):
            rows = [row for row, (owner, _) in enumerate(places) if owner == which]
            clips.update(zip(rows, read_draws(dataset, [places[row][1] for row in rows]), strict=True))
        return [clips[row] for row in range(len(draws))]

    def fingerprint(self) -> str:
        """A hash that changes when the clips may."""
        parts = (self._bounds, [fingerprint_of(dataset) for dataset in self.datasets])
        return hashlib.sha256(repr(parts).encode()).hexdigest()
