"""Slots meet propagation: J and F of following given masks, and of finding objects, by kind of video.

    python scripts/bench_slot_propagation.py CHECKPOINT [--davis ROOT] [--clips 64] [--frames 24]

CHECKPOINT is one of hparam=slots, ROOT a DAVIS-2016 folder (JPEGImages/480p, Annotations/480p), of which
every sequence that has labels is used. The generated clips are held out; in the second kind all objects of a
clip look the same. Lock-on rows leave out the first and the last frame (DAVIS rules); discovery rows score
all frames, objects matched to segments.

The last columns: the difference to the row that is marked, its 95 % bootstrap interval over videos (both rows
meet the same drawn videos), and whether that interval leaves out zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vosssl.data.synthetic import SyntheticClips
from vosssl.data.video import Video, clip_video, open_video
from vosssl.engine.evaluator import evaluate_discovery, evaluate_lock_on
from vosssl.engine.protocol import LOCK_ON
from vosssl.engine.report import Report
from vosssl.engine.significance import composed_difference
from vosssl.modes.build import create_segmenter


@dataclass(frozen=True)
class Row:
    """A line of a table: a model with options, and the row that it is compared with."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


LOCK_ON_ROWS = {
    "propagation": Row("slots-gated-propagation", {"gate_strength": 0.0}),
    "gated, half strength": Row("slots-gated-propagation", {"gate_strength": 0.5}, "propagation"),
    "gated, full strength": Row("slots-gated-propagation", {"gate_strength": 1.0}, "propagation"),
    "slots, locked on": Row("slots-synthetic", against="propagation"),
    "first mask copied": Row("copy-first-mask", against="propagation"),
}
DISCOVERY_ROWS = {
    "slots": Row("slots-synthetic"),
    "discover and track": Row("slots-discover-and-track", against="slots"),
}
COLUMNS = ("J", "F", "J&F")
DISCOVERY_COLUMNS = (*COLUMNS, "video/mbo", "video/ari", "video/fg_ari")


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    synthetic = partial(clips, count=options.clips, frames=options.frames)
    kinds: dict[str, Callable[[], list[Video]]] = {}
    if options.clips:
        kinds["generated clips"] = synthetic
        kinds["generated clips, objects alike"] = partial(synthetic, alike=True)
    if options.davis is not None:
        kinds["DAVIS-2016"] = partial(sequences, options.davis)
    for name, videos_of in kinds.items():
        videos = videos_of()
        frames = sum(len(video) for video in videos)
        print(f"\n{name}: {len(videos)} videos, {frames} frames\n")
        protocol = "davis16-val" if name.startswith("DAVIS") else LOCK_ON
        if options.task in ("both", "lock_on"):
            follow = partial(evaluate_lock_on, protocol=protocol, progress=False)
            table(LOCK_ON_ROWS, partial(measured, follow, videos, options), COLUMNS, compared=("J&F",))
        if options.task in ("both", "discovery"):
            find = partial(measured, partial(evaluate_discovery, progress=False), videos, options)
            table(DISCOVERY_ROWS, find, DISCOVERY_COLUMNS, compared=("J&F", "video/mbo"))


def measured(
    measure: Callable[..., Report], videos: list[Video], options: argparse.Namespace, row: Row
) -> Report:
    """The scores of a row."""
    weights = None if row.model == "copy-first-mask" else options.checkpoint
    settings = dict(row.options)
    if row.model == "slots-gated-propagation":
        settings |= {"size": options.size, "radius": options.radius, "multiple": 8}
    return measure(create_segmenter(row.model, weights=weights, device=options.device, **settings), videos)


def table(
    rows: dict[str, Row], measure: Callable[[Row], Report], columns: Sequence[str], *, compared: Sequence[str]
) -> None:
    """Prints, as they are measured, means and differences to the row that each is compared with."""
    heads = ["", *columns, *(f"{column}: difference [95 %]" for column in compared), "frames/s"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    reports: dict[str, Report] = {}
    for label, row in rows.items():
        report = reports[label] = measure(row)
        cells = [label, *(f"{report.mean(column):.3f}" for column in columns)]
        for column in compared:
            cells.append("" if row.against is None else gain(reports[row.against], report, column))
        cells.append(f"{report.facts['frames_per_second']:.0f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def gain(before: Report, after: Report, column: str) -> str:
    """What the second report has more, with its interval over videos; bold where that leaves out zero."""
    found = composed_difference(before.measured(column), after.measured(column))
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return f"**{text}**" if found.clear else text


def clips(*, count: int, frames: int, alike: bool = False) -> list[Video]:
    """Held-out generated clips of 3 to 5 objects."""
    made = SyntheticClips(split="val", count=count, frames=frames, objects=(3, 5), alike=alike, flow=False)
    return [clip_video(clip) for clip in made.clips()]


def sequences(root: Path) -> list[Video]:
    """The sequences below a DAVIS-2016 folder."""
    folders = sorted(path for path in (root / "JPEGImages" / "480p").iterdir() if path.is_dir())
    videos = [open_video(folder, binary=True) for folder in folders]
    return [video for video in videos if video.labelled is not None]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkpoint")
    made.add_argument("--davis", type=Path)
    made.add_argument("--clips", type=int, default=64, help="0 leaves generated clips out")
    made.add_argument("--frames", type=int, default=24)
    made.add_argument("--size", type=int, default=64, help="shorter side of propagation's frames")
    made.add_argument("--radius", type=float, default=12, help="of its window, in patches")
    made.add_argument("--task", choices=("both", "lock_on", "discovery"), default="both")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--device", default="cpu")
    return made


if __name__ == "__main__":
    main()
