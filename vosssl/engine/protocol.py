"""EvalProtocol: what exactly is compared with what. Facts from eval/protocols, not options of a command
line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

import vosssl

Task = Literal["semi-supervised", "unsupervised"]
Objects = Literal["first-frame", "any-frame", "first-or-any"]
Frames = Literal["video", "object", "listed"]
Counted = Literal["always", "from-first", "after-first", "first-seen"]
SEGMENTATION = ("fg_ari", "ari", "mbo", "miou")
OBJECT_JF = ("object_jf", "object_j", "object_f")  # J&F, J and F of the object-centric papers
METRICS = (
    *("J", "F"),
    *(f"{scope}/{name}" for scope in ("video", "image") for name in (*SEGMENTATION, *OBJECT_JF)),
)


@dataclass(frozen=True)
class EvalProtocol:
    """How J and F are measured on a dataset.

    Attributes:
        name: what a table calls it.
        task: `semi-supervised` compares equal ids; `unsupervised` matches proposals to objects, once a video.
        prompt: whether the method is given the labels of the first frame.
        skip_first: the first frame is not scored.
        skip_last: the last frame is not scored.
        frames: whose first and last. `video`: the video's. `object`: each object is scored by itself, over
            the frames in which the truth has a file of it, by its whole mask where masks overlap too; a truth
            without files per object has the video's frames. `listed`: likewise, over the range that the
            truth's `*_meta.json` gives the object, see `engine/object_frames.py`.
        objects: `first-frame`: ids 1..n, n the largest in the first frame's truth (an id that nobody uses
            counts, a late object does not); `any-frame`: the ids that occur in the truth of a scored frame;
            `first-or-any`: those, and the ids of the first frame.
        void: truth 255 is cut out of both masks; otherwise it is background.
        merge_truth: every truth value above 0, 255 included, is the one object.
        merge_predictions: every predicted id is the one object.
        extra_ids: predicted ids above n are an `error`, or are left out (`ignore`); semi-supervised only.
        extra_frames: predicted frames without truth are an `error`, where the truth has every frame (DAVIS),
            or are left out (`ignore`).
        max_proposals: more predicted ids in a video are an error; unsupervised only.
        metrics: what is measured: J, F, `video/…` and `image/…` of fg_ari, ari, mbo, miou,
            and object_jf, object_j, object_f, which are those of `metrics/object_jf.py`, not of DAVIS.
        counted: frames of an object that count. `always`: all that are scored; `from-first`: from the one in
            which the truth shows it first; `after-first`: without that one; `first-seen`: from the first in
            which truth or prediction shows it.
        average: J and F of a set are means over `objects`, or over `frames`: each in which truth or
            prediction shows the object weighs the same, the others do not count.
        split: `seen-unseen`: J and F also by whether an object's category was in the training set, and `G`,
            the mean of the four, see `engine/categories.py`.
        chunk: `video/…` metrics are of pieces of so many frames, what is left over at the end is dropped;
            None: of whole videos.
        crop: `center`: both are cut to the largest central square before anything else.
        size: (H, W) to which both are brought (nearest pixel) before scoring; None: the truth's.
        background: the background is a true object for mBO and mIoU.
        skip_empty: frames and videos without any true object do not count for ARI; otherwise they score 1.
        videos: how many there are in the whole set; 0: any number.
        source: where this is written.
        compare_with: which published numbers may stand beside these.
    """

    name: str
    task: Task
    prompt: Literal["first-frame", "none"] = "first-frame"
    skip_first: bool = False
    skip_last: bool = False
    frames: Frames = "video"
    objects: Objects = "first-frame"
    void: bool = False
    merge_truth: bool = False
    merge_predictions: bool = False
    extra_ids: Literal["error", "ignore"] = "error"
    extra_frames: Literal["error", "ignore"] = "ignore"
    max_proposals: int | None = None
    metrics: tuple[str, ...] = ("J", "F")
    counted: Counted = "always"
    average: Literal["objects", "frames"] = "objects"
    split: Literal["none", "seen-unseen"] = "none"
    chunk: int | None = None
    crop: Literal["none", "center"] = "none"
    size: tuple[int, int] | None = None
    background: bool = False
    skip_empty: bool = False
    videos: int = 0
    source: str = ""
    compare_with: str = ""

    @property
    def region_metrics(self) -> bool:
        """Whether J and F are measured."""
        return "J" in self.metrics or "F" in self.metrics

    @property
    def scores_whole_masks(self) -> bool:
        """Whether objects are scored one by one, over frames of their own."""
        whole = self.segmentation_metrics or self.object_jf_metrics
        flat = (self.void, self.merge_truth, self.merge_predictions, whole, self.size)
        return (
            self.frames != "video"
            and self.task == "semi-supervised"
            and self.objects == "any-frame"
            and self.crop == "none"
            and self.average == "objects"
            and not any(flat)
        )

    def first_counted(self, shown: Sequence[tuple[bool, bool]]) -> int:
        """The first of an object's frames that counts.

        Args:
            shown: for each scored frame whether the truth and whether the prediction shows the object.

        Returns:
            A position; the number of frames when none counts.
        """
        if self.counted == "always":
            return 0
        either = self.counted == "first-seen"
        first = next((place for place, (true, found) in enumerate(shown) if true or (either and found)), 0)
        return first + (self.counted == "after-first")

    @property
    def segmentation_metrics(self) -> bool:
        """Whether ARI, mBO or mIoU are measured."""
        return any(metric.endswith(SEGMENTATION) for metric in self.metrics)

    @property
    def object_jf_metrics(self) -> bool:
        """Whether the J&F of the object-centric papers is measured."""
        return any(metric.endswith(OBJECT_JF) for metric in self.metrics)


DISCOVERY = EvalProtocol(
    name="discovery",
    task="unsupervised",
    prompt="none",
    objects="any-frame",
    void=True,
    metrics=("J", "F", *(f"{scope}/{name}" for scope in ("video", "image") for name in SEGMENTATION)),
    source="DAVIS 2019 unsupervised matching, objects of all frames, any number of segments",
    compare_with="other rows of this table",
)

LOCK_ON = EvalProtocol(
    name="lock-on",
    task="semi-supervised",
    skip_first=True,
    skip_last=True,
    extra_ids="ignore",
    source="the rules of DAVIS 2017 val, for data that have no protocol of their own",
    compare_with="other rows of this table",
)


def protocol_folders() -> tuple[Path, ...]:
    """Where protocols are looked for: inside the installed package, else beside it in a checkout."""
    package = Path(vosssl.__file__).parent
    return package / "protocols", package.parent / "eval" / "protocols"


def list_protocols() -> list[str]:
    """Names of the protocols that `load_protocol` knows."""
    return sorted(path.stem for folder in protocol_folders() for path in folder.glob("*.yaml"))


def load_protocol(name: str | Path | EvalProtocol) -> EvalProtocol:
    """Reads a protocol.

    Args:
        name: a name such as `davis17-val`, the path of a yaml file, or a protocol, which is returned.

    Returns:
        The protocol.

    Raises:
        ValueError: an unknown name, field or value; says what there is.
    """
    if isinstance(name, EvalProtocol):
        return name
    path = _find(name)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(EvalProtocol)}
    if not isinstance(content, dict) or not {"name", "task"} <= content.keys() <= known:
        given = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"protocol {path} holds {given}, expected name, task and any of {sorted(known)}")
    for field, choices in _CHOICES.items():
        if field in content and content[field] not in choices:
            raise ValueError(f"{field} of protocol {path} is {content[field]!r}, expected one of {choices}")
    wrong = [metric for metric in content.get("metrics", ()) if metric not in METRICS]
    if wrong:
        raise ValueError(f"metrics of protocol {path} are {wrong}, expected some of {', '.join(METRICS)}")
    for field in ("metrics", "size"):
        if content.get(field) is not None:
            content[field] = tuple(content[field])
    protocol = EvalProtocol(**content)
    if protocol.frames != "video" and not protocol.scores_whole_masks:
        raise ValueError(
            f"protocol {path} has frames: {protocol.frames}, which goes with semi-supervised J and F alone: "
            "no void, merged ids, crop, size, or ids of the first frame"
        )
    return protocol


_CHOICES: dict[str, tuple[Any, ...]] = {
    "task": ("semi-supervised", "unsupervised"),
    "prompt": ("first-frame", "none"),
    "frames": ("video", "object", "listed"),
    "objects": ("first-frame", "any-frame", "first-or-any"),
    "extra_ids": ("error", "ignore"),
    "extra_frames": ("error", "ignore"),
    "counted": ("always", "from-first", "after-first", "first-seen"),
    "average": ("objects", "frames"),
    "crop": ("none", "center"),
    "split": ("none", "seen-unseen"),
} | dict.fromkeys(
    ("skip_first", "skip_last", "void", "merge_truth", "merge_predictions", "background", "skip_empty"),
    (True, False),
)


def _find(name: str | Path) -> Path:
    for candidate in _candidates(name):
        if candidate.is_file():
            return candidate
    close = difflib.get_close_matches(str(name), list_protocols(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"no protocol {name}, expected one of {', '.join(list_protocols())} or a yaml file{hint}"
    )


def _candidates(name: str | Path) -> Iterator[Path]:
    if str(name).endswith((".yaml", ".yml")):
        yield Path(name)
    yield from (folder / f"{name}.yaml" for folder in protocol_folders())
