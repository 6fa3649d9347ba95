"""Learning-rate schedules: pure functions of the step and of how much of the run is done.

A schedule is called with `step`, the number of optimiser steps taken before this one, and `fraction`, the
share of the run that is over (step / steps, or the used share of a time budget), and returns the factor for
every group's learning rate. Because both are given, the same schedule ends where it should on a run of fixed
steps and on a run of fixed minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[int, float], float]


def linear_warmup(step: int, warmup_steps: int) -> float:
    """Rises from 0 at step 0 to 1 at `warmup_steps`, and stays there."""
    return min(1.0, step / warmup_steps) if warmup_steps > 0 else 1.0


def decay_progress(step: int, fraction: float, warmup_steps: int = 0) -> float:
    """How far a decay that starts after the warm-up has come.

    The run's length is projected from both arguments: `step / fraction` steps. That is exactly the number of
    steps of a step-based run, and the current estimate of a time-based one.

    Args:
        step: optimiser steps taken.
        fraction: share of the run that is over, in [0, 1].
        warmup_steps: steps before the decay starts.

    Returns:
        0 up to the end of the warm-up, 1 at the end of the run.
    """
    if step <= warmup_steps or fraction <= 0:
        return 0.0
    if fraction >= 1:
        return 1.0
    return (step - warmup_steps) / (step / fraction - warmup_steps)


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then the full learning rate."""

    warmup_steps: int = 0

    def __call__(self, step: int, fraction: float) -> float:
        return linear_warmup(step, self.warmup_steps)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine from 1 to `final` at the end of the run.

    Attributes:
        warmup_steps: steps of the warm-up.
        final: factor at the end.

    Source: Loshchilov and Hutter, "SGDR", 2017, without restarts.
    """

    warmup_steps: int = 0
    final: float = 0.0

    def __call__(self, step: int, fraction: float) -> float:
        if step < self.warmup_steps:
            return linear_warmup(step, self.warmup_steps)
        progress = decay_progress(step, fraction, self.warmup_steps)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Steps:
    """The full learning rate, and at each of some points of the run so much less.

    Attributes:
        at: shares of the run in [0, 1].
        factor: by which the learning rate is multiplied at each.
    """

    at: Sequence[float]
    factor: float = 0.1

    def __call__(self, step: int, fraction: float) -> float:
        return self.factor ** sum(fraction >= point for point in self.at)


@dataclass(frozen=True)
class WarmupExponential:
    """Linear warm-up, then exponential decay that reaches `decay_rate` at step `decay_steps` and goes on.

    Attributes:
        warmup_steps: steps of the warm-up.
        decay_rate: factor at `decay_steps`.
        decay_steps: step, counted from the start of the run, at which the factor is `decay_rate`; None means
            the end of the run.

    Source: VideoSAUR (Zadaianchuk et al., 2023), training details: 2500 steps of warm-up, 0.5 at step 100000.
    """

    warmup_steps: int = 2500
    decay_rate: float = 0.5
    decay_steps: int | None = None

    def __post_init__(self) -> None:
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"decay_steps is {self.decay_steps}, expected more than the {self.warmup_steps} "
                "warm-up steps; it counts from the start of the run"
            )

    def __call__(self, step: int, fraction: float) -> float:
        if step < self.warmup_steps:
            return linear_warmup(step, self.warmup_steps)
        if self.decay_steps is None:
            return self.decay_rate ** decay_progress(step, fraction, self.warmup_steps)
        return self.decay_rate ** ((step - self.warmup_steps) / (self.decay_steps - self.warmup_steps))
