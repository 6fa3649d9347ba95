"""mode=inspect: what a model makes of its evaluation videos, or the data themselves, as one HTML page and a
contact sheet."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vosssl.clip import Clip
from vosssl.data.io import write_image
from vosssl.data.video import clip_video
from vosssl.engine.drawing import contact_sheet
from vosssl.engine.evaluator import LabelVideo, evaluate_discovery
from vosssl.engine.inspect_page import SummaryRow, write_inspect_page
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.engine.protocol import DISCOVERY, LOCK_ON, EvalProtocol, load_protocol
from vosssl.engine.report import COMPARISON_COLUMNS
from vosssl.metrics.ari import image_fg_ari
from vosssl.modes import inspect_data
from vosssl.modes.evaluate import protocol_of, videos_of
from vosssl.modes.inspect_masks import watched_masks
from vosssl.modes.pictures import watched
from vosssl.modes.session import require, require_segmenter, segmenter_of, start
from vosssl.ops.masks import object_ids
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.segmenter import VideoSegmenter
from vosssl.propagation.slot_tracking import SlotTracker

log = logging.getLogger(__name__)
SHEET_CLIPS = 8
SHOWN = (*COMPARISON_COLUMNS, "J", "F")


def run(cfg: DictConfig) -> None:
    """Writes inspect.html and inspect.png into a new run folder.

    Slots are shown with their masks and attention, classes and followed objects with their probabilities,
    label propagation also with its features.
    """
    if inspect_data.is_meant(cfg):
        inspect_data.run(cfg)
        return
    require_segmenter(cfg)
    require(cfg, "data", why="mode=inspect")
    session = start(cfg)
    segmenter = segmenter_of(cfg, session)
    has_slots = isinstance(segmenter, SlotTracker)
    protocol = rules_of(cfg, segmenter)
    videos = videos_of(cfg, limit=cfg.inspect.clips)
    sheet: list[InspectedClip] = []

    def clips() -> Iterator[InspectedClip]:
        for video in tqdm(videos, desc="inspect", unit="clip", leave=False):
            if isinstance(segmenter, SlotTracker):
                clip = watched(segmenter, video, frames=cfg.inspect.frames)
            else:
                clip = watched_masks(segmenter, video, frames=cfg.inspect.frames, merge=protocol.merge_truth)
            clip = measured(clip, protocol=protocol)
            if len(sheet) < SHEET_CLIPS:
                sheet.append(clip)
            yield clip

    rows, alarms = run_summary(cfg)
    page = write_inspect_page(
        session.folder / "inspect.html",
        clips(),
        title=f"{cfg.method.name} on {cfg.data.name}",
        summary_rows=rows,
        alarms=alarms if has_slots else None,
        config_text=OmegaConf.to_yaml(OmegaConf.create(session.config)),
    )
    write_image(session.folder / "inspect.png", contact_sheet(sheet))
    log.info("page        %s", page)
    log.info("sheet       %s", session.folder / "inspect.png")


def rules_of(cfg: DictConfig, segmenter: VideoSegmenter | LabelVideo) -> EvalProtocol:
    """What the clips' scores mean: discovery, the rule of classes, or that of given objects."""
    if isinstance(segmenter, VideoSegmenter) and not segmenter.discovers:
        return load_protocol(cfg.evaluate.protocol or cfg.data.get("protocol") or LOCK_ON)
    if isinstance(segmenter, ClassSegmenter):
        return load_protocol(protocol_of(cfg, segmenter) or DISCOVERY)
    return DISCOVERY


def run_summary(cfg: DictConfig) -> tuple[list[SummaryRow], list[str]]:
    """The table and the alarms of the run that the checkpoint belongs to, where its report is beside it."""
    report = Path(cfg.resume).parent / "report.json" if cfg.resume else None
    if report is None or not report.is_file():
        return [], []
    content: dict[str, Any] = json.loads(report.read_text())
    named = {content["name"]: content["model"], **content["floors"]}
    rows: list[SummaryRow] = [
        (name, {metric: values[metric] for metric in SHOWN if values.get(metric) is not None})
        for name, values in named.items()
    ]
    return rows, list(content.get("training", {}).get("alarms", ()))


def measured(clip: InspectedClip, *, protocol: EvalProtocol = DISCOVERY) -> InspectedClip:
    """The clip with its scores under a protocol, in all and over time, where it has truth to score."""
    if clip.truth is None or not object_ids(clip.truth):
        return clip
    video = clip_video(Clip(clip.name, clip.frames, labels=clip.truth, labelled=clip.labelled))
    replay: LabelVideo = lambda frames: zip(frames, clip.predicted, strict=True)  # noqa: E731
    report = evaluate_discovery(replay, [video], protocol=protocol, progress=False)
    per_frame: dict[str, list[float]] = {}
    if protocol is DISCOVERY:
        per_frame["FG-ARI"] = image_fg_ari(clip.predicted, clip.truth).tolist()
    for metric in ("J", "F"):
        curves = [dict(zip(c.frames, c.values, strict=True)) for c in report.curves if c.metric == metric]
        per_frame[metric] = [
            fmean(values) if (values := [curve[name] for curve in curves if name in curve]) else math.nan
            for name in video.frame_names
        ]
    if clip.labelled is not None:
        per_frame = {
            metric: [value if known else math.nan for value, known in zip(values, clip.labelled, strict=True)]
            for metric, values in per_frame.items()
        }
    means = {name: value for name, value in report.means().items() if name in SHOWN}
    return replace(clip, metrics=means, frame_metrics={**per_frame, **clip.frame_metrics})
