"""What a run says while it trains: a text log, TensorBoard, a progress bar, and the losses behind them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from vosssl.engine.distributed import World

if sys.platform != "win32":  # which has no such module
    import resource

GRADIENT_NORM = "gradient_norm"


class NonFiniteLossError(RuntimeError):
    """A loss or a gradient became infinite or NaN; nothing was saved since.

    Attributes:
        step: the step (counted from 0) whose batch gave it.
        terms: names of the terms that were not finite.
        clip_names: names of that batch's clips, over all processes.
    """

    def __init__(
        self, step: int, terms: tuple[str, ...], clip_names: tuple[str, ...], checkpoint: Path
    ) -> None:
        kept = (
            f"the last good state is {checkpoint}" if checkpoint.exists() else "no checkpoint was saved yet"
        )
        super().__init__(
            f"{' and '.join(terms)} not finite at step {step}, "
            f"on clips {', '.join(clip_names) or 'without names'}; {kept}. "
            "Look at these clips, lower the learning rate, set clip_norm, or use precision fp32"
        )
        self.step = step
        self.terms = terms
        self.clip_names = clip_names


class _Record(NamedTuple):
    step: int
    clip_names: tuple[str, ...]
    terms: dict[str, Tensor]  # scalars on the device


class LossTracker:
    """Holds losses on the device until they are read, so that training need not wait for each of them.

    Args:
        world: the run's processes; means are over all of them.
        checkpoint: file named in the error when a loss is not finite.
        ignore: terms that may be infinite, such as the gradient norm under a loss scaler.

    Attributes:
        latest_loss: the last sum of terms that was read.
    """

    def __init__(self, world: World, checkpoint: Path, *, ignore: tuple[str, ...] = ()) -> None:
        self._world = world
        self._checkpoint = checkpoint
        self._ignore = ignore
        self.latest_loss = float("nan")
        self._pending: list[_Record] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, step: int, clip_names: tuple[str, ...], terms: Mapping[str, Tensor]) -> None:
        """Notes one step's terms (scalars on any device) without reading them."""
        self._pending.append(_Record(step, clip_names, dict(terms)))

    def read(self) -> None:
        """Reads what is noted, in one transfer.

        Raises:
            NonFiniteLossError: at the first step whose terms were not finite.
        """
        if not self._pending:
            return
        scalars = [value.float() for record in self._pending for value in record.terms.values()]
        values = iter(self._world.mean(torch.stack(scalars).cpu()).tolist())
        for record in self._pending:
            read = {name: next(values) for name in record.terms}
            broken = tuple(
                name
                for name, value in read.items()
                if name not in self._ignore and not abs(value) < float("inf")
            )
            if broken:
                names = tuple(name for part in self._world.gather(record.clip_names) for name in part)
                raise NonFiniteLossError(record.step, broken, names, self._checkpoint)
            self.latest_loss = read.get("loss", self.latest_loss)
            for name, value in read.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
        self._pending.clear()

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps since the last call."""
        self.read()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


class RunLog:
    """The files and the bar of a run; of several processes only the main one writes.

    Args:
        run_dir: gets log.txt (appended) and tensorboard/.
        main: whether this process writes.
        bar: whether to draw a progress bar (on a terminal).
        step: optimiser steps taken; later points of an interrupted run are dropped from TensorBoard.
        share: part of the run that is over.
    """

    def __init__(self, run_dir: Path, *, main: bool, bar: bool, step: int, share: float) -> None:
        self._run_dir = run_dir
        self._main = main
        self._bar_wanted = bar and main
        self._first_step = step
        self._first_share = share
        self._stack = ExitStack()
        self._writer: SummaryWriter | None = None
        self._bar: tqdm | None = None

    def __enter__(self) -> RunLog:
        if not self._main:
            return self
        self._run_dir.mkdir(parents=True, exist_ok=True)
        library = logging.getLogger("vosssl")
        path = (self._run_dir / "log.txt").absolute()
        if not any(getattr(handler, "baseFilename", None) == str(path) for handler in library.handlers):
            self._stack.enter_context(_logging_to(path, library))
        self._writer = SummaryWriter(str(self._run_dir / "tensorboard"), purge_step=self._first_step)
        self._stack.callback(self._writer.close)
        if self._bar_wanted and sys.stderr.isatty():
            talkative = [source for source in (library, logging.root) if _writes_to_terminal(source)]
            self._stack.enter_context(logging_redirect_tqdm(talkative))
            self._bar = self._stack.enter_context(
                tqdm(
                    total=100.0,
                    initial=100.0 * self._first_share,
                    bar_format="{percentage:3.0f}% {bar} {elapsed} gone, {remaining} left{postfix}",
                )
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds points to TensorBoard's curves."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def images(self, pictures: Mapping[str, Tensor], step: int) -> None:
        """Adds pictures, (3, H, W) or (N, 3, H, W), uint8 or float in [0, 1], to TensorBoard."""
        if self._writer is None:
            return
        for name, picture in pictures.items():
            if picture.ndim == 3:
                self._writer.add_image(name, picture.cpu(), step)
            else:
                self._writer.add_images(name, picture.cpu(), step)

    def progress(self, share: float, text: str) -> None:
        """Moves the bar to a share of the run and shows a text behind it."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(100.0 * share - self._bar.n)


class Stopwatch:
    """Counts steps, clips and seconds of one call of `fit`, in all and since the last lap.

    Args:
        share: part of the run that was over at the start.
    """

    def __init__(self, share: float = 0.0) -> None:
        self._first_share = share
        self._total = _Tally()
        self._lap = _Tally()

    def add(self, *, seconds: float, waited: float, clips: int) -> None:
        """Counts one step: its seconds, those spent waiting for data, its clips over all processes."""
        self._total = self._total.plus(seconds, waited, clips)
        self._lap = self._lap.plus(seconds, waited, clips)

    def total(self) -> dict[str, float]:
        """Rates since the start."""
        return self._total.rates()

    def lap(self) -> dict[str, float]:
        """Rates since the last lap."""
        rates = self._lap.rates()
        self._lap = _Tally()
        return rates

    def time_left(self, share: float) -> float:
        """Seconds that the rest of the run takes at the speed so far.

        Args:
            share: part of the run that is over now.
        """
        return self._total.seconds * (1 - share) / max(share - self._first_share, 1e-9)


class _Tally(NamedTuple):
    steps: int = 0
    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def plus(self, seconds: float, waited: float, clips: int) -> _Tally:
        return _Tally(self.steps + 1, self.clips + clips, self.seconds + seconds, self.waited + waited)

    def rates(self) -> dict[str, float]:
        seconds = max(self.seconds, 1e-9)
        return {
            "steps_per_second": self.steps / seconds,
            "clips_per_second": self.clips / seconds,
            "data_wait_share": self.waited / seconds,
        }


def _writes_to_terminal(source: logging.Logger) -> bool:
    """Whether a logger's own handlers print, which would break the bar."""
    streams = [getattr(handler, "stream", None) for handler in source.handlers]
    return sys.stderr in streams or sys.stdout in streams


@contextmanager
def _logging_to(path: Path, library: logging.Logger) -> Iterator[None]:
    """Appends the library's messages to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level = library.level
    library.addHandler(handler)
    if library.getEffectiveLevel() > logging.INFO:
        library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.setLevel(level)
        library.removeHandler(handler)
        handler.close()


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: of the CUDA allocator, else of the process (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> bool:
    """Makes `peak_memory` start anew; False where the system cannot (it can on CUDA and on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: forget the largest resident size, see proc(5)
    except OSError:
        return False
    return True


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def compact(values: Mapping[str, float]) -> str:
    """Names and values on one line."""
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
