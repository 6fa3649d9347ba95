"""Which features slots should stand on: slots over each, beside k-means on the same features.

    python scripts/bench_slot_features.py RUN/last.ckpt [RUN/last.ckpt …] [--clips 48]

Each is a run of hparam=slots_features. The clips are held out: 128 px, 8 frames, 3 to 8 objects. k-means has
as many clusters as there are slots, is fitted on all frames of the clip at once, and sees what the slots are
asked to reconstruct. The last columns: slots against the k-means of their row, and against the first run's
slots, with 95 % bootstrap intervals over clips; bold where they leave out zero.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from vosssl.data.synthetic import SyntheticClips
from vosssl.engine.evaluator import evaluate_discovery
from vosssl.engine.report import Report
from vosssl.engine.significance import composed_difference
from vosssl.methods.floors import feature_kmeans_floor
from vosssl.modes.build import create_segmenter
from vosssl.modes.config import saved_config

COLUMNS = ("video/fg_ari", "video/ari", "video/mbo")
COMPARED = "video/mbo"


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    videos = list(SyntheticClips(split="val", size=128, frames=8, count=options.clips).videos())
    heads = ["features", *COLUMNS, *(f"k-means {name}" for name in COLUMNS), "to k-means", "to the first"]
    print(f"{len(videos)} clips\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    first: Report | None = None
    for path in options.checkpoints:
        saved = saved_config(path)
        tracker = create_segmenter(saved["method"]["name"], weights=path, device=options.device)
        name = saved["exp_name"] or saved["method"]["name"]
        network: Any = getattr(tracker, "network")  # noqa: B009  (of the slots' segmenter alone)
        slots = evaluate_discovery(tracker, videos, progress=False)
        floor = feature_kmeans_floor(
            network.encode, clusters=network.num_slots, size=tracker.size, device=options.device
        )
        clusters = evaluate_discovery(floor, videos, progress=False)
        cells = [name, *(f"{report.mean(column):.3f}" for report in (slots, clusters) for column in COLUMNS)]
        cells += [gain(clusters, slots), "" if first is None else gain(first, slots)]
        print(f"| {' | '.join(cells)} |", flush=True)
        first = first or slots


def gain(before: Report, after: Report) -> str:
    """What the second report has more of mBO, with its interval over clips."""
    found = composed_difference(before.measured(COMPARED), after.measured(COMPARED))
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return f"**{text}**" if found.clear else text


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkpoints", nargs="+")
    made.add_argument("--clips", type=int, default=48)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--device", default="cpu")
    return made


if __name__ == "__main__":
    main()
