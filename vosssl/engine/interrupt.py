"""Ctrl-C and SIGTERM as a request: finish the step, save, say how to go on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class TrainingStoppedError(RuntimeError):
    """Training was asked to stop; its state is saved.

    Attributes:
        step: optimiser steps taken.
        checkpoint: the file to resume from.
        signal_name: SIGINT or SIGTERM.
    """

    def __init__(self, step: int, checkpoint: Path, signal_name: str) -> None:
        super().__init__(
            f"training stopped by {signal_name} after step {step}; saved {checkpoint}. "
            f"To go on, repeat the command with resume={checkpoint}"
        )
        self.step = step
        self.checkpoint = checkpoint
        self.signal_name = signal_name


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is only noted, and a second SIGINT aborts at once.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        signal_name: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = self.signal_name or signal.Signals(number).name

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
