"""mode=benchmark: many segmenters on many datasets, resumable, in one table with published numbers."""

from __future__ import annotations

import gc
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vosssl.data.files import atomic_write
from vosssl.data.prediction_set import some
from vosssl.data.predictions import open_predictions
from vosssl.data.video import Video
from vosssl.data.video_truth import VideoTruth
from vosssl.engine.benchmark_table import Block, Row, with_published
from vosssl.engine.evaluator import LabelVideo, follow, follow_protocol, predict
from vosssl.engine.file_scoring import evaluate
from vosssl.engine.logs import peak_memory, reset_peak_memory
from vosssl.engine.prompting import gives_late_objects
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.published import load_published
from vosssl.engine.report import Report, clean, write_json
from vosssl.engine.sequence_scoring import require_followable
from vosssl.modes.benchmark_data import Dataset, datasets_of, plain_list
from vosssl.modes.contenders import (
    Contender,
    Opened,
    Task,
    as_tasks,
    check_names,
    chosen_contender,
    contender,
    open_contender,
)
from vosssl.modes.session import (
    Session,
    config_folders,
    from_checkpoint,
    given_weights,
    require_segmenter,
    start,
)
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)

ONE_OBJECT = "one object a video: FG-ARI is 1 for one segment and about 0 for more, whatever their quality"
UNTRAINED = "untrained: the weights are random"
PROMPTED = "starts from the first frame's labels: not to be compared with methods that are given nothing"


def run(cfg: DictConfig) -> None:
    """Runs what is not done yet, scores everything, prints the table, writes it as Markdown, CSV and JSON.

    Raises:
        ValueError, FileNotFoundError: an entry or dataset that means nothing or is not there.
    """
    tasks = as_tasks(plain_list(cfg.benchmark.tasks), where="the benchmark")
    entries = contenders_of(cfg)
    datasets = datasets_of(cfg)
    sizes = ", ".join(f"{len(dataset.videos)} videos of {dataset.name}" for dataset in datasets)
    session = start(cfg, folder=None if cfg.benchmark.folder is None else Path(cfg.benchmark.folder))
    log.info("%s on %s", ", ".join(entry.name for entry in entries), sizes)
    log.info("to go on after an interruption: the same command with benchmark.folder=%s", session.folder)
    blocks = compared(entries, datasets, tasks, session)
    table = with_published(blocks, load_published(), machine=_machine(session))
    with atomic_write(session.folder / "table.md") as path:
        path.write_text(table.markdown())
    table.to_csv(session.folder / "table.csv")
    table.to_json(session.folder / "report.json")
    log.info("\n%s\n", table.text())
    log.info("table       %s (also .csv)", session.folder / "table.md")
    log.info("report      %s", session.folder / "report.json")


def contenders_of(cfg: DictConfig) -> list[Contender]:
    """The floors, then the model that the command line chose, then `benchmark.entries`."""
    where = config_folders()
    floors = [contender(entry, is_floor=True, where=where) for entry in cfg.benchmark.floors or ()]
    entries = [contender(entry, where=where) for entry in plain_list(cfg.benchmark.entries) or ()]
    if cfg.get("method"):
        require_segmenter(cfg)
        trusted_only = from_checkpoint("method")
        entries.insert(0, chosen_contender(cfg.method, given_weights(cfg), trusted_only=trusted_only))
    named = {entry.name for entry in entries}
    contenders = [*(floor for floor in floors if floor.name not in named), *entries]
    check_names(contenders)
    return contenders


def compared(
    contenders: Sequence[Contender], datasets: Sequence[Dataset], tasks: Sequence[Task], session: Session
) -> list[Block]:
    """Runs and scores every contender on every dataset and task that it can do.

    Args:
        contenders: what to compare, floors first.
        datasets: on what.
        tasks: in the order of the table.
        session: the run.

    Returns:
        A block for each dataset and task that any contender did.
    """
    rows: dict[tuple[str, Task], list[Row]] = {}
    for entry in contenders:
        opened = None if entry.predictions is not None else open_contender(entry, session.device)
        able = [task for task in tasks if task in entry.tasks and (opened is None or opened.can(task))]
        if not able:
            log.warning("%s can do none of %s; it is left out", entry.name, ", ".join(tasks))
        for dataset in datasets:
            for task in able:
                row = _measured(entry, opened, dataset, task, session)
                rows.setdefault((dataset.name, task), []).append(row)
        del opened
        gc.collect()
    return [
        Block(
            dataset.name,
            task,
            dataset.protocols[task],
            videos=len(dataset.videos),
            frames=dataset.frames,
            rows=tuple(rows[dataset.name, task]),
            notes=_block_notes(dataset.protocols[task], rows[dataset.name, task]),
        )
        for dataset in datasets
        for task in tasks
        if (dataset.name, task) in rows
    ]


def _measured(
    entry: Contender,
    opened: Opened | None,
    dataset: Dataset,
    task: Task,
    session: Session,
) -> Row:
    protocol, videos = dataset.protocols[task], dataset.videos
    where = f"{entry.name} on {dataset.name}, {task.replace('_', '-')}"
    facts: Mapping[str, Any] = {}
    try:
        truth = VideoTruth(videos)
        require_followable(protocol, truth)
        if opened is None:
            assert entry.predictions is not None
            predictions = entry.predictions
        else:
            predictions = session.folder / "predictions" / dataset.name / task / entry.name
            _same_settings(predictions, entry, dataset, task, session)
            reset_peak_memory(session.device)
            facts = segmented(_label_video(opened, task, protocol), videos, predictions, session, where=where)
        report = _scored(predictions, truth, entry, protocol, session)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Row(
        name=entry.name,
        kind="floor" if entry.is_floor else "measured",
        means=report.means(),
        frames_per_second=facts.get("frames_per_second"),
        peak_memory_bytes=facts.get("peak_memory_bytes"),
        parameters=None if opened is None else opened.parameters,
        training_data=entry.training_data,
        supervision=entry.supervision,
        source=entry.source,
        notes=(*_notes(entry, opened, task), *_left_out(report, truth)),
        sequences={
            video: clean({metric: report.mean(metric, video=video) for metric in report.metrics})
            for video in report.videos
        },
        objects=dict(Counter(score.video for score in report.scores if score.metric == "J")),
    )


def segmented(
    label_video: LabelVideo, videos: Iterable[Video], folder: Path, session: Session, *, where: str
) -> dict[str, Any]:
    """Writes label PNGs of the videos that have none yet, and each video's speed and memory beside them.

    Args:
        label_video: what labels.
        videos: which videos.
        folder: gets `<video>/<frame>.png` and `<video>.json`.
        session: the run; its device says whose memory is measured.
        where: what the progress bar says.

    Returns:
        frames_per_second and peak_memory_bytes of all the videos, whenever they were done; None where it is
        not known.
    """
    facts: list[dict[str, Any]] = []
    for video in tqdm(list(videos), desc=where, unit="video", leave=False):
        beside = folder / f"{video.name}.json"
        reset = reset_peak_memory(session.device)
        done = predict(label_video, [video], folder, progress=False)
        if done.videos:
            peak = peak_memory(session.device) if reset else None
            write_json(beside, {"frames": done.frames, "seconds": done.seconds, "peak_memory_bytes": peak})
        if beside.is_file():  # an interruption may come between a video's labels and this file
            facts.append(json.loads(beside.read_text()))
    seconds = sum(fact["seconds"] for fact in facts)
    peaks = [fact["peak_memory_bytes"] for fact in facts if fact["peak_memory_bytes"]]
    return {
        "frames_per_second": sum(fact["frames"] for fact in facts) / seconds if seconds else None,
        "peak_memory_bytes": max(peaks, default=None),
    }


def _scored(
    predictions: Path, truth: VideoTruth, entry: Contender, protocol: EvalProtocol, session: Session
) -> Report:
    foreign = dict(entry.options) if entry.predictions is not None else {"kind": "labels"}
    return evaluate(
        open_predictions(predictions, **foreign),
        truth,
        protocol,
        sequences=truth.sequences,
        workers=session.config["benchmark"]["workers"],
        ignore_extra_frames=session.config["benchmark"].get("frames") is not None,
        cache=session.folder / "scores" if truth.on_disk else None,
    )


def _label_video(opened: Opened, task: Task, protocol: EvalProtocol) -> LabelVideo:
    if not isinstance(opened.segmenter, VideoSegmenter):
        return opened.segmenter
    if task == "lock_on":
        return follow_protocol(opened.segmenter, protocol)
    return follow(opened.segmenter, prompt_first=opened.segmenter.needs_prompt)


def _notes(entry: Contender, opened: Opened | None, task: Task) -> tuple[str, ...]:
    prompted = task == "discovery" and opened is not None and opened.segmenter.needs_prompt
    notes = {UNTRAINED: entry.is_untrained, PROMPTED: prompted}
    return tuple(note for note, holds in notes.items() if holds)


def _left_out(report: Report, truth: VideoTruth) -> tuple[str, ...]:
    """A footnote where some videos are not in the means."""
    names = [name for name in truth.sequences if name not in report.videos]
    note = f"nothing is scored in {some(names)}: too short, or no object in a scored frame"
    return (note,) if names else ()


def _block_notes(protocol: EvalProtocol, rows: Sequence[Row]) -> tuple[str, ...]:
    fitting = f"{protocol.name}: to be compared with {protocol.compare_with}"
    objects = {count for row in rows for count in row.objects.values()}
    return (fitting, ONE_OBJECT) if objects == {1} and "video/fg_ari" in rows[0].means else (fitting,)


def _machine(session: Session) -> str:
    """What speed and memory mean in this run."""
    if session.device.type == "cuda":
        where, memory = torch.cuda.get_device_name(session.device), "the peak of its allocator"
    else:
        where, memory = (
            f"{session.device} (threads: {torch.get_num_threads()})",
            "the peak of the whole process",
        )
    return (
        f"frames/s: segmenting and decoding, on {where}, torch {torch.__version__}; memory: {memory}; "
        "published speeds are of other machines"
    )


def _same_settings(folder: Path, entry: Contender, dataset: Dataset, task: Task, session: Session) -> None:
    """Predictions that lie there already have to be of the same method, weights, data and frames."""
    settings = {
        "contender": entry.identity(),
        "data": OmegaConf.to_container(OmegaConf.create(dict(dataset.node)), resolve=True),
        "frames": dataset.frames,
        "merge": dataset.protocols[task].merge_truth,
        "late": (task == "lock_on" and gives_late_objects(dataset.protocols[task])) or None,
        "seed": session.config["seed"],
    }
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, settings)
        return
    before = json.loads(path.read_text())
    changed = [key for key in settings if json.loads(json.dumps(settings[key])) != before.get(key)]
    if changed:
        raise ValueError(
            f"{folder} holds predictions of another {' and '.join(changed)}; give this entry another name, "
            "choose another benchmark.folder, or remove that folder"
        )
