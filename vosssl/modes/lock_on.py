"""What training shows of a model that follows given masks by label propagation: scores, floors, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from omegaconf import DictConfig
from torch import Tensor

from vosssl.data.video import Video
from vosssl.engine.clicks import follow_clicks
from vosssl.engine.drawing import overlay, tile
from vosssl.engine.evaluator import evaluate_discovery, evaluate_lock_on, follow
from vosssl.engine.protocol import LOCK_ON, load_protocol
from vosssl.engine.report import Report
from vosssl.modes.build import create_segmenter
from vosssl.modes.session import Session, network_of, segmenter_of
from vosssl.ops.resize import resize_image, resize_labels, shorter_side
from vosssl.propagation.label_propagation import LabelPropagation
from vosssl.propagation.propagation_floors import colour_propagation
from vosssl.propagation.segmenter import VideoSegmenter

SHOWN = ("J&F", "J", "F")
PICTURED = 40  # frames of a video, of which a picture shows some


def lock_on_scores(
    cfg: DictConfig, segmenter: VideoSegmenter, videos: Sequence[Video], *, frames: int | None
) -> Mapping[str, float]:
    """J&F, J and F of objects that were given."""
    protocol = cfg.evaluate.protocol or cfg.data.get("protocol") or LOCK_ON
    report = evaluate_lock_on(segmenter, videos, protocol=protocol, frames=frames, progress=False)
    return {name: value for name, value in report.means().items() if name in SHOWN}


def lock_on_floors(cfg: DictConfig, session: Session, segmenter: VideoSegmenter) -> dict[str, VideoSegmenter]:
    """What following given masks has to beat: the first labels in every frame.

    After training by label propagation also the same matches on mean colours, and with the untrained network;
    elsewhere these two would triple the time. Beside clicks label propagation on mean colours.
    """
    floors: dict[str, VideoSegmenter] = {"copy first mask": create_segmenter("copy-first-mask")}
    if cfg.mode == "train" and isinstance(segmenter, LabelPropagation):
        untrained = segmenter_of(cfg, session, network=network_of(cfg, session))
        floors |= {"colours alone": colour_propagation(segmenter), "untrained": untrained}
    elif cfg.evaluate.get("clicks"):
        floors["colour propagation"] = create_segmenter("floor-colour-propagation")
    return floors


def clicked_reports(cfg: DictConfig, segmenter: VideoSegmenter, videos: Sequence[Video]) -> dict[str, Report]:
    """The same videos with `evaluate.clicks` on each object of the first frame instead of its mask."""
    protocol = load_protocol(cfg.evaluate.protocol or cfg.data.get("protocol") or LOCK_ON)
    return {
        "1 click" if clicks == 1 else f"{clicks} clicks": evaluate_discovery(
            follow_clicks(segmenter, clicks=clicks), videos, protocol=protocol, frames=cfg.evaluate.frames
        )
        for clicks in cfg.evaluate.clicks
    }


def followed_over_time(segmenter: VideoSegmenter, videos: Sequence[Video], *, columns: int = 8) -> Tensor:
    """Evenly spaced frames of videos: the truth, and below it the labels that were followed from the first.

    Args:
        segmenter: takes masks.
        videos: with truth, of one size.
        columns: frames of each.

    Returns:
        (3, H, W) uint8.
    """
    rows = []
    for video in videos:
        steps = list(islice(follow(segmenter, prompt_first=True)(video), PICTURED))
        places = torch.linspace(0, len(steps) - 1, min(columns, len(steps))).round().int().tolist()
        truth, followed = [], []
        for frame, labels in (steps[place] for place in places):
            size = shorter_side((labels.shape[0], labels.shape[1]), 128)
            image = resize_image(frame.image.float(), size).round().byte()
            truth.append(image if frame.labels is None else overlay(image, resize_labels(frame.labels, size)))
            followed.append(overlay(image, resize_labels(labels.cpu(), size)))
        rows += [truth, followed]
    return tile(rows)
