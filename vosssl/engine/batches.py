"""Batches on their way to the network: the stream they come from, the parts they are cut into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

from vosssl.clip import Batch


@contextmanager
def closed_after(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """Closes a stream of batches in the end, which stops the processes behind it."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Cuts a batch into parts of about the same number of clips.

    Args:
        batch: B clips.
        parts: how many parts, at most B.

    Returns:
        The parts, in order.

    Raises:
        ValueError: more parts than clips.
    """
    if parts == 1:
        return [batch]
    if parts > len(batch):
        raise ValueError(
            f"accumulate is {parts}, but a process gets {len(batch)} clips a step; "
            "lower it or raise batch_size"
        )
    bounds = [len(batch) * index // parts for index in range(parts + 1)]
    return [_rows(batch, slice(*span)) for span in pairwise(bounds)]


def _rows(batch: Batch, rows: slice) -> Batch:
    """Some clips of a batch."""
    return replace(
        batch,
        frames=batch.frames[rows],
        labels=None if batch.labels is None else batch.labels[rows],
        flow=None if batch.flow is None else batch.flow[rows],
        names=batch.names[rows],
        seeds=batch.seeds[rows],
        features={name: value[rows] for name, value in batch.features.items()},
        num_objects=None if batch.num_objects is None else batch.num_objects[rows],
    )
