"""One training loop for every method: batch -> network -> objective -> {term: scalar} -> checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vosssl.clip import Batch
from vosssl.engine import checkpoint
from vosssl.engine.batches import closed_after, split_batch
from vosssl.engine.distributed import World, current_world
from vosssl.engine.ema import WeightAverage
from vosssl.engine.interfaces import FitResult, Loader, Monitor, Objective, Pictures, Precision, Validate
from vosssl.engine.interrupt import StopRequest, TrainingStoppedError
from vosssl.engine.logs import GRADIENT_NORM, LossTracker, RunLog, Stopwatch, compact, duration, peak_memory
from vosssl.engine.rng import preserved_rng, rng_state, seed_everything
from vosssl.engine.run_state import captured, restore
from vosssl.engine.schedule import Constant, Schedule

__all__ = ["FitResult", "Trainer", "seed_everything"]

logger = logging.getLogger(__name__)

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(eq=False, repr=False)
class Trainer:
    """Trains a network; resumable at any step, bit for bit on the CPU.

    A run of fixed steps is reproducible: the batch of step s and all noise depend on seeds and s alone. One
    with `max_seconds` is not, length and learning rates depend on the clock; it resumes at the saved time.

    Attributes:
        network: network to train; moved to the device. Only the objective sees it wrapped or compiled.
        objective: (network, batch, step) -> {term: scalar}; the terms are added.
        loader: batches of this process; its `batch_size` is the global one.
        optimizer: over the network's parameters; groups may carry a `name`.
        schedule: (step, fraction of the run) -> factor of every group's learning rate.
        steps: optimiser steps in all.
        run_dir: gets last.ckpt, best.ckpt, log.txt and tensorboard/.
        device: `auto`, `cpu`, `cuda`, … ; ignored when `world` is given.
        precision: autocast type; `fp16` scales the loss.
        accumulate: parts a batch is cut into, one forward and backward each, one optimiser step for all: the
            same gradient as of the whole batch for objectives that average over samples.
        clip_norm: largest gradient norm; None clips nothing.
        ema: decay of a weight average, which is then what is validated; None for none.
        compile: whether to compile the network.
        max_seconds: end the run when this much training time is used, schedule included; None for no limit.
        validate: (network, step) -> metrics, called without gradients on the main process.
        validate_every: steps between validations; None means only at the end.
        images: (network, step) -> pictures for TensorBoard, after each validation.
        monitors: (network, batch, step) -> values to log, called without gradients, the network in evaluation
            mode; a key that starts with `alarm/` and is above 0 is an alarm.
        monitor_every, log_every, save_every: steps between these.
        best_metric: key of `validate`'s result that picks best.ckpt; None picks the lowest training loss.
        best_mode: whether more or less of it is better.
        config: plain dict kept in checkpoints.
        world: the processes of the run; None finds them, see `distributed.process_group`.
        find_unused_parameters: passed to DistributedDataParallel.
        bar: whether to draw a progress bar.

    Raises:
        ValueError: an argument out of range; says which.
    """

    network: nn.Module
    objective: Objective
    loader: Loader
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None = None
    _: KW_ONLY
    steps: int
    run_dir: Path | str
    device: torch.device | str = "cpu"
    precision: Precision = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    compile: bool = False
    max_seconds: float | None = None
    validate: Validate | None = None
    validate_every: int | None = None
    images: Pictures | None = None
    monitors: Sequence[Monitor] = ()
    monitor_every: int = 100
    log_every: int = 10
    save_every: int = 1000
    best_metric: str | None = None
    best_mode: Literal["max", "min"] = "max"
    config: Mapping[str, Any] = field(default_factory=dict)
    world: World | None = None
    find_unused_parameters: bool = False
    bar: bool = True

    def __post_init__(self) -> None:
        self._check_arguments()
        self.run_dir = Path(self.run_dir)
        self.place = self.world or current_world(self.device)
        self.schedule = self.schedule or Constant()
        self.network.to(self.place.device)
        for index, group in enumerate(self.optimizer.param_groups):
            group.setdefault("name", f"group{index}")
            group.setdefault("initial_lr", group["lr"])
        self.average = WeightAverage(self.network, self.ema) if self.ema is not None else None
        self.scaler = torch.amp.GradScaler(self.place.device.type, enabled=self.precision == "fp16")
        self._forward = self.place.wrap(self.network, find_unused_parameters=self.find_unused_parameters)
        self._parallel = self._forward
        if self.compile:
            self._forward = torch.compile(self._forward)  # type: ignore[assignment]
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.alarms: list[str] = []
        self._losses: dict[str, float] = {}
        self._stopwatch = Stopwatch()
        self.last_path = self.run_dir / "last.ckpt"
        self.best_path = self.run_dir / "best.ckpt"
        ignore = (GRADIENT_NORM,) if self.precision == "fp16" else ()
        self._tracker = LossTracker(self.place, self.last_path, ignore=ignore)
        self._warn_of_untrained()

    def _check_arguments(self) -> None:
        """Raises a ValueError that names the first argument out of range."""
        for name in ("steps", "accumulate", "monitor_every", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.precision not in _AUTOCAST:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(_AUTOCAST)}")
        if self.best_mode not in ("max", "min"):
            raise ValueError(f"best_mode is {self.best_mode!r}, expected max or min")
        if self.validate_every is not None and self.validate_every < 1:
            raise ValueError(f"validate_every is {self.validate_every}, expected at least 1, or None")
        size = self.world.size if self.world else 1
        if self.loader.batch_size % size:
            raise ValueError(
                f"batch size {self.loader.batch_size} cannot be shared evenly by {size} processes; "
                "pick a multiple, so that the gradient is the mean over the whole batch"
            )

    def _warn_of_untrained(self) -> None:
        """Says which trainable parameters the optimiser does not know."""
        known = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        unknown = [
            n
            for n, weight in self.network.named_parameters()
            if weight.requires_grad and id(weight) not in known
        ]
        if unknown:
            logger.warning(
                "%d trainable parameters are in no optimizer group, first %s", len(unknown), unknown[0]
            )

    @property
    def fraction(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        by_time = self.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(self.step / self.steps, by_time))

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is validated: the weight average where there is one."""
        return self.average.network if self.average else self.network

    def fit(self) -> FitResult:
        """Trains to the end of the run.

        Returns:
            What was done.

        Raises:
            TrainingStoppedError: SIGINT or SIGTERM came; the state is in last.ckpt.
            NonFiniteLossError: a term or the gradient was infinite or NaN; checkpoints are as before.
            OSError: the disk is full; the last checkpoint is as before.
        """
        self._stopwatch = Stopwatch(self.fraction)
        with (
            StopRequest() as stop,
            RunLog(
                Path(self.run_dir), main=self.place.is_main, bar=self.bar, step=self.step, share=self.fraction
            ) as log,
            closed_after(self.loader.batches(self.step)) as batches,
        ):
            self.network.train()
            while self.fraction < 1:
                batch = self._timed_step(batches)
                stopped, self.seconds = self.place.largest(float(stop.signal_name is not None), self.seconds)
                ended = self.fraction >= 1
                log.progress(self.fraction, f"step {self.step}, loss {self._tracker.latest_loss:.4g}")
                if ended or self._due(self.log_every):
                    self._log(log)
                if self.monitors and (ended or self._due(self.monitor_every)):
                    self._monitor(batch, log)
                if ended or (self.validate_every and self._due(self.validate_every)):
                    self._validate(log)
                if ended or stopped or self._due(self.save_every):
                    self._save(self.last_path)
                if stopped and not ended:
                    raise TrainingStoppedError(
                        self.step, self.last_path, stop.signal_name or "another process"
                    )
        return self._result()

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _timed_step(self, batches: Iterator[Batch]) -> Batch:
        """Waits for a batch and trains on it, on the clock."""
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - start
        batch = batch.to(self.place.device)
        terms = self._train_step(batch)
        self._tracker.add(self.step, batch.names, terms)
        self.step += 1
        if self.place.device.type == "cpu" or self._due(self.log_every):
            self._tracker.read()
        spent = time.perf_counter() - start
        self.seconds += spent
        self._stopwatch.add(seconds=spent, waited=waited, clips=len(batch) * self.place.size)
        return batch

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step.

        Args:
            batch: this process's rows of the global batch, on the device.

        Returns:
            Each term, the sum `loss`, and the gradient norm before clipping: scalars on the device.
        """
        assert self.schedule is not None
        factor = self.schedule(self.step, self.fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        parts = split_batch(batch, self.accumulate)
        totals: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            share = len(part) / len(batch)
            with self._gradients_exchanged(index == len(parts) - 1):
                with self._autocast():
                    terms = {name: term.float() * share for name, term in self._terms(part).items()}
                loss = torch.stack(list(terms.values())).sum()
                self.scaler.scale(loss).backward()
            for name, value in {**terms, "loss": loss}.items():
                totals[name] = totals[name] + value.detach() if name in totals else value.detach()
        self.scaler.unscale_(self.optimizer)
        totals[GRADIENT_NORM] = self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.step)
        return totals

    def _terms(self, batch: Batch) -> Mapping[str, Tensor]:
        """The objective's terms, checked."""
        terms = self.objective(self._forward, batch, self.step)
        if not terms or any(term.ndim for term in terms.values()):
            shapes = {name: tuple(term.shape) for name, term in terms.items()}
            raise ValueError(f"the objective returned {shapes}, expected at least one scalar by name")
        return terms

    def _autocast(self) -> Any:
        return torch.autocast(
            self.place.device.type, dtype=_AUTOCAST[self.precision], enabled=self.precision != "fp32"
        )

    def _gradients_exchanged(self, last: bool) -> Any:
        """Processes exchange gradients with the last part of a batch only."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return nullcontext()

    def _clip(self) -> Tensor:
        """Scales gradients down to `clip_norm`; returns their norm before that, a scalar."""
        weights = [w for group in self.optimizer.param_groups for w in group["params"] if w.grad is not None]
        norm = get_total_norm([weight.grad for weight in weights])
        if self.clip_norm is not None:
            clip_grads_with_norm_(weights, self.clip_norm, norm)
        return norm.detach()

    def _log(self, log: RunLog) -> None:
        """Losses, rates and memory since the last time to TensorBoard and the text log."""
        self._losses = self._tracker.means()
        speed = self._stopwatch.lap()
        speed["peak_memory_gb"] = peak_memory(self.place.device) / 1e9
        rates = {f"lr/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        log.scalars({f"train/{name}": value for name, value in self._losses.items()}, self.step)
        log.scalars(rates | {f"speed/{name}": value for name, value in speed.items()}, self.step)
        logger.info(
            "step %d of %d: %s; %s; %.3g clips/s, %.0f%% of the time waiting for data, %.2f GB; %s left",
            *(self.step, self.steps, compact(self._losses), compact(rates), speed["clips_per_second"]),
            *(100 * speed["data_wait_share"], speed["peak_memory_gb"]),
            duration(self._stopwatch.time_left(self.fraction)),
        )

    def _monitor(self, batch: Batch, log: RunLog) -> None:
        """Lets the monitors look at the network; an alarm holds until they no longer raise it."""
        if not self.place.is_main:
            return
        values: dict[str, float] = {}
        with preserved_rng(), torch.no_grad():
            self.network.eval()
            for monitor in self.monitors:
                values |= {
                    name: float(value) for name, value in monitor(self.network, batch, self.step).items()
                }
        self.network.train()
        log.scalars(values, self.step)
        raised = [name for name, value in values.items() if name.startswith("alarm/") and value > 0]
        for name in sorted({*raised} ^ {*self.alarms}):
            what, cause = "alarm" if name in raised else "over", name.removeprefix("alarm/")
            logger.warning("%s at step %d: %s", what, self.step, cause.replace("_", " "))
        self.alarms = raised

    def _validate(self, log: RunLog) -> None:
        """Scores the network on the main process; keeps it as best.ckpt when it is the best so far."""
        improved = False
        if self.place.is_main and (self.validate or self.images):
            with preserved_rng(), torch.no_grad():
                network = self.evaluated_network.eval()
                if self.validate:
                    self.metrics = {k: float(v) for k, v in self.validate(network, self.step).items()}
                pictures = self.images(network, self.step) if self.images else {}
            self.network.train()
            log.scalars({f"val/{name}": value for name, value in self.metrics.items()}, self.step)
            log.images(pictures, self.step)
            logger.info("step %d, validation: %s", self.step, compact(self.metrics) or "pictures only")
            improved = self._is_best()
        if self.place.largest(float(improved))[0]:
            self._save(self.best_path)

    def _is_best(self) -> bool:
        """Whether the network at this validation beats all before; remembers it then."""
        if self.validate is None:
            return False
        numbers = self.metrics if self.best_metric else {"loss": self._losses.get("loss", float("inf"))}
        name = self.best_metric or "loss"
        if name not in numbers:
            raise ValueError(
                f"best_metric is {name!r}, but validation gives {', '.join(numbers)}; pick one of these"
            )
        sign = 1 if self.best_metric and self.best_mode == "max" else -1
        if math.isnan(numbers[name]) or (self.best and sign * numbers[name] <= sign * self.best["value"]):
            return False
        self.best = {"value": numbers[name], "step": self.step}
        return True

    def _save(self, path: Path) -> None:
        """Writes the whole state of the run; every process has to call it."""
        self._tracker.read()  # nothing is saved after a non-finite loss
        generators = self.place.gather(rng_state())
        if self.place.is_main:
            checkpoint.save(path, captured(self, generators))

    def resume(self, path: Path | str) -> None:
        """Puts back the whole state of a run; the next `fit` goes on from there.

        Args:
            path: a checkpoint that a trainer of the same network and optimiser wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, foreign, or of another model, optimiser or kind of average; says which.
        """
        restore(self, path)
        logger.info("resumed %s at step %d", path, self.step)

    def _result(self) -> FitResult:
        speed = self._stopwatch.total()
        return FitResult(
            steps=self.step,
            seconds=self.seconds,
            steps_per_second=speed["steps_per_second"],
            clips_per_second=speed["clips_per_second"],
            data_wait_share=speed["data_wait_share"],
            peak_memory_bytes=peak_memory(self.place.device),
            losses=self._losses,
            metrics=self.metrics,
            best=self.best.get("value"),
            best_step=int(self.best["step"]) if self.best else None,
            alarms=tuple(self.alarms),
        )
