"""What benchmarks share: rows in processes of their own, random weights, CPU seconds, peak memory."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn


def in_process(row: str, *arguments: str) -> dict[str, float]:
    """Runs one row of the calling script in a process of its own and returns what it measured.

    Args:
        row: `--row` of that process, which prints its numbers as one line of JSON, last.
        arguments: others, behind those of this process.
    """
    command = [sys.executable, sys.argv[0], *sys.argv[1:], *arguments, "--row", row]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row} failed:\n{done.stderr}")
    *profile, last = done.stdout.splitlines()
    print("\n".join(profile), end="\n" if profile else "")
    numbers: dict[str, float] = json.loads(last)
    return numbers


def random_weights(network: nn.Module) -> dict[str, Tensor]:
    """The same weights for any network with the same names, of a size that saturates nothing."""
    generator = torch.Generator().manual_seed(0)
    state = dict(network.state_dict())
    for name in sorted(state):
        like = state[name]
        if not like.is_floating_point() or name.endswith("inv_freq"):
            continue
        values = torch.randn(like.shape, generator=generator)
        if like.ndim > 1:
            values /= math.sqrt(like[0].numel())
        elif name.endswith("running_var"):
            values = 1 + 0.1 * values.abs()
        else:
            values = 0.1 * values + (1 if name.endswith("weight") else 0)
        state[name] = values
    return state


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class PeakMemory:
    """Most memory that the process has held since this was made, above what it held then; on Linux."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading left behind would hide what is used now
        self._idle = _status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here

    @property
    def megabytes(self) -> float:
        """Of 2**20 bytes."""
        return _status_mb("VmHWM") - self._idle


def _status_mb(field: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
