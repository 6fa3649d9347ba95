"""Label propagation with ViT-S/16: time and memory, ours beside the official DINO program, one run.

    python scripts/bench_propagation.py FRAMES MASK [--frames 20] [--official DINO] [--threads 2]
    python scripts/bench_propagation.py FRAMES MASK --size 96 --frames 5000    # memory stays flat

FRAMES is a folder of JPEGs (played again and again where it is short), MASK the label PNG of the first one
(0/255 is taken as one object), DINO a checkout of facebookresearch/dino. Every row runs in a process of its
own, with the same random weights; memory is the peak above the process with its network loaded. Equal pixels
compares label PNGs with those of the first row.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import PeakMemory, in_process
from torch import Tensor, nn

from vosssl.data.io import read_image, read_labels, write_labels
from vosssl.propagation.label_propagation import LabelPropagation, dino_propagation, fitted_side

ROWS = ("official", "ours fp32", "ours bf16")


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(json.dumps(measured(options)))
        return
    rows = [row for row in options.rows.split(",") if row != "official" or options.official]
    with tempfile.TemporaryDirectory() as folder:
        places = {row: Path(folder) / row.replace(" ", "_") for row in rows}
        for place in places.values():
            place.mkdir()
        found = {row: in_process(row, "--labels", str(place)) for row, place in places.items()}
        print(f"{options.frames} frames, shorter side {options.size}, {options.threads} threads")
        print("| | s/frame | features | propagation | rest | peak MB | equal pixels |")
        print("|---|---|---|---|---|---|---|")
        for row, numbers in found.items():
            same = agreement(places[rows[0]], places[row])
            times = [numbers[name] / options.frames for name in ("total", "features", "propagation")]
            rest = times[0] - times[1] - times[2]
            cells = " | ".join(f"{value:.3f}" for value in (*times, rest))
            print(f"| {row} | {cells} | {numbers['peak_mb']:.0f} | {same:.4f} |")


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Seconds in all, of features and of propagation, and the peak memory of one row."""
    clock: dict[str, float] = {"features": 0.0, "propagation": 0.0}
    run = official_run(options, clock) if options.row == "official" else our_run(options, clock)
    peak = PeakMemory()
    start = time.perf_counter()
    run()
    return {"total": time.perf_counter() - start, "peak_mb": peak.megabytes, **clock}


def our_run(options: argparse.Namespace, clock: dict[str, float]) -> Callable[[], None]:
    """Ours: frames through `step`, label PNGs out."""
    from vosssl.backbones.vit import dino

    network = dino(patch_size=16).eval()
    network.load_state_dict(random_weights(network))
    segmenter = dino_propagation(network, size=options.size, precision=options.row.split()[-1])
    segmenter.features = timed(segmenter.features, clock, "features")  # type: ignore[method-assign]
    module = importlib.import_module(LabelPropagation.__module__)
    module.propagate = timed(module.propagate, clock, "propagation")  # type: ignore[attr-defined]

    def run() -> None:
        mask: Tensor | None = first_mask(options.mask)
        for number, path in enumerate(frames_of(options)):
            labels = segmenter.step(read_image(path), mask)
            write_labels(Path(options.labels) / f"{number % 100:05d}.png", labels)
            mask = None

    return run


def official_run(options: argparse.Namespace, clock: dict[str, float]) -> Callable[[], None]:
    """The official evaluation function; its device moves are made to do nothing."""
    torch.Tensor.cuda = lambda self, **_: self  # type: ignore[assignment,method-assign]
    nn.Module.cuda = lambda self, **_: self  # type: ignore[assignment,method-assign]
    sys.path.insert(0, options.official)
    program: Any = importlib.import_module("eval_video_segmentation")
    network = importlib.import_module("vision_transformer").vit_small(patch_size=16, num_classes=0).eval()
    network.load_state_dict(random_weights(network))
    program.args = argparse.Namespace(
        n_last_frames=7, size_mask_neighborhood=12, topk=5, patch_size=16, output_dir=options.labels
    )
    program.extract_feature = timed(program.extract_feature, clock, "features")
    whole = timed(program.label_propagation, clock, "whole")
    program.label_propagation = whole
    read = program.read_frame
    program.read_frame = lambda path: read(path, scale_size=[options.size])
    paths = [str(path) for path in frames_of(options)]
    labels = first_mask(options.mask)
    height, width = fitted_side((labels.shape[0], labels.shape[1]), options.size, fit="dino", multiple=16)

    def run() -> None:
        from vosssl.ops.resize import resize_labels

        small = resize_labels(labels, (height // 16, width // 16)).float()[None]
        palette = torch.arange(768, dtype=torch.uint8).numpy()
        first = program.to_one_hot(small)
        with torch.no_grad():
            program.eval_video_tracking_davis(
                program.args, network, paths, "", first, labels.numpy(), palette
            )
        clock["propagation"] = clock.pop("whole") - clock["features"] * (len(paths) - 1) / len(paths)

    return run


def timed(function: Callable[..., Any], clock: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, adding its seconds to a clock."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **named)
        clock[name] = clock.get(name, 0.0) + time.perf_counter() - start
        return result

    return wrapped


def random_weights(network: nn.Module) -> dict[str, Tensor]:
    """The same weights for any network with the same names."""
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    return {name: 0.05 * torch.randn(state[name].shape, generator=generator) for name in sorted(state)}


def frames_of(options: argparse.Namespace) -> Iterator[Path]:
    """As many frames as wanted; a short video is played again and again."""
    paths = sorted(Path(options.folder).glob("*.jpg"))
    return (paths[number % len(paths)] for number in range(options.frames))


def first_mask(path: str) -> Tensor:
    """(H, W) ids of the first frame."""
    labels = read_labels(path)
    return (labels > 0).byte() if set(labels.unique().tolist()) <= {0, 255} else labels


def agreement(first: Path, other: Path) -> float:
    """Share of equal pixels in the label PNGs that both wrote under one name."""
    ours = {path.name: path for path in sorted(other.rglob("*.png"))}
    theirs = {path.name: path for path in sorted(first.rglob("*.png"))}
    pairs = zip(sorted(theirs.values()), sorted(ours.values()), strict=False)
    equal = [(read_labels(one) == read_labels(two)).float().mean().item() for one, two in pairs]
    return sum(equal) / len(equal)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", help="JPEG frames")
    made.add_argument("mask", help="label PNG of the first frame")
    made.add_argument("--frames", type=int, default=20)
    made.add_argument("--size", type=int, default=480, help="shorter side")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--official", help="checkout of facebookresearch/dino")
    made.add_argument("--rows", default=",".join(ROWS))
    made.add_argument("--row", help=argparse.SUPPRESS)
    made.add_argument("--labels", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()
