"""SAM 2 on images and videos: time, memory and equal pixels, ours beside the official program, one run.

    python scripts/bench_sam2.py [--sizes 256,512,1024] [--objects 0,1,3,8] [--official CHECKOUT]
    python scripts/bench_sam2.py --sizes 64 --objects 3 --frames 1000 --budget 16  # flat memory
    python scripts/bench_sam2.py --sizes 512 --objects 8 --frames 9 --profile

CHECKOUT is of facebookresearch/sam2. Frames are smooth noise that drifts, stored as a folder of images;
weights are random and the same for both, and every object is there in every frame. Every row runs in a
process of its own, one after the other. 0 objects are the image encoder alone: one frame, median of
--repeats. Otherwise objects are given as masks in frame 0 and followed: wall and CPU seconds (all threads)
per frame, from image files to masks of the video's size, opening and prompts included. Peak MB is what the
process needs above its network loaded. Equal pixels compares all masks with those of the first row.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measuring import PeakMemory, cpu_seconds, in_process, random_weights
from PIL import Image
from torch import Tensor, nn

import vosssl
from vosssl.data.video import open_video
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.session import SAM2Session

COMPARED = 60  # frames of a video whose masks are compared
CONFIGS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(json.dumps(measured(options)))
        return
    print(f"{options.model}, {options.frames} frames of {options.video}, {options.threads} threads")
    print("| size | what | program | wall s | CPU s | peak MB | equal pixels |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_frames(options, Path(folder))
        for size in options.sizes.split(","):
            for objects in options.objects.split(","):
                compare(options, size, objects, Path(folder))


def compare(options: argparse.Namespace, size: str, objects: str, folder: Path) -> None:
    """Rows of one table: all programs on one task; 0 objects are the image encoder alone."""
    rows = options.rows.split(",") if options.official else ["ours"]
    for row in rows:
        numbers = in_process(row, "--sizes", size, "--objects", objects, "--folder", str(folder))
        masks, first = (np.load(folder / f"{name}.npy") for name in (row, rows[0]))
        same = f"{(masks == first).mean():.5f}" if masks.size else ""
        what = f"{objects} objects" if int(objects) else "image encoder"
        times = f"{numbers['wall']:.3f} | {numbers['cpu']:.3f}"
        print(f"| {size} | {what} | {row} | {times} | {numbers['peak_mb']:.0f} | {same} |", flush=True)


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Seconds and the peak memory of one row; its masks go to a file."""
    network: Any = vosssl.create_model(options.model)
    state = random_weights(network)
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 5  # the object is there
    network.load_state_dict(state)
    program = network.eval() if options.row == "ours" else official(options, network)
    del network, state
    peak = PeakMemory()
    with torch.profiler.profile() if options.profile else nullcontext() as profile:
        found = encoder(options, program) if options.objects == "0" else video(options, program)
    if profile is not None:
        print(
            profile.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=22, max_name_column_width=40
            )
        )
    return {**found, "peak_mb": peak.megabytes}


def encoder(options: argparse.Namespace, program: Any) -> dict[str, float]:
    """One frame through the image encoder; the first call warms up."""
    side, times = int(options.sizes), []
    image = F.interpolate(frame(0, 96, 96)[None], (side, side), mode="bilinear")
    for _ in range(options.repeats + 1):
        wall, cpu = time.perf_counter(), cpu_seconds()
        with torch.inference_mode():
            program.encode_image(image) if isinstance(program, SAM2) else program.forward_image(image)
        times.append((time.perf_counter() - wall, cpu_seconds() - cpu))
    np.save(Path(options.folder) / f"{options.row}.npy", np.zeros(0))
    walls, cpus = zip(*times[1:], strict=True)
    return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def video(options: argparse.Namespace, program: Any) -> dict[str, float]:
    """Objects through a video, from its files to masks at its size."""
    kept = []
    wall, cpu = time.perf_counter(), cpu_seconds()
    for number, logits in enumerate((ours if isinstance(program, SAM2) else theirs)(options, program)):
        if number < COMPARED:
            kept.append(np.packbits((logits > 0).numpy()))
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    assert number == options.frames - 1
    np.save(Path(options.folder) / f"{options.row}.npy", np.stack(kept))
    return {"wall": wall / options.frames, "cpu": cpu / options.frames}


def ours(options: argparse.Namespace, network: SAM2) -> Iterator[Tensor]:
    """Logits of all objects, frame by frame."""
    session = SAM2Session(
        network,
        open_video(options.folder),
        image_size=int(options.sizes),
        memory_budget_mb=options.budget,
    )
    for identity, mask in given(options).items():
        session.add_prompt(0, identity, mask=mask)
    for masks in session.propagate():
        yield masks.logits


def theirs(options: argparse.Namespace, predictor: Any) -> Iterator[Tensor]:
    """Likewise, by the official predictor."""
    state = predictor.init_state(options.folder)
    for identity, mask in given(options).items():
        predictor.add_new_mask(state, 0, identity, mask)
    for _, _, logits in predictor.propagate_in_video(state):
        yield logits[:, 0]


def given(options: argparse.Namespace) -> dict[int, Tensor]:
    """Masks in frame 0, by id."""
    height, width = (int(side) for side in options.video.split("x"))
    labels = boxes(int(options.objects), height, width)
    return {identity: labels == identity for identity in range(1, int(options.objects) + 1)}


def official(options: argparse.Namespace, network: nn.Module) -> Any:
    """The official predictor with the same weights, on the CPU."""
    sys.path.insert(0, options.official)
    stub: Any = types.ModuleType("iopath.common.file_io")  # only opens files of weights that are not wanted
    stub.g_pathmgr = None
    sys.modules.setdefault("iopath", types.ModuleType("iopath"))
    sys.modules.setdefault("iopath.common", types.ModuleType("iopath.common"))
    sys.modules.setdefault("iopath.common.file_io", stub)
    from sam2.build_sam import build_sam2_video_predictor  # type: ignore[import-not-found]

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # holes are filled on GPUs only, as each frame says
    version, size = options.model.removeprefix("sam").split("-hiera-")
    predictor = build_sam2_video_predictor(
        f"configs/sam{version}/sam{version}_hiera_{CONFIGS[size]}.yaml",
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={options.sizes}"],
    )
    predictor.load_state_dict(network.state_dict())
    return predictor


def write_frames(options: argparse.Namespace, folder: Path) -> None:
    """Frames as files; the official program wants this suffix, and reads any format behind it."""
    height, width = (int(side) for side in options.video.split("x"))
    for number in range(options.frames):
        pixels = (frame(number, height, width) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=95)


def frame(number: int, height: int, width: int) -> Tensor:
    """(3, H, W) smooth noise that drifts, with a sharper pattern in it."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 3, 24, 24, generator=generator).roll(number // 8, dims=3)
    image = F.interpolate(coarse, size=(height, width), mode="bicubic")[0].sigmoid()
    return image.roll(number, dims=2)


def boxes(objects: int, height: int, width: int) -> Tensor:
    """(H, W) ids of boxes in two rows."""
    labels = torch.zeros(height, width, dtype=torch.uint8)
    columns = math.ceil(objects / 2)
    for number in range(objects):
        row, column = divmod(number, columns)
        top, left = (row * 4 + 1) * height // 10, (column * 4 + 1) * width // (4 * columns + 1)
        labels[top : top + 3 * height // 10, left : left + 3 * width // (4 * columns + 1)] = number + 1
    return labels


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="sam2.1-hiera-tiny")
    made.add_argument("--sizes", default="256,512,1024", help="sides of the square that the network sees")
    made.add_argument("--objects", default="0,1,3,8", help="0: the image encoder alone")
    made.add_argument("--frames", type=int, default=10)
    made.add_argument("--repeats", type=int, default=3, help="of the image encoder")
    made.add_argument("--video", default="480x854", help="height and width of its frames")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--official", help="checkout of facebookresearch/sam2")
    made.add_argument("--budget", type=float, default=1024.0, help="MB of memories that ours keeps")
    made.add_argument("--rows", default="official,ours")
    made.add_argument("--profile", action="store_true", help="where the time goes")
    made.add_argument("--row", help=argparse.SUPPRESS)
    made.add_argument("--folder", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()
