"""Devices and processes: one process, or several started by torchrun that share every step.

The loader gives rank r the rows r::world of the global batch, gradients are averaged over processes, and only
rank 0 writes files; so the number of processes changes the speed and nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(hours=2)  # the other processes wait while rank 0 validates


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name.

    Args:
        name: `auto` (the first of CUDA, Apple's MPS, CPU that is there), or a device such as `cpu`, `cuda:1`.
            CUDA without a number is the device of this process's local rank.

    Returns:
        The device.

    Raises:
        ValueError: no such device on this machine (says which there are), or one that processes cannot share.
    """
    shared = _environment("WORLD_SIZE", 1) > 1
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind in found if found[kind]]
    if name == "auto":
        name = next(kind for kind in there if not (shared and kind == "mps"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}, expected auto, {' or '.join(there)}") from error
    if device.type not in there:
        raise ValueError(
            f"device is {str(name)!r}, but this machine has {' and '.join(there)}; use device=auto"
        )
    if device.type == "mps" and shared:
        raise ValueError("device is mps, which processes cannot share; use device=cpu, or one process")
    if device.type != "cuda":
        return device
    index = _environment("LOCAL_RANK", 0) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"CUDA device {index} was asked for, but this machine has {torch.cuda.device_count()}; "
            "name another, or start torchrun with a smaller --nproc-per-node"
        )
    return torch.device("cuda", index)


def is_main_process() -> bool:
    """Whether this process is the one that writes: rank 0, or the only one."""
    return _environment("RANK", 0) == 0


def _environment(name: str, default: int) -> int:
    """A number that torchrun hands to its processes."""
    return int(os.environ.get(name, default))


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: number of this process.
        size: number of processes.
        device: where this process computes.
        control: group of CPU messages beside the gradients; None with one process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module, *, find_unused_parameters: bool = False) -> nn.Module:
        """The network with its gradients averaged over processes; unchanged with one process.

        Args:
            network: on this process's device.
            find_unused_parameters: whether steps may leave parameters without a gradient.

        Returns:
            The network to call.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(
            network,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
        )

    def largest(self, *values: float) -> tuple[float, ...]:
        """The largest of each value over processes: how they agree to stop, and on the time."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.control)
        return tuple(tensor.tolist())

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a CPU tensor over processes, of the same shape."""
        if self.size == 1:
            return values
        total = values.double()
        dist.all_reduce(total, group=self.control)
        return total / self.size

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values


def current_world(device: str | torch.device = "auto") -> World:
    """This process among those of the running process group, or alone when there is none.

    Args:
        device: as in `resolve_device`.

    Returns:
        The world. Every process of a group has to ask for it.
    """
    place = resolve_device(device)
    if not (dist.is_available() and dist.is_initialized()):
        return World(device=place)
    control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=place, control=control)


@contextmanager
def process_group(device: str | torch.device = "auto") -> Iterator[World]:
    """Joins the processes that torchrun started, or stands alone when there are none.

    CUDA processes speak NCCL, all others gloo. Below rank 0 the library logs only warnings.

    Args:
        device: as in `resolve_device`.

    Yields:
        The world.

    Raises:
        ValueError: no such device, or more local processes than CUDA devices.
    """
    if _environment("WORLD_SIZE", 1) == 1:
        yield current_world(device)
        return
    place = resolve_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
        dist.init_process_group("nccl", device_id=place)
    else:
        dist.init_process_group("gloo")
    library = logging.getLogger("vosssl")
    level = library.level
    if not is_main_process():
        library.setLevel(logging.WARNING)
    try:
        yield current_world(place)
    finally:
        library.setLevel(level)
        dist.destroy_process_group()
