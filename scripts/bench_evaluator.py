"""Times the evaluator from PNG files to numbers, beside the official tools where their code is at hand.

    python scripts/bench_evaluator.py PREDICTIONS TRUTH
    python scripts/bench_evaluator.py PREDICTIONS TRUTH --official FOLDER --vos-benchmark FOLDER

Frame pairs per second of CPU time and of wall time, the median of several runs that take turns; start-up
(imports) is not in them. Every tool reads the same files: truth and predictions are merged to one object, or
cut into bands as several, and written as palette PNGs. `decode only` reads the same files, nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vosssl.data.io import read_labels, write_labels
from vosssl.engine.file_scoring import evaluate, open_truth


def main() -> None:
    """Prints a table per number of objects."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("predictions", type=Path)
    made.add_argument("truth", type=Path)
    made.add_argument("--official", type=Path, help="a checkout of davisvideochallenge/davis2017-evaluation")
    made.add_argument("--vos-benchmark", type=Path, help="a checkout of hkchengrex/vos-benchmark")
    made.add_argument("--pairs", type=int, default=2000, help="at least so many frame pairs")
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--objects", type=int, nargs="+", default=[1, 5])
    options = made.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for objects in options.objects:
        with tempfile.TemporaryDirectory() as folder:
            frames = prepare(Path(folder), options, objects)
            tools = available(Path(folder), options)
            print(f"\n{objects} object{'s' * (objects > 1)}, {frames} scored frame pairs", flush=True)
            print(table(tools, frames, runs=options.runs), flush=True)


def prepare(folder: Path, options: argparse.Namespace, objects: int) -> int:
    """Writes a DAVIS-like dataset of as many sequences as are needed; returns the number of scored pairs."""
    truth = open_truth(options.truth)
    names = sorted(path.name for path in options.predictions.iterdir() if path.name in truth.sequences)
    scored = 0
    sequences: list[str] = []
    while scored < options.pairs:
        for name in names:
            copy = f"{name}-{len(sequences):03d}"
            for kind in ("gt/Annotations/480p", "pred"):
                target = folder / kind / copy
                target.mkdir(parents=True)
                for frame in truth.frames(name):
                    source = folder / "once" / kind / name / f"{frame}.png"
                    if not source.is_file():
                        labels = truth.labels(name, frame).clamp(max=1)
                        if kind == "pred":
                            labels = read_labels(options.predictions / name / f"{frame}.png").clamp(max=1)
                        write_labels(source, labels * bands(truth.labels(name, frame), objects))
                    os.link(source, target / f"{frame}.png")
            sequences.append(copy)
            scored += len(truth.frames(name)) - 2
            (folder / "gt/JPEGImages/480p" / copy).mkdir(parents=True)
            for frame in truth.frames(name):
                (folder / "gt/JPEGImages/480p" / copy / f"{frame}.jpg").touch()
    (folder / "gt/ImageSets/2017").mkdir(parents=True)
    (folder / "gt/ImageSets/2017/val.txt").write_text("\n".join(sequences) + "\n")
    return scored


def bands(truth: Tensor, objects: int) -> Tensor:
    """(W,) uint8 ids that cut the true object into vertical bands of the same width."""
    columns = truth.amax(dim=0).nonzero().flatten()
    left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, truth.shape[1])
    place = (torch.arange(truth.shape[1]) - left) * objects // (right - left)
    return (place.clamp(0, objects - 1) + 1).byte()


def available(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Name of each tool that is here -> a function that scores everything."""
    pred, gt = folder / "pred", folder / "gt"
    protocol = "davis17-val"
    tools: dict[str, Callable[[], object]] = {
        "decode only (Pillow)": lambda: decode(folder),
        "ours, 1 worker": lambda: evaluate(pred, gt, protocol),
        "ours, 2 workers": lambda: evaluate(pred, gt, protocol, workers=2),
    }
    if options.official:
        sys.path.insert(0, str(options.official))
        from davis2017.evaluation import DAVISEvaluation  # type: ignore[import-not-found]

        tools["davis2017-evaluation"] = lambda: DAVISEvaluation(
            davis_root=str(gt), task="semi-supervised", gt_set="val"
        ).evaluate(str(pred))
    if options.vos_benchmark:
        sys.path.insert(0, str(options.vos_benchmark))
        from vos_benchmark.benchmark import benchmark  # type: ignore[import-not-found]

        roots = [str(gt / "Annotations/480p")], [str(pred)]
        for workers in (1, 2):
            tools[f"vos-benchmark, {workers} worker{'s' * (workers > 1)}"] = partial(
                benchmark, *roots, strict=False, num_processes=workers, verbose=False
            )
    return tools


def decode(folder: Path) -> None:
    """Inflates every file."""
    for path in [*folder.glob("pred/*/*.png"), *folder.glob("gt/Annotations/480p/*/*.png")]:
        with Image.open(path) as image:
            np.asarray(image)


def table(tools: dict[str, Callable[[], object]], frames: int, *, runs: int) -> str:
    """A line per tool: pairs per CPU second and per second, medians."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in tools}
    for _ in range(runs):
        for name, score in tools.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                score()
            rates[name].append((frames / (cpu_seconds() - cpu), frames / (time.perf_counter() - wall)))
    width = max(map(len, rates))
    lines = [f"{'':{width}}  pairs/CPU s (best)  pairs/s"]
    for name, values in rates.items():
        cpu, wall = (statistics.median(column) for column in zip(*values, strict=True))
        lines.append(f"{name:{width}}  {cpu:8.1f} ({max(values)[0]:6.1f})  {wall:7.1f}")
    return "\n".join(lines)


def cpu_seconds() -> float:
    """CPU time of this process and of the processes that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
