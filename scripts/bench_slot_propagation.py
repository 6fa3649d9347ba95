"""Slots meet propagation: J and F of following given masks, and of finding objects, by kind of video.

    python scripts/bench_slot_propagation.py CHECKPOINT [--davis ROOT] [--clips 32] [--frames 24]

CHECKPOINT is one of hparam=slots, ROOT a DAVIS-2016 folder (JPEGImages/480p, Annotations/480p), of which
every sequence that has labels is used. The generated clips are held out; in the second kind all objects of a
clip look the same. Lock-on rows leave out the first and the last frame (DAVIS rules); discovery rows score
all frames, objects matched to segments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vosssl.data.synthetic import SyntheticClips
from vosssl.data.video import Video, clip_video, open_video
from vosssl.engine.evaluator import evaluate_discovery, evaluate_lock_on
from vosssl.engine.protocol import LOCK_ON
from vosssl.engine.report import Report
from vosssl.modes.build import create_segmenter

LOCK_ON_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "copy first mask": ("copy-first-mask", {}),
    "slots, locked on": ("slots-synthetic", {}),
    "propagation": ("slots-gated-propagation", {"gate_strength": 0.0}),
    "gated propagation": ("slots-gated-propagation", {}),
    "gated propagation, full strength": ("slots-gated-propagation", {"gate_strength": 1.0}),
}
DISCOVERY_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "slots": ("slots-synthetic", {}),
    "discover and track": ("slots-discover-and-track", {}),
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
            table(LOCK_ON_ROWS, COLUMNS, follow, videos, options)
        if options.task in ("both", "discovery"):
            find = partial(evaluate_discovery, progress=False)
            table(DISCOVERY_ROWS, DISCOVERY_COLUMNS, find, videos, options)


def table(
    rows: dict[str, tuple[str, dict[str, Any]]],
    columns: Sequence[str],
    measure: Callable[..., Report],
    videos: list[Video],
    options: argparse.Namespace,
) -> None:
    """Prints rows as they are measured."""
    print(
        f"| {'given masks' if columns == COLUMNS else 'nothing given'} | {' | '.join(columns)} | frames/s |"
    )
    print("|---" * (len(columns) + 2) + "|")
    for label, (model, settings) in rows.items():
        weights = None if model == "copy-first-mask" else options.checkpoint
        segmenter = create_segmenter(model, weights=weights, device=options.device, **settings)
        report = measure(segmenter, videos)
        values = " | ".join(f"{report.mean(column):.3f}" for column in columns)
        print(f"| {label} | {values} | {report.facts['frames_per_second']:.0f} |", flush=True)
    print()


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
    made.add_argument("--clips", type=int, default=32, help="0 leaves generated clips out")
    made.add_argument("--frames", type=int, default=24)
    made.add_argument("--task", choices=("both", "lock_on", "discovery"), default="both")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--device", default="cpu")
    return made


if __name__ == "__main__":
    main()
