"""What fits into a GPU: memory of following objects and of training steps, as Markdown tables.

    python scripts/memory_table.py follow
    python scripts/memory_table.py train --only stcn_main

Computed by counting the tensors that are alive, never measured on a GPU. Following: frames go through the
segmenter on tensors that have shapes but no content, all objects at once and attention fused, as on a GPU;
what needs content (slots, MobileSAM) is computed on the CPU and counted alike; SAM 2 by the formula of
`vosssl/methods/sam2/sizing.py`. Training: the dry run, for one clip of a recipe's size; every other clip of a
batch needs as many activations.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest.mock import patch

import hydra
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vosssl.clip import Batch
from vosssl.engine.memory_forecast import GB, LiveBytes, MemoryForecast, forecast_memory
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.sizing import peak_mb
from vosssl.modes.build import build, create_model, create_prompter, create_segmenter
from vosssl.modes.config import config_dir
from vosssl.propagation.memory_segmenter import MemorySegmenter
from vosssl.propagation.segmenter import Box, Prompted

MB = 2**20
SIZES = ((480, 854), (1080, 1920))
OBJECTS = (1, 8)
COUNTED = {"cutie-base": 7, "cutie-small": 7, "stcn": 26, "dino-vits16": 9}  # frames until no more is needed
COMPUTED = ("slots-synthetic", "videosaur-ytvis", "mobile-sam")
HIERA = tuple(f"sam2.1-hiera-{size}" for size in ("tiny", "small", "base-plus", "large"))
CARDS = (8, 16, 24)  # GB (2**30 bytes)
TAKEN = 1.0  # GB of a card for CUDA's context and workspaces of convolutions
RECIPES = (
    "slots",
    "segformer_b0",
    "vit_seg",
    "savi_movi_c",
    "videosaur_ytvis",
    "slotcontrast_ytvis",
    "stcn_main",
    "cutie_static",
    "cutie_main",
    "sam2_finetune",
    "sam2_finetune method.trains=all",
)


class FusedAttention(TorchFunctionMode):
    """Attention whose scores never exist as a whole, as GPUs compute it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def bytes_of(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(network))


def tensors_of(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def following(name: str, *, size: tuple[int, int], objects: int, frames: int) -> int:
    """Most bytes beside the weights while a video is followed, without computing anything.

    Args:
        name: of a model with a segmenter.
        size: (H, W) of the frames.
        objects: followed from the first frame on.
        frames: so many.
    """
    network = create_model(name)
    segmenter = create_segmenter(name, network=network, device="cpu")
    network.to("meta")
    segmenter.device = torch.device("meta")
    for attribute, value in vars(segmenter).items():
        if isinstance(value, Tensor):
            setattr(segmenter, attribute, value.to("meta"))
    if isinstance(segmenter, MemorySegmenter):
        segmenter.mem_every, segmenter._at_once = 1, -1

    def prompted(prompt: object, size: Any, working: Any, padding: Any) -> Prompted:
        height, width = working[0] + padding.top + padding.bottom, working[1] + padding.left + padding.right
        masks = torch.empty(objects, height, width, dtype=torch.bool)
        labels = torch.empty(height, width, dtype=torch.uint8)
        native = torch.empty(size, dtype=torch.uint8)
        return Prompted(tuple(range(1, objects + 1)), labels=labels, masks=masks, native=native)

    counter = LiveBytes(tensors_of(network))
    with ExitStack() as stack:
        stack.enter_context(patch.object(segmenter, "_read_prompt", prompted))
        stack.enter_context(patch("torch.autocast", lambda *_, **__: nullcontext()))  # knows no such device
        for mode in (torch.device("meta"), counter, FusedAttention()):
            stack.enter_context(mode)  # type: ignore[arg-type]
        for frame in range(frames):
            image = torch.empty(3, *size, dtype=torch.uint8)
            segmenter.step(image, None if frame else image[0])
    return counter.peak


def computing(name: str, *, size: tuple[int, int], objects: int) -> int:
    """Most bytes beside the weights while three frames are followed, or one is segmented, on the CPU."""
    network = create_model(name)
    labels = torch.zeros(size, dtype=torch.uint8)
    for k in range(objects):
        labels[size[0] // 4 : size[0] // 2, k * size[1] // objects :] = k + 1
    frame = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with LiveBytes(tensors_of(network)) as counter:
        if name == "mobile-sam":
            prompter = create_prompter(name, network=network, device="cpu")
            prompter.set_image(frame)
            prompter.predict([Box(8.0, 8.0, 64.0 + k, 64.0) for k in range(objects)])
        else:
            segmenter = create_segmenter(name, network=network, device="cpu")
            for index in range(3):
                segmenter.step(frame, labels if index == 0 else None)
    return counter.peak


def training(recipe: str) -> tuple[MemoryForecast, DictConfig]:
    """The dry run's forecast for one clip of a recipe, and the recipe.

    Args:
        recipe: its name, and what else would follow `hparam=` on the command line.
    """
    with hydra.initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("main", overrides=f"hparam={recipe} data.root=NONE".split())
    network, objective = build(cfg.method.network), build(cfg.method.objective)
    if hasattr(objective, "prepare"):
        objective.prepare(network)
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = build(cfg.optimizer, params=learned)
    shape = (1, cfg.data.get("frames", 3), cfg.data.get("size", 64), cfg.data.get("size", 64))
    batch = Batch(
        torch.zeros(shape[0], shape[1], 3, *shape[2:], dtype=torch.uint8),
        torch.zeros(shape, dtype=torch.uint8),
        torch.zeros(shape[0], shape[1], 2, *shape[2:]),
        num_objects=torch.tensor([cfg.data.get("objects", 1)]),
        seeds=torch.zeros(1, dtype=torch.int64),
    )
    averaged = cfg.train.ema is not None
    precision = cfg.train.precision
    forecast = forecast_memory(network, objective, batch, optimizer, precision=precision, averaged=averaged)
    return forecast, cfg


def clips_that_fit(forecast: MemoryForecast, card: float) -> int:
    """How many clips of a batch go through a card of so many GB (2**30 bytes) at once."""
    fixed = forecast.weights + forecast.gradients + forecast.optimizer
    return max(0, int(((card - TAKEN) * 2**30 - fixed) // forecast.activations))


def print_following(models: list[str]) -> None:
    """Weights, and peaks with them, of every model, in MB (2**20 bytes)."""
    cases = [(size, objects) for size in SIZES for objects in OBJECTS]
    print_row("model", ["weights", *(f"{size[0]}p, {objects}" for size, objects in cases)])
    print_row("---", ["---"] * (1 + len(cases)))
    for name in models:
        if name.startswith("sam2"):
            network = create_model(name)
            assert isinstance(network, SAM2)
            rows = [
                peak_mb(network, image_size=1024, objects=objects, video_size=size) * MB
                for size, objects in cases
            ]
            weights = bytes_of(network)
        elif name in COMPUTED:
            weights = bytes_of(create_model(name))
            rows = [computing(name, size=size, objects=objects) for size, objects in cases]
        else:
            weights = bytes_of(create_model(name))
            frames = COUNTED[name]
            rows = [following(name, size=size, objects=objects, frames=frames) for size, objects in cases]
        print_row(f"`{name}`", [f"{size / MB:.0f}" for size in (weights, *(peak + weights for peak in rows))])


def print_training(recipes: list[str]) -> None:
    """Of every recipe: GB for one clip, and clips at once on each card."""
    cards = [f"{card} GB" for card in CARDS]
    print_row("recipe", ["a clip", "batch", "weights and optimizer, GB", "each clip, GB", *cards])
    print_row("---", ["---"] * (4 + len(cards)))
    for recipe in recipes:
        forecast, cfg = training(recipe)
        fixed = (forecast.weights + forecast.gradients + forecast.optimizer) / GB
        clip = f"{cfg.data.get('frames', 3)} x {cfg.data.get('size', 64)} px, {cfg.train.precision}"
        fits = [str(clips_that_fit(forecast, card)) for card in CARDS]
        numbers = [str(cfg.train.batch_size), f"{fixed:.2f}", f"{forecast.activations / GB:.2f}", *fits]
        print_row(f"`{recipe}`", [clip, *numbers])


def print_row(name: str, values: list[str]) -> None:
    """One line of a Markdown table."""
    print(f"| {name} | {' | '.join(values)} |", flush=True)


def main() -> None:
    """Prints one of the two tables, or some of its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", choices=("follow", "train"))
    parser.add_argument("--only", action="append", help="this model or recipe; may be given several times")
    chosen = parser.parse_args()
    if chosen.table == "follow":
        print_following(chosen.only or [*COUNTED, *COMPUTED, *HIERA])
    else:
        print_training(chosen.only or list(RECIPES))


if __name__ == "__main__":
    main()
