"""mode=export: a model as ONNX graphs that ONNX Runtime runs behind the same segmenter; `method=exported`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vosssl.backbones.weights import weights_path
from vosssl.clip import Clip
from vosssl.data.sources import Video
from vosssl.data.synthetic import SyntheticClips
from vosssl.data.video import open_video
from vosssl.engine.export import require_exporter, write_graphs
from vosssl.engine.parity import followed
from vosssl.engine.quantise import Recorded, quantise, recording, require_precision
from vosssl.layers.slot_network import SlotNetwork
from vosssl.modes.build import build
from vosssl.modes.session import given_weights, network_of, require, start
from vosssl.ops.resize import padding_to
from vosssl.propagation.graph_folder import Example, Export, ExportedNetwork, file_hash
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.label_propagation import LabelPropagation
from vosssl.propagation.memory_segmenter import MemorySegmenter
from vosssl.propagation.segmenter import Box, VideoSegmenter

log = logging.getLogger(__name__)

TRIED_CLIPS = 2  # where nothing is calibrated


def run(cfg: DictConfig) -> None:
    """Exports the model and says where it is."""
    method = require(cfg, "method", why="mode=export")
    require_exporter()
    for precision in cfg.export.also:
        require_precision(precision)
    calibration = calibration_clips(cfg)  # what cannot be opened is known before anything is written
    session = start(cfg)
    weights = given_weights(cfg)
    network = network_of(cfg, session, weights=weights).cpu().eval().requires_grad_(False)
    if weights is None:
        log.warning("no weights were given (resume= or weights=): the exported network knows nothing")
    user = user_of(method, network)
    folder = Path(cfg.export.folder or session.folder / "export")
    examples = examples_of(user, cfg.export.frames, cfg.export.objects)
    export = graphs_of(str(method.name), network, user, examples)
    facts = {
        "name": f"{method.name}",
        "method": runnable(method, export),
        "preprocessing": export.preprocessing,
        "source": source_of(weights),
        "precision": "fp32",
    }
    manifest = write_graphs(export.graphs, folder, facts=facts, opset=cfg.export.opset)
    size = sum(entry["bytes"] for entry in manifest["graphs"].values()) / 1e6
    log.info("%d graphs, %.2f MB, in %s", len(export.graphs), size, folder.resolve())
    if cfg.export.also:
        calls = recorded(method, export, folder, calibration)
        for precision in cfg.export.also:
            quantise(
                folder,
                folder / precision,
                precision=precision,
                calls=calls,
                most_change=cfg.export.most_change,
            )
    log.info("to use them: mode=eval method=exported weights=%s data=…", folder)


def calibration_clips(cfg: DictConfig) -> Iterator[Clip]:
    """Pieces of videos, all along them, or generated: for calibration, or two to try new graphs with."""
    count = clips_wanted(cfg.export.also, int(cfg.export.calibration_clips))
    frames = int(cfg.export.calibration_frames)
    given = cfg.export.calibration
    if given is None:
        return generated_clips(cfg.export.frames[0], count=count, frames=frames)
    videos = [open_video(path) for path in ([given] if isinstance(given, str) else given)]
    ends = [number * count // len(videos) for number in range(len(videos) + 1)]
    shares = [end - begin for begin, end in pairwise(ends)]
    return chain.from_iterable(
        pieces(video, share, frames) for video, share in zip(videos, shares, strict=True)
    )


def clips_wanted(precisions: Sequence[str], most: int) -> int:
    """Clips to run graphs on: `most` for calibration, else a few to try new graphs with."""
    return most if "int8-static" in precisions else min(most, TRIED_CLIPS)


def generated_clips(size: Sequence[int], *, count: int, frames: int, seed: int = 0) -> Iterator[Clip]:
    """Generated clips of two objects."""
    made = SyntheticClips(
        size=list(size), frames=frames, objects=(2, 2), count=count, flow=False, split="val", seed=seed
    )
    return (made[index] for index in range(count))


def pieces(video: Video, count: int, frames: int) -> Iterator[Clip]:
    """Up to `count` pieces of a video, evenly spaced; if any frames have labels, each begins with one."""
    frames = min(frames, len(video))
    known = video.labelled
    starts = [at for at in range(len(video) - frames + 1) if known is None or bool(known[at])]
    count = min(count, len(starts))
    for number in range(count):
        start = starts[number * len(starts) // count]
        yield video.clip(range(start, start + frames))


def recorded(method: DictConfig, export: Export, folder: Path, clips: Iterable[Clip]) -> Recorded:
    """What the graphs are called with while they follow clips, or answer a prompt in each frame."""
    network = build(export.network)
    network.open(folder)
    user = user_of(method, network.eval())
    with recording(network.graphs) as calls:
        for clip in clips:
            if isinstance(user, VideoSegmenter):
                followed(user, clip)
                continue
            for frame in clip.frames:
                height, width = frame.shape[-2:]
                user.set_image(frame)
                user.predict(Box(width / 4, height / 4, width / 2, height / 2))
    return calls


def user_of(method: DictConfig, network: nn.Module) -> Any:
    """What uses the network: a segmenter, or a prompter.

    Raises:
        ValueError: nothing does, or it is several networks.
    """
    for part in ("segmenter", "prompter"):
        if part in method:
            return build(method[part], network=network)
    raise ValueError(
        f"{method.name} has neither a segmenter nor a prompter, so there is nothing to run it in"
    )


def graphs_of(name: str, network: nn.Module, user: Any, examples: Sequence[Example]) -> Export:
    """The graphs of a network, by the kind of network it is.

    Raises:
        ValueError: one that cannot be exported; says why.
    """
    if isinstance(network, ExportedNetwork):
        raise ValueError(f"{name} is exported already; give the model and weights it was exported from")
    if isinstance(network, SlotNetwork) and type(user).__name__ == "SlotTracker":
        family = "vosssl.methods.exported.slots.slot_export"
    elif hasattr(network, "newest_logits"):
        family = "vosssl.methods.exported.classes.class_export"
    elif isinstance(user, MemorySegmenter):
        family = "vosssl.methods.exported.memory.memory_export"
    elif isinstance(user, LabelPropagation) and user.gate is None:
        family = "vosssl.methods.exported.features.feature_export"
    elif hasattr(network, "encode_memory"):
        family = "vosssl.methods.sam2.export.sam2_export"
    elif isinstance(user, ImagePrompter):
        family = "vosssl.methods.exported.prompts.prompt_export"
    else:
        raise ValueError(
            f"{name} cannot be exported: {type(user).__name__} joins {type(network).__name__} with others; "
            "export its parts (the slot network, the backbone of the propagation) by their own methods"
        )
    export: Export = get_object(family)(network, user, examples)
    return export


def examples_of(user: Any, frames: Sequence[Sequence[int]], objects: Sequence[int]) -> list[Example]:
    """Sizes of frames as the network gets them, of videos with frames as large as they say."""
    if not isinstance(user, VideoSegmenter):
        return [
            Example((int(size[0]), int(size[1])), count) for size, count in zip(frames, objects, strict=True)
        ]
    examples = []
    for frame, count in zip(frames, objects, strict=True):
        working = user._working_size((int(frame[0]), int(frame[1])))
        padding = padding_to(working, user.stride)
        height, width = working[0] + padding.top + padding.bottom, working[1] + padding.left + padding.right
        examples.append(Example((height, width), count))
    return examples


def runnable(method: DictConfig, export: Export) -> dict[str, Any]:
    """The method's yaml as plain values, with the exported network in place of the real one."""
    plain = OmegaConf.to_container(method, resolve=True)
    assert isinstance(plain, dict)
    kept = {
        str(key): value for key, value in plain.items() if key in ("segmenter", "prompter", "supervision")
    }
    return {"name": f"{method.name}-exported", **kept, "network": export.network}


def source_of(weights: str | None) -> dict[str, Any]:
    """Where the weights come from, and the hash of their file."""
    if weights is None:
        return {"weights": None, "sha256": None}
    path = Path(weights) if Path(weights).is_file() else weights_path(weights)
    return {"weights": str(weights), "sha256": file_hash(path), "torch": torch.__version__}
