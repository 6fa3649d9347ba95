"""Exported and quantised models beside PyTorch, a table for each: size, speed, memory, how far apart.

    python scripts/bench_export.py --models vit-seg-tiny=RUN/last.ckpt,stcn=RUN/last.ckpt,mobile-sam
        [--size 96x160] [--frames 8] [--objects 2] [--threads 1] [--rows eager,compiled,fp32,int8]

A model is a name of cfg/method, or NAME=WEIGHTS: a run of ours, whose own method is taken, or other weights.
Without weights they are random: speed holds, J&F with the truth says nothing.

Every row runs in a process of its own on one generated clip; objects of the first frame are given to models
that need them, MobileSAM gets a box in each frame. Frames per second count CPU time of all threads, which
other programs change little: of the median frame but the first, in a second pass. Memory is the peak above
the process without any model. The difference is the largest of any probability in any frame, "same J&F" is
J&F with the labels of the first row as the truth, J&F is with the clip's. Rows: eager, compiled
(torch.compile, dynamic sizes; its memory is also the compiler's), bf16 (autocast), torch-int8 (linear
layers), and exported fp32, int8 (weights of matrix products), int8-static (convolutions, too; calibrated on
16 other clips), fp16.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from measuring import PeakMemory, in_process, random_weights
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vosssl.clip import Clip
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine import checkpoint
from vosssl.engine.export import write_graphs
from vosssl.engine.parity import Followed, agreement, followed, j_and_f
from vosssl.engine.quantise import quantise
from vosssl.metrics.object_jf import video_object_jf
from vosssl.modes.build import build, create_prompter, create_segmenter, load_network, method_config
from vosssl.modes.config import saved_config
from vosssl.modes.export import (
    clips_wanted,
    examples_of,
    generated_clips,
    graphs_of,
    recorded,
    runnable,
    user_of,
)
from vosssl.propagation.segmenter import Box, VideoSegmenter

WARM_UP = 4  # frames of the first pass
CALIBRATION = (16, 4)  # clips, and frames of each
HEAD = """| row | MB | frames/s | peak MB | largest difference | same J&F | J&F |
|---|---|---|---|---|---|---|"""
EXPORTED = ("fp32", "int8", "int8-static", "fp16")
ROWS = ("eager", "compiled", "bf16", "torch-int8", *EXPORTED)
COMPUTING = (  # methods of networks that segmenters call
    "forward", "frame_features", "newest_logits", "encode", "correct", "predict", "encode_frame", "memorise",
    "encode_image", "condition_on_memory", "decode_prompts", "encode_memory", "embed", "decode",
)  # fmt: skip


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.row:
        print(json.dumps(measured(options)))
        return
    print(f"{options.frames} frames of {options.size}, {options.objects} objects, {options.threads} threads")
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as place:
            print_rows(options, model, Path(place))


def print_rows(options: argparse.Namespace, model: str, place: Path) -> None:
    """Exports one model and prints its table."""
    rows = options.rows.split(",")
    print(f"\n{model.partition('=')[0]}: ", end="")
    try:
        print(exported(options, model, place, [row for row in rows if row in EXPORTED]))
    except ValueError as error:
        print(f"not exported: {error}")
        rows = [row for row in rows if row not in EXPORTED]
    print(f"\n{HEAD}", flush=True)
    first: Followed | None = None
    for row in rows:
        try:
            numbers = in_process(row, "--models", model, "--place", str(place))
        except SystemExit as error:
            print(f"| {row} | failed: {str(error).strip().splitlines()[-1][:120]} |", flush=True)
            continue
        labels, probabilities = torch.load(place / f"{row}.pt", weights_only=True)
        own = Followed(labels, probabilities, [])
        first = first or own
        found = agreement(first, own)
        cells = [f"{numbers['mb']:.2f}", f"{1 / numbers['seconds']:.2f}", f"{numbers['peak_mb']:.0f}"]
        cells += [f"{found.difference:.1e}", f"{found.j_and_f:.4f}", f"{numbers['j_and_f']:.3f}"]
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def exported(options: argparse.Namespace, model: str, place: Path, precisions: list[str]) -> str:
    """Exports a model into `place`, and its smaller precisions beside it; returns what was written."""
    if not precisions:
        return "not exported"
    method, network = model_of(model)
    user = user_of(method, network)
    sizes = [size_of(options)] * 2
    export = graphs_of(model, network, user, examples_of(user, sizes, [options.objects, 1]))
    facts = {"name": model, "method": runnable(method, export), "precision": "fp32"}
    manifest = write_graphs(export.graphs, place / "fp32", facts=facts)
    calls = None
    if precisions != ["fp32"]:
        most, frames = CALIBRATION
        count = clips_wanted(precisions, most)
        calibration = generated_clips(size_of(options), count=count, frames=frames, seed=1)
        calls = recorded(method, export, place / "fp32", calibration)
    for precision in precisions:
        if precision != "fp32":
            quantise(place / "fp32", place / precision, precision=precision, calls=calls)  # type: ignore[arg-type]
    checks = [check for entry in manifest["graphs"].values() for check in entry["checked"]]
    files = ", ".join(f"{name} {entry['bytes'] / 1e6:.2f}" for name, entry in manifest["graphs"].items())
    worst = max(check["difference"] for check in checks)
    return f"opset {manifest['opset']}, graphs differ by at most {worst:.1e}, MB of each: {files}"


def model_of(model: str) -> tuple[DictConfig, nn.Module]:
    """The yaml of a model and its network, with the checkpoint's weights where one is given."""
    name, _, path = model.partition("=")
    method = method_config(name)
    if path and checkpoint.is_ours(path):
        method = OmegaConf.create(saved_config(path)["method"])
    torch.manual_seed(0)
    network: nn.Module = build(method.network)
    if path:
        load_network(network, path)
    else:
        network.load_state_dict(random_weights(network))
    return method, network.eval().requires_grad_(False)


def size_of(options: argparse.Namespace) -> tuple[int, int]:
    height, _, width = options.size.partition("x")
    return int(height), int(width)


def clip_of(options: argparse.Namespace, *, seed: int) -> Clip:
    """A generated clip of so many objects."""
    objects = (options.objects, options.objects)
    made = SyntheticClips(
        size=size_of(options),
        frames=options.frames,
        objects=objects,
        count=1,
        flow=False,
        split="val",
        seed=seed,
    )
    return made[0]


def measured(options: argparse.Namespace) -> dict[str, float]:
    """One row: time, memory and size; labels and probabilities go to a file."""
    row, place = options.row, Path(options.place)
    clip = clip_of(options, seed=0)
    memory = PeakMemory()
    if row in EXPORTED:
        method = json.loads((place / row / "manifest.json").read_text())["method"]
        create = create_segmenter if "segmenter" in method else create_prompter
        user: Any = create("exported", weights=place / row, device="cpu")
        size = sum(path.stat().st_size for path in (place / row).glob("*.onnx"))
    else:
        config, network = model_of(options.models)
        size = sum(weight.numel() * weight.element_size() for weight in network.state_dict().values())
        user = user_of(config, changed(network, row))
    if row == "bf16" and hasattr(user, "dtype"):  # it sets the type of its own steps
        user.dtype = torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=row == "bf16"):
        played(user, first_frames(clip, WARM_UP))
        PeakMemory()  # the peak counts anew: without what loading took
        result = played(user, clip)
    peak = memory.megabytes
    torch.save((result.labels, [rows.float() for rows in result.probabilities]), place / f"{row}.pt")
    return {
        "seconds": statistics.median(result.seconds[1:]),
        "peak_mb": peak,
        "mb": size / 1e6,
        "j_and_f": against_truth(user, result, clip),
    }


def first_frames(clip: Clip, count: int) -> Clip:
    assert clip.labels is not None
    return Clip(name=clip.name, frames=clip.frames[:count], labels=clip.labels[:count])


def against_truth(user: Any, result: Followed, clip: Clip) -> float:
    """J&F with the clip's labels; of models that discover, of objects matched once, or of the foreground."""
    truth = clip.labels
    assert truth is not None
    if not getattr(user, "discovers", False):
        return j_and_f(result, truth if isinstance(user, VideoSegmenter) else (truth == 1).byte())
    if int(result.labels.max()) <= 1:
        truth = (truth > 0).byte()
    return float(video_object_jf(result.labels, truth)[0])


def changed(network: nn.Module, row: str) -> nn.Module:
    """The network as a row of PyTorch wants it."""
    if row == "torch-int8":
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    if row == "compiled":
        for name in COMPUTING:
            if hasattr(network, name):
                setattr(network, name, torch.compile(getattr(network, name), dynamic=True))
    return network


@torch.inference_mode()
def played(user: Any, clip: Clip) -> Followed:
    """A clip through a segmenter; a prompter gets the box of the first object in each frame."""
    if isinstance(user, VideoSegmenter):
        return followed(user, clip, clock=time.process_time)
    assert clip.labels is not None
    labels, rows, seconds = [], [], []
    for frame, truth in zip(clip.frames, clip.labels, strict=True):
        began = time.process_time()
        user.set_image(frame)
        probability = user.predict(box_of(truth == 1), multimask=False).logits[0].sigmoid()  # (1, H, W)
        seconds.append(time.process_time() - began)
        labels.append((probability[0] > 0.5).byte())
        rows.append(torch.cat([1 - probability, probability]))
    return Followed(torch.stack(labels), rows, seconds)


def box_of(mask: Tensor) -> Box:
    """Around an object; the whole frame where it is not to be seen."""
    places = mask.nonzero()
    if not len(places):
        return Box(0, 0, mask.shape[1], mask.shape[0])
    (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
    return Box(left, top, right + 1, bottom + 1)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--models", default="vit-seg-tiny,slots-synthetic")
    found.add_argument("--rows", default=",".join(ROWS))
    found.add_argument("--size", default="96x160")
    found.add_argument("--frames", type=int, default=8)
    found.add_argument("--objects", type=int, default=2)
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--row", help=argparse.SUPPRESS)
    found.add_argument("--place", help=argparse.SUPPRESS)
    return found


if __name__ == "__main__":
    main()
