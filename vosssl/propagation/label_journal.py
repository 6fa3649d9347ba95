"""Label maps of a video on disk, every change of which can be taken back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vosssl.data.io import read_labels, write_labels

STATES = 4  # entries whose segmenter is kept whole: the others start anew from their prompts


@dataclass
class Entry:
    """One thing that somebody did.

    Attributes:
        name: what it was, in words.
        known: everything that is not a file, as it was before; whoever begins an entry knows what it is.
        folder: holds the files that were replaced since.
        frames: the frames whose files were replaced or made.
    """

    name: str
    known: Any
    folder: Path
    frames: set[int] = field(default_factory=set)


class LabelJournal:
    """The label PNGs of one video in a folder, with undo: what a change replaces is kept aside.

    Args:
        folder: of the label images.
        aside: of what was replaced; emptied.
        name: from the number of a frame to its name.
        levels: changes that can be taken back.
    """

    def __init__(self, folder: Path, *, aside: Path, name: Callable[[int], str], levels: int = 30) -> None:
        if levels < 1:
            raise ValueError(f"undo levels are {levels}, expected at least 1")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder = folder
        self.aside = aside
        self.name = name
        self.levels = levels
        self.entries: list[Entry] = []
        self._count = 0

    def file(self, frame: int) -> Path:
        """Where a frame's labels are, or would be."""
        return self.folder / f"{self.name(frame)}.png"

    def has(self, frame: int) -> bool:
        """Whether a frame has labels."""
        return self.file(frame).is_file()

    def read(self, frame: int) -> Tensor | None:
        """(H, W) uint8 ids, or None."""
        return read_labels(self.file(frame)) if self.has(frame) else None

    def write(self, frame: int, labels: Tensor) -> None:
        """Replaces a frame's labels; what was there goes to the last entry."""
        if self.entries and frame not in self.entries[-1].frames:
            entry = self.entries[-1]
            if self.has(frame):
                shutil.copyfile(self.file(frame), entry.folder / f"{frame}.png")
            entry.frames.add(frame)
        write_labels(self.file(frame), labels)

    def begin(self, name: str, known: Any, *, state: dict[str, Any] | None = None) -> None:
        """From now on changes belong to a new entry.

        Args:
            name: what is done, in words.
            known: comes back with `revert`.
            state: of a segmenter, tensors and plain values; it goes to a file.
        """
        folder = self.aside / f"{self._count:06d}"
        folder.mkdir(parents=True)
        self._count += 1
        if state is not None:
            torch.save(state, folder / "state.pt")
        self.entries.append(Entry(name, known, folder))
        if len(self.entries) > STATES:
            (self.entries[-1 - STATES].folder / "state.pt").unlink(missing_ok=True)
        while len(self.entries) > self.levels:
            shutil.rmtree(self.entries.pop(0).folder)

    def drop_last(self) -> None:
        """Forgets the last entry, which changed nothing."""
        shutil.rmtree(self.entries.pop().folder)

    def revert(self) -> tuple[Entry, dict[str, Any] | None]:
        """Takes back the last entry.

        Returns:
            The entry, and the state that `begin` was given, where it is kept.
        """
        entry = self.entries.pop()
        for frame in entry.frames:
            before = entry.folder / f"{frame}.png"
            if before.is_file():
                os.replace(before, self.file(frame))
            else:
                self.file(frame).unlink(missing_ok=True)
        stored = entry.folder / "state.pt"
        state = torch.load(stored, weights_only=True) if stored.is_file() else None
        shutil.rmtree(entry.folder)
        return entry, state
