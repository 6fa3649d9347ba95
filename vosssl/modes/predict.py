"""mode=predict: labels any video, folder of frames or camera: label PNGs, an overlay video and a report."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from vosssl.clip import VOID, Frame
from vosssl.data.annotations import masklets_beside
from vosssl.data.files import atomic_write
from vosssl.data.frame_reader import has_end
from vosssl.data.io import read_labels, write_labels
from vosssl.data.listing import labels_beside
from vosssl.data.readahead import WriteBehind
from vosssl.data.video import FirstFrames, Video, open_video
from vosssl.data.video_io import VideoWriter
from vosssl.engine.click_session import ClickSession
from vosssl.engine.click_window import run_window
from vosssl.engine.drawing import overlay
from vosssl.engine.prompting import FirstMasks, can_take_late_objects
from vosssl.modes.build import create_prompter
from vosssl.modes.prompts import EXAMPLE, object_prompt, read_prompts
from vosssl.modes.session import Session, require_segmenter, segmenter_of, start
from vosssl.ops.masks import object_ids
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.discover_and_track import OfflineSegmenter
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.object_prompts import ObjectPrompt, ObjectPrompts
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)
SOURCES = "a video file, a folder of frames, or a camera's number: predict.source=video.mp4"
PROMPTS = (
    "predict.prompt=LABELS.png of the first frame, a folder of labels named like their frames, or beside; or "
    f"clicks, {EXAMPLE}"
)
BESIDE = "beside"


def run(cfg: DictConfig) -> None:
    """Labels `predict.source` frame by frame with bounded memory; Ctrl-C keeps what is done.

    Raises:
        ValueError, FileNotFoundError: no source, or one that cannot be read; labels that are missing.
    """
    if cfg.predict.source is None:
        raise ValueError(f"mode=predict needs {SOURCES}")
    require_segmenter(cfg)
    if cfg.predict.window:
        open_window(cfg)
        return
    source, given, binary = cfg.predict.source, cfg.predict.prompt, cfg.predict.binary
    reading = {"binary": binary or None, "on_wrong_size": cfg.predict.on_wrong_size}
    told = read_prompts(given)
    labels = None if told is not None else labels_folder(source, given)
    video = open_video(source, annotations=labels, **reading)
    pointed = None if told is None else object_prompts(*told, video, limit=cfg.predict.limit)
    whole = given is not None and told is None and labels is None
    prompt = read_prompt(given, video, binary) if whole else None
    session = start(cfg)
    segmenter = segmenter_of(cfg, session)
    if cfg.predict.size is not None:
        segmenter.size = cfg.predict.size
    if given is None and not segmenter.discovers:
        beside = labels_folder(source, BESIDE, required=False)
        if beside is None:
            raise ValueError(f"{cfg.method.name} follows only what it is given: {PROMPTS}")
        labels, video = beside, open_video(source, annotations=beside, **reading)
    prompts: FirstMasks | ObjectPrompts | None = None
    if labels is not None:
        if video.labelled is None:
            raise ValueError(f"{labels} has no labels of {video.name}: {PROMPTS}")
        log.info("prompts     %s, each object in the first frame that shows it", labels)
        prompts = FirstMasks(late=can_take_late_objects(segmenter))
    if pointed is not None:
        prompts = ObjectPrompts(pointed, prompter_of(cfg, session, pointed))
    summary = predict(
        segmenter,
        video,
        session.folder,
        prompt=prompt,
        prompts=prompts,
        limit=cfg.predict.limit,
        with_overlay=cfg.predict.overlay,
    )
    with atomic_write(session.folder / "report.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    log.info("%(frames)d frames, %(frames_per_second).1f frames/s with reading and writing", summary)
    log.info("labels      %s", session.folder / "labels" / video.name)
    if cfg.predict.overlay:
        log.info("overlay     %s", session.folder / f"{video.name}.mp4")
    log.info("report      %s", session.folder / "report.json")
    if summary["interrupted"]:
        raise KeyboardInterrupt(
            f"stopped after {summary['frames']} frames, which are kept in {session.folder}"
        )


def open_window(cfg: DictConfig) -> None:
    """A window in which objects of `predict.source` are clicked on, tracked, corrected and exported.

    Raises:
        ValueError: a prompt, which is what the mouse gives here; a model that follows no masks; no screen.
    """
    if cfg.predict.prompt is not None:
        raise ValueError(
            "predict.window=true and a prompt: in the window objects are clicked on; leave one out"
        )
    video = open_video(cfg.predict.source, annotations=None)
    session = start(cfg)
    segmenter = segmenter_of(cfg, session)
    if cfg.predict.size is not None:
        segmenter.size = cfg.predict.size
    prompter = create_prompter(
        cfg.predict.prompter, weights=cfg.predict.prompter_weights, device=str(session.device)
    )
    with ClickAndTrack(video, segmenter, prompter=prompter, folder=session.folder) as work:
        run_window(ClickSession(work, export_folder=session.folder / "export"))
    log.info("labels      %s", session.folder / "labels" / video.name)


def labels_folder(source: str | int, given: str | None, *, required: bool = True) -> Path | None:
    """The labels of several frames that a prompt names: a folder, an annotation file, or those beside it.

    Args:
        source: the video.
        given: `predict.prompt`.
        required: whether missing labels beside the video are an error.

    Returns:
        Where they lie; None for the label image of one frame, or no prompt at all.

    Raises:
        FileNotFoundError: no labels beside the video.
    """
    if given != BESIDE:
        place = None if given is None else Path(given).expanduser()
        return place if place is not None and (place.is_dir() or place.suffix in (".json", ".xml")) else None
    path = Path(str(source)).expanduser()
    beside = (masklets_beside(path, "auto") if path.is_file() else None) or labels_beside(path)
    if beside is not None and beside.exists():
        return beside
    if required:
        expected = "Annotations beside JPEGImages" if beside is None else str(beside)
        raise FileNotFoundError(f"no labels beside {source}, expected {expected}; {PROMPTS}")
    return None


def read_prompt(path: str, video: Video, binary: bool) -> Tensor:
    """The labels of a video's first frame.

    Args:
        path: a label PNG.
        video: what it belongs to.
        binary: everything above 0 is the one object.

    Returns:
        (H, W) uint8 ids.

    Raises:
        FileNotFoundError: no such file.
        ValueError: labels of another size, or without any object.
    """
    labels = read_labels(path, binary=binary)
    if tuple(labels.shape) != tuple(video.size):
        (height, width), (high, wide) = labels.shape, video.size
        raise ValueError(
            f"predict.prompt={path} is {width} wide and {height} high, expected the {wide} x {high} of "
            f"{video.name}'s frames; scale it with nearest neighbours"
        )
    if not object_ids(labels):
        values = ", ".join(map(str, labels.unique().tolist()))
        hint = "; predict.binary=true makes 255 the object" if bool((labels == VOID).any()) else ""
        raise ValueError(
            f"predict.prompt={path} names no object, its values are {values}, expected ids 1..254{hint}"
        )
    return labels


def object_prompts(
    entries: Sequence[Mapping[str, Any]], folder: Path, video: Video, *, limit: int | None
) -> list[ObjectPrompt]:
    """What is said of objects in a video's frames.

    Args:
        entries: see `prompts.object_prompt`.
        folder: where their masks are looked for.
        video: what they are about.
        limit: how many of its frames are read, at most.

    Returns:
        The prompts.

    Raises:
        ValueError: one that cannot be, or in a frame that will not be read.
        FileNotFoundError: no such mask.
    """
    prompts = [object_prompt(entry, video.size, folder=folder) for entry in entries]
    length = len(video) if has_end(video) else None
    read = min(number for number in (length, limit, sys.maxsize) if number is not None)
    for prompt in prompts:
        if prompt.frame >= read:
            raise ValueError(
                f"object {prompt.identity} has a prompt in frame {prompt.frame}, but of {video.name} frames "
                f"0..{read - 1} are read"
            )
    return prompts


def prompter_of(cfg: DictConfig, session: Session, prompts: Sequence[ObjectPrompt]) -> ImagePrompter | None:
    """`predict.prompter` with its weights, where a prompt is clicks or a box."""
    if all(prompt.mask is not None for prompt in prompts):
        return None
    weights, device = cfg.predict.prompter_weights, str(session.device)
    log.info("prompter    %s", cfg.predict.prompter)
    return create_prompter(cfg.predict.prompter, weights=weights, device=device)


def predict(
    segmenter: VideoSegmenter | OfflineSegmenter,
    video: Video,
    folder: Path,
    *,
    prompt: Tensor | None = None,
    prompts: FirstMasks | ObjectPrompts | None = None,
    limit: int | None = None,
    with_overlay: bool = True,
) -> dict[str, Any]:
    """Segments one video and writes what it finds, frame by frame.

    Args:
        segmenter: any model.
        video: where frames come from.
        folder: gets `labels/<name>/<frame>.png` and `<name>.mp4`.
        prompt: (H, W) uint8 ids of the first frame, or None to discover.
        prompts: what to give instead, out of the labels that the video carries or pointed out in its frames.
        limit: only the first so many frames.
        with_overlay: whether to write the video with labels over it.

    Returns:
        The report: frames, speed, and for each object its number of frames and mean area in [0, 1].
    """
    areas: dict[int, list[float]] = {}

    def write(frame: Frame, labels: Tensor, writer: VideoWriter | None) -> None:
        write_labels(written / f"{frame.name}.png", labels)
        if writer is not None:
            writer.write(overlay(frame.image, labels))
        for identity, pixels in zip(*torch.unique(labels, return_counts=True), strict=True):
            if identity:
                areas.setdefault(int(identity), []).append(int(pixels) / labels.numel())

    written = folder / "labels" / video.name
    written.mkdir(parents=True, exist_ok=True)
    count, interrupted, began = 0, False, time.perf_counter()
    with ExitStack() as stack:
        writer = None
        if with_overlay:
            writer = stack.enter_context(
                VideoWriter(folder / f"{video.name}.mp4", fps=getattr(video, "fps", 0.0) or 25.0)
            )
        behind = stack.enter_context(WriteBehind())
        try:
            for frame, labels in labelled(segmenter, video, prompt=prompt, prompts=prompts, limit=limit):
                behind(write, frame, labels, writer)
                count += 1
        except KeyboardInterrupt:
            interrupted = True
    if interrupted and count == 0:
        raise KeyboardInterrupt("stopped before the first frame")
    if count == 0:
        raise ValueError(f"{video.name} gave no frame; give {SOURCES}")
    if isinstance(prompts, ObjectPrompts):
        if prompts.left and not interrupted:
            log.warning("the video ended before frame %d, which has a prompt", prompts.left[0])
    elif prompts is not None and prompts.waiting:
        log.warning("no label of the %d frames shows an object: nothing was followed", count)
    return {
        "video": video.name,
        "frames": count,
        "interrupted": interrupted,
        "frames_per_second": count / (time.perf_counter() - began),
        "objects": {
            str(identity): {"frames": len(shares), "mean_area": sum(shares) / len(shares)}
            for identity, shares in sorted(areas.items())
        },
    }


def labelled(
    segmenter: VideoSegmenter | OfflineSegmenter,
    video: Video,
    *,
    prompt: Tensor | None,
    prompts: FirstMasks | ObjectPrompts | None,
    limit: int | None,
) -> Iterator[tuple[Frame, Tensor]]:
    """The frames of a video with (H, W) labels, by a model of either kind; see `predict`.

    Raises:
        ValueError: a prompt for a model that takes none.
    """
    if not isinstance(segmenter, VideoSegmenter):
        if prompt is not None or prompts is not None:
            raise ValueError(f"{type(segmenter).__name__} finds objects itself; leave predict.prompt out")
        known = video if limit is None or not has_end(video) else FirstFrames(video, limit)
        total = len(known) if has_end(known) else None
        yield from tqdm(segmenter(known), total=total, unit="frame", desc=video.name)
        return
    segmenter.reset()
    for count, frame in enumerate(limited(video, limit)):
        if prompts is None:
            yield frame, segmenter.step(frame.image, prompt if count == 0 else None)
        else:
            yield frame, prompts.step(segmenter, frame)


def limited(video: Video, limit: int | None) -> Iterator[Frame]:
    """The frames of a video, at most `limit`, with a progress bar; a camera's length is unknown."""
    total: int | None = len(video) if has_end(video) else None
    if limit is not None:
        total = limit if total is None else min(limit, total)
    with tqdm(total=total, unit="frame", desc=video.name) as bar:
        for index, frame in enumerate(video):
            if limit is not None and index >= limit:
                return
            yield frame
            bar.update()
