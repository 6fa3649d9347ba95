"""Scores of sequences on disk, so that scoring again after one sequence changed is immediate."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import vosssl
from vosssl.data.files import atomic_write
from vosssl.data.predictions import Predictions
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.scoring import Curve
from vosssl.metrics.score import Score

SequenceScores = list[tuple[list[Score], list[Curve]]]  # one pair per protocol
_CODE = (
    "metrics",
    "ops",
    "data",
    *(
        f"engine/{name}.py"
        for name in (
            *("scoring", "object_scoring", "object_jf_scoring", "object_frames"),
            *("sequence_scoring", "file_scoring", "categories"),
        )
    ),
)


class ScoreCache:
    """Scores by what they were made of: sizes and times of the files, protocols, and the code itself.

    Args:
        folder: where; None keeps nothing.
        predictions: what is scored.
        truth: against what.
        protocols: under which.
        resize: whether predictions may be stretched.
    """

    def __init__(
        self,
        folder: str | Path | None,
        predictions: Predictions,
        truth: Predictions,
        protocols: tuple[EvalProtocol, ...],
        *,
        resize: bool,
    ) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.predictions = predictions
        self.truth = truth
        self._rules = json.dumps(
            [[asdict(one) for one in protocols], resize, _code_version()], sort_keys=True
        )

    def load(self, sequence: str) -> SequenceScores | None:
        """What was found before; None when anything has changed since, or the entry is damaged."""
        path = self._path(sequence)
        if path is None or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            return [
                (
                    [Score(*values) for values in scores],
                    [
                        Curve(video, identity, metric, tuple(frames), tuple(values))
                        for video, identity, metric, frames, values in curves
                    ],
                )
                for scores, curves in content
            ]
        except (ValueError, TypeError):
            return None

    def save(self, sequence: str, scores: SequenceScores) -> None:
        """Keeps a sequence's scores with full precision."""
        path = self._path(sequence)
        if path is not None:
            with atomic_write(path, durable=False) as temporary:
                temporary.write_text(json.dumps(scores))

    def _path(self, sequence: str) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(self._rules.encode())
        for side in (self.truth, self.predictions):
            digest.update(repr([type(side).__name__, sequence, *_files(side, sequence)]).encode())
        for meta in _categories(self.truth.path):
            digest.update(repr(_state(meta)).encode())
        return self.folder / f"{digest.hexdigest()}.json"


def _files(side: Predictions, sequence: str) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of every file that a sequence is read from."""
    if sequence in side.sequences:
        yield from map(_state, side.sources(sequence))


def _state(path: Path) -> tuple[str, int, int]:
    status = os.stat(path)
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _categories(truth: Path) -> list[Path]:
    """Files beside the truth that say more of its objects: categories, ranges of frames."""
    return [path for folder in (truth, truth.parent) for path in sorted(folder.glob("*meta.json"))]


@cache
def _code_version() -> str:
    """A digest of the source that scores."""
    package = Path(vosssl.__file__).parent
    digest = hashlib.sha256()
    for name in _CODE:
        path = package / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    return digest.hexdigest()
