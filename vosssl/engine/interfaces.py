"""What the trainer is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from vosssl.clip import Batch

Objective = Callable[[nn.Module, Batch, int], Mapping[str, Tensor]]
Validate = Callable[[nn.Module, int], Mapping[str, float]]
Pictures = Callable[[nn.Module, int], Mapping[str, Tensor]]
Monitor = Callable[[nn.Module, Batch, int], Mapping[str, float]]
Precision = Literal["fp32", "bf16", "fp16"]


class Loader(Protocol):
    """What the trainer reads: an endless stream of batches that can start at any step.

    The batch of a step depends on the step alone, and reading one leaves the global generators as they are.

    Attributes:
        batch_size: clips a step, over all processes.
    """

    batch_size: int

    def batches(self, start_step: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class FitResult:
    """What a run did.

    Attributes:
        steps: optimiser steps taken in all, also before a resume.
        seconds: training time in all, without validation and saving.
        steps_per_second, clips_per_second: over this call of `fit`; clips of all processes.
        data_wait_share: share of the training time spent waiting for batches, in this call.
        peak_memory_bytes: of the CUDA allocator, or of the process.
        losses: mean of each term over the last logged steps.
        metrics: the last validation.
        best, best_step: what best.ckpt was picked by, and its step; None without validation.
        alarms: keys of the alarms that held when the monitors last looked.
    """

    steps: int
    seconds: float
    steps_per_second: float
    clips_per_second: float
    data_wait_share: float
    peak_memory_bytes: int
    losses: dict[str, float]
    metrics: dict[str, float]
    best: float | None
    best_step: int | None
    alarms: tuple[str, ...]
