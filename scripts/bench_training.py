"""Times one training step of VideoSAUR (ViT-S/16, 224 px, 2 clips of 4 frames), variants in one process.

    python scripts/bench_training.py                    # float32, bfloat16, cached features; the generator
    python scripts/bench_training.py --beside other.py  # and what `make_step(frames) -> callable` gives there

Variants take turns, so that a busy machine slows all of them alike; the median of several rounds is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.data.sampling import Draw
from vosssl.data.synthetic import SyntheticClips
from vosssl.methods.videosaur import Objective, VideoSAUR
from vosssl.modes.build import create_model
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD

CLIPS, FRAMES, SIDE, PATCH = 2, 4, 224, 16


def training_step(
    batch: Batch,
    *,
    precision: Literal["fp32", "bf16"],
    cached: bool = False,
    mixed: bool = False,
    device: torch.device,
) -> Callable[[], None]:
    """Our training step: forward, backward, clipping, Adam.

    Args:
        batch: the clips.
        precision: of the frozen backbone.
        cached: whether the backbone's features were computed before.
        mixed: bfloat16 autocast for the trained parts too, as with `train.precision=bf16`.
        device: where to run.
    """
    network = VideoSAUR(
        backbone=create_model("dino-vits16"),
        features_dim=384,
        grid=(SIDE // PATCH, SIDE // PATCH),
        backbone_precision=precision,
    ).to(device)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-4)
    objective = Objective()
    batch = batch.to(device)
    if cached:
        with torch.no_grad():
            encoded = network.encode(batch.frames.flatten(0, 1))
        shape = (CLIPS, FRAMES)
        parts = {"features": encoded.features, "keys": encoded.keys}
        features = {name: part.unflatten(0, shape) for name, part in parts.items() if part is not None}
        batch = Batch(batch.frames, names=batch.names, seeds=batch.seeds, features=features)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
            loss = torch.stack(list(objective(network, batch, 0).values())).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 0.05)
        optimizer.step()

    return step


def normalised(frames: Tensor) -> Tensor:
    """(…, 3, H, W) uint8 to what an ImageNet backbone reads, for code that does not normalise by itself."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames.float() / 255 - mean) / std


def beside(path: Path, frames: Tensor) -> Callable[[], None]:
    """`make_step(frames (B, T, 3, H, W) normalised) -> callable` of another file."""
    spec = importlib.util.spec_from_file_location("beside", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_step(normalised(frames))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beside", type=Path, help="a Python file with make_step(frames)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    frames = torch.stack(
        [clip.frames for clip in SyntheticClips(size=SIDE, frames=FRAMES, count=CLIPS).clips()]
    )
    batch = Batch(frames, names=("a", "b"), seeds=torch.arange(CLIPS))

    steps = {
        "float32": training_step(batch, precision="fp32", device=device),
        "bfloat16 backbone": training_step(batch, precision="bf16", device=device),
        "bfloat16 all": training_step(batch, precision="bf16", mixed=True, device=device),
        "cached": training_step(batch, precision="fp32", cached=True, device=device),
        "cached, bfloat16": training_step(batch, precision="fp32", cached=True, mixed=True, device=device),
    }
    if options.beside:
        steps = {options.beside.stem: beside(options.beside, frames), **steps}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 2):
        for name, step in steps.items():
            spent = seconds(step, device)
            if turn >= 2:  # two rounds to warm up
                times[name].append(spent)

    first = statistics.median(next(iter(times.values())))
    print(
        f"training step, {CLIPS} clips of {FRAMES} frames at {SIDE} px, {options.threads} threads, {device}"
    )
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<20}{1000 * median:9.1f} ms{CLIPS / median:9.2f} clips/s{first / median:8.2f} x")

    for side, length, count in ((64, 8, 64), (SIDE, FRAMES, 8)):
        make = SyntheticClips(size=side, frames=length).__getitems__
        call = partial(make, [Draw(index, 0) for index in range(count)])
        spent = statistics.median(seconds(call, device) for _ in range(5))
        print(f"  generator, {side:3} px, {length} frames{count / spent:9.1f} clips/s")


if __name__ == "__main__":
    main()
