"""mode=eval: scores a model on labelled video, beside trivial baselines; also what training validates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from vosssl.data.io import write_image
from vosssl.data.sampling import ClipDataset
from vosssl.data.video import Video
from vosssl.engine.evaluator import LabelVideo, evaluate_discovery, evaluate_lock_on
from vosssl.engine.interfaces import FitResult
from vosssl.engine.protocol import DISCOVERY, LOCK_ON, load_protocol
from vosssl.engine.report import COMPARISON_COLUMNS, DAVIS_COLUMNS, Comparison, Report
from vosssl.metrics.dice import dice_of_jaccard
from vosssl.modes import pictures
from vosssl.modes.build import build
from vosssl.modes.lock_on import clicked_reports, followed_over_time, lock_on_floors, lock_on_scores
from vosssl.modes.session import (
    Session,
    data_of,
    given_weights,
    network_of,
    require,
    require_segmenter,
    segmenter_of,
    start,
)
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.segmenter import VideoSegmenter
from vosssl.propagation.slot_tracking import SlotTracker

log = logging.getLogger(__name__)
VALIDATED = ("video/fg_ari", "video/ari", "video/mbo", "image/fg_ari", "image/mbo")


def run(cfg: DictConfig) -> None:
    """Scores the model on the data's evaluation videos and prints the table."""
    require_segmenter(cfg)
    require(cfg, "data", why="mode=eval")
    session = start(cfg)
    network = None
    if "network" in (cfg.get("method") or {}):
        network = network_of(cfg, session, weights=given_weights(cfg))
    score_and_report(cfg, session, network)
    log.info("report      %s", session.folder / "report.json")


def score_and_report(
    cfg: DictConfig, session: Session, network: nn.Module | None, *, training: FitResult | None = None
) -> Comparison:
    """Scores model and floors, prints the table, and writes report.json and scores.csv.

    Args:
        cfg: the composed configuration.
        session: the run.
        network: the method's network; None for methods without one.
        training: what the trainer did, for the report.

    Returns:
        The comparison.
    """
    videos = videos_of(cfg)
    segmenter = segmenter_of(cfg, session, network=network)
    protocol = protocol_of(cfg, segmenter)
    report = evaluated(cfg, segmenter, videos, protocol=protocol)
    baselines = floors_of(cfg, session, network, segmenter) if cfg.floors else {}
    rows = {name: evaluated(cfg, floor, videos, protocol=protocol) for name, floor in baselines.items()}
    if cfg.evaluate.task == "lock_on" and cfg.evaluate.get("clicks"):
        rows = clicked_reports(cfg, segmenter, videos) | rows
    facts = {"evaluation": dict(report.facts)}
    if isinstance(segmenter, ClassSegmenter):
        facts["evaluation"] |= class_scores(report)
    if training is not None:
        facts["training"] = asdict(training)
    comparison = Comparison(
        name=str(cfg.method.name),
        model=report,
        floors=rows,
        facts=facts,
    )
    comparison.to_json(session.folder / "report.json")
    report.to_csv(session.folder / "scores.csv")
    usual = DAVIS_COLUMNS if cfg.evaluate.task == "lock_on" else COMPARISON_COLUMNS
    columns = report.metrics if protocol else [one for one in usual if one in report.metrics]
    if cfg.mode == "eval":
        log.info("%s\n", report.table(columns=columns))
    alarms = "".join(
        f"\ncollapse alarm: {alarm.removeprefix('alarm/').replace('_', ' ')}"
        for alarm in (training.alarms if training else ())
    )
    log.info("%s%s\n", comparison.table(columns=columns), alarms)
    if report.protocol not in (DISCOVERY.name, LOCK_ON.name):
        log.info("may be compared with: %s", report.facts["compare_with"])
    gaps = [
        report.facts.get("incomplete"),
        cfg.evaluate.frames and f"first {cfg.evaluate.frames} frames of each",
    ]
    if any(gaps):
        log.info("incomplete: %s", "; ".join(filter(None, gaps)))
    return comparison


def follows_masks(segmenter: object) -> bool:
    """Whether it follows the masks it is given, and is judged by that."""
    takes_masks = isinstance(segmenter, VideoSegmenter) and "masks" in segmenter.prompt_kinds
    return takes_masks and not segmenter.discovers  # type: ignore[attr-defined]


def protocol_of(cfg: DictConfig, segmenter: VideoSegmenter) -> str | None:
    """The protocol that was asked for; networks of classes have one of their own, the rest None."""
    if cfg.evaluate.protocol is None and isinstance(segmenter, ClassSegmenter):
        return "foreground" if segmenter.num_classes == 2 else "classes"
    protocol: str | None = cfg.evaluate.protocol
    return protocol


def evaluated(
    cfg: DictConfig,
    segmenter: VideoSegmenter | LabelVideo,
    videos: Sequence[Video],
    *,
    protocol: str | None = None,
) -> Report:
    """One model or floor on the videos, by the task that was asked for and under a protocol, if there is one.

    Raises:
        ValueError: an unknown task.
    """
    task, frames = cfg.evaluate.task, cfg.evaluate.frames
    if task == "discovery":
        chosen = load_protocol(protocol) if protocol else DISCOVERY
        return evaluate_discovery(segmenter, videos, protocol=chosen, frames=frames)
    if task == "lock_on" and isinstance(segmenter, VideoSegmenter):
        rules = protocol or cfg.data.get("protocol") or LOCK_ON
        return evaluate_lock_on(segmenter, videos, protocol=rules, frames=frames)
    if task == "lock_on":
        raise ValueError(
            f"{cfg.method.name} finds objects itself and takes no masks: evaluate.task=discovery"
        )
    raise ValueError(f"evaluate.task is {task!r}, expected discovery or lock_on")


def floors_of(
    cfg: DictConfig, session: Session, network: nn.Module | None, segmenter: VideoSegmenter
) -> Mapping[str, LabelVideo | VideoSegmenter]:
    """The trivial baselines: as many clusters as the model has slots, and on its own features if it has any.

    Where the objects are given, what a method has to beat is the first frame's labels in every frame.
    """
    if cfg.evaluate.task != "discovery":
        return lock_on_floors(cfg, session, segmenter)
    if isinstance(segmenter, ClassSegmenter):
        node = {"_target_": "vosssl.methods.class_floors.class_floors"}
        clips = training_clips(cfg)
        return build(node, num_classes=segmenter.num_classes, clips=clips, device=session.device)
    clusters = getattr(segmenter, "num_slots", None) or getattr(network, "num_slots", 7)
    encode = getattr(network, "encode", None)
    return build(cfg.floors, clusters=clusters, encode=encode, size=segmenter.size, device=session.device)


def training_clips(cfg: DictConfig) -> ClipDataset | None:
    """The training data with their labels; None, and a word on why, where they are not at hand."""
    try:
        clips: ClipDataset = data_of(cfg, "train")
    except (ValueError, OSError) as error:
        log.info("no floor of mean training masks: %s", error)
        return None
    return clips


def videos_of(cfg: DictConfig, *, limit: int | None = None) -> list[Video]:
    """The evaluation videos of the data, lazily read; at most `evaluate.limit` of them."""
    limit = cfg.evaluate.limit if limit is None else limit
    return list(islice(data_of(cfg, "val").videos(), limit))


def class_scores(report: Report) -> dict[str, float]:
    """J (mean IoU), boundary F, their mean, and Dice, averaged as J is: over frames, then over objects."""
    frames = [torch.tensor(curve.values) for curve in report.curves if curve.metric == "J"]
    coefficients = [float(dice_of_jaccard(values).mean()) for values in frames if len(values)]
    scores = {name: report.mean(name) for name in ("J&F", "J", "F")}
    return scores | ({"dice": fmean(coefficients)} if coefficients else {})


@dataclass(frozen=True)
class Validation:
    """What the trainer's validation looks at: a few evaluation videos.

    Attributes:
        cfg: the composed configuration.
        session: the run.
        videos: the first `train.validation_clips` evaluation videos.
    """

    cfg: DictConfig
    session: Session
    videos: list[Video]

    @classmethod
    def of(cls, cfg: DictConfig, session: Session) -> Validation | None:
        """None for methods that give no masks and data without evaluation videos."""
        if "segmenter" not in cfg.method or not cfg.data.get("val") or not cfg.train.validate_every:
            return None
        return cls(cfg, session, videos_of(cfg, limit=cfg.train.validation_clips))

    def scores(self, network: nn.Module, step: int) -> Mapping[str, float]:
        """Scores of the present network: of discovery, or of the classes under the evaluation's protocol."""
        segmenter = segmenter_of(self.cfg, self.session, network=network, frozen=False)
        frames = self.cfg.train.validation_frames
        if follows_masks(segmenter):
            return lock_on_scores(self.cfg, segmenter, self.videos, frames=frames)
        if isinstance(segmenter, ClassSegmenter):
            return self._class_scores(segmenter, segmenter)
        report = evaluate_discovery(segmenter, self.videos, frames=frames, progress=False)
        return {name: value for name, value in report.means().items() if name in VALIDATED}

    def _class_scores(
        self, label_video: LabelVideo | VideoSegmenter, network: ClassSegmenter
    ) -> dict[str, float]:
        """Of the network of classes, or of a floor under its protocol."""
        report = evaluate_discovery(
            label_video,
            self.videos,
            protocol=load_protocol(protocol_of(self.cfg, network) or DISCOVERY),
            frames=self.cfg.train.validation_frames,
            progress=False,
        )
        return class_scores(report)

    def floors(self, network: nn.Module) -> Mapping[str, float]:
        """J&F of what followed masks or classes have to beat; nothing for others, and with `floors=null`."""
        segmenter = segmenter_of(self.cfg, self.session, network=network, frozen=False)
        if not self.cfg.floors or not (isinstance(segmenter, ClassSegmenter) or follows_masks(segmenter)):
            return {}
        if isinstance(segmenter, ClassSegmenter):
            rows = floors_of(self.cfg, self.session, network, segmenter).items()
            return {name: self._class_scores(floor, segmenter)["J&F"] for name, floor in rows}
        frames = self.cfg.train.validation_frames
        return {
            name: lock_on_scores(self.cfg, floor, self.videos, frames=frames)["J&F"]
            for name, floor in lock_on_floors(self.cfg, self.session, segmenter).items()
        }

    def images(self, network: nn.Module, step: int) -> Mapping[str, Tensor]:
        """Slot masks and attention of two clips over time; or truth and prediction of four."""
        segmenter = segmenter_of(self.cfg, self.session, network=network, frozen=False)
        if isinstance(segmenter, ClassSegmenter):
            picture = pictures.classes_over_time(segmenter, self.videos[:4])
            write_image(self.session.folder / "validation.png", picture)
            return {"classes": picture}
        if follows_masks(segmenter):
            picture = followed_over_time(segmenter, self.videos[:2])
            write_image(self.session.folder / "validation.png", picture)
            return {"followed": picture}
        if not isinstance(segmenter, SlotTracker):
            return {}
        return {f"clip/{video.name}": pictures.slots_over_time(segmenter, video) for video in self.videos[:2]}
