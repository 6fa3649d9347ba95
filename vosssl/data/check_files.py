"""One video of frame and label files, looked at in a worker: counts and flaws come back, never pixels."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vosssl.clip import VOID
from vosssl.data.check_findings import EXAMPLES
from vosssl.data.io import IMAGE_SUFFIXES, decode_labels, image_size, read_image
from vosssl.data.listing import frame_name, natural_order
from vosssl.data.png import png_header
from vosssl.ops.resize import Size

JUNK = ("._", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".AppleDouble")
_OTHER_LABELS = (".json", ".pgm", ".ppm")  # LabelMe, FBMS-59
_LOSSY = (".jpg", ".jpeg", ".webp")  # never labels: compression changes ids
_KINDS = {"P": "palette", "L": "grey", "1": "1 bit", "I;16": "grey, 16 bit", "I": "grey, 32 bit"}
_REDUCED: Literal[8] = 8  # a JPEG's entropy coding is read to its end all the same, the rest is saved


@dataclass(frozen=True)
class VideoTask:
    """What to look at.

    Attributes:
        name: of the video.
        images: its folder of frames.
        annotations: its folder of labels; None where the part has none.
        chosen: names of its frames that a split file names; None for all.
        binary: labels are 0 and 255 for background and one object.
        plain: whether values of label files are ids; False (panoptic codes, colours) only decodes them.
        stills: images that have nothing to do with each other, of any size and number.
        sample: how many frames are decoded, spread evenly, the first labelled one among them; None for all.
    """

    name: str
    images: Path
    annotations: Path | None = None
    chosen: tuple[str, ...] | None = None
    binary: bool | None = None
    plain: bool = True
    stills: bool = False
    sample: int | None = None


@dataclass
class Flaws:
    """Files with one flaw: how many, and the first few with what is wrong."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Counts one."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def merge(self, other: Flaws) -> None:
        """Counts those of another video."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:EXAMPLES]


@dataclass
class VideoFacts:
    """What is known of a video after looking: of the same size however long it is.

    Attributes:
        name: of the video.
        frames: how many.
        step: the commonest distance of the numbers in the frames' names; None without numbers.
        labelled: frames with labels.
        first_labelled: whether the first frame is among them.
        checked: frames and labels that were decoded.
        sizes: "854x480" -> frames of that size.
        kinds: palette, grey, 0/255 (grey), RGB … -> label files.
        ids: object ids that occur, without background and void.
        first_ids: those of the first label file.
        void: label files with void (255).
        flaws: code -> files with it.
    """

    name: str
    frames: int = 0
    step: int | None = None
    labelled: int = 0
    first_labelled: bool = False
    checked: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    ids: frozenset[int] = frozenset()
    first_ids: frozenset[int] = frozenset()
    void: int = 0
    flaws: dict[str, Flaws] = field(default_factory=dict)

    def flaw(self, code: str, example: str) -> None:
        """Notes a file with a flaw."""
        self.flaws.setdefault(code, Flaws()).add(example)


def look_at_video(task: VideoTask) -> VideoFacts:
    """Lists a video's files and decodes those that were asked for.

    Args:
        task: the video.

    Returns:
        Its facts; problems become flaws, nothing is raised for a damaged file.
    """
    facts = VideoFacts(task.name)
    images = _listed(task.images, facts, of_labels=False)
    if task.chosen is not None:
        wanted = set(task.chosen)
        for missing in sorted(wanted - {frame_name(name) for name in images}):
            facts.flaw("frames-of-split-missing", f"{task.name}/{missing}")
        images = [name for name in images if frame_name(name) in wanted]
    if task.annotations is not None and task.images in task.annotations.parents:
        facts.flaws.pop("folder-among-frames", None)  # FBMS-59: labels lie among the frames
    facts.frames = len(images)
    _look_at_names(images, facts)
    labels: dict[str, list[str]] = {}
    if task.annotations is not None:
        labels = _label_files(task.annotations, facts)
        frames = {frame_name(name) for name in images}
        strangers = [] if task.chosen is not None else sorted(set(labels) - frames)
        for stranger in strangers:
            facts.flaw("labels-without-frame", f"{task.name}/{labels[stranger][0]}")
        labels = {name: files for name, files in labels.items() if name in frames}
        facts.labelled = len(labels)
        facts.first_labelled = bool(images) and frame_name(images[0]) in labels
    _decode(task, images, labels, facts)
    if task.stills:
        for code in ("frames-of-several-sizes", "gaps-in-frames"):
            facts.flaws.pop(code, None)
    return facts


def _listed(folder: Path, facts: VideoFacts, *, of_labels: bool) -> list[str]:
    """Names of a folder's images in order; what lies there besides becomes a flaw."""
    found: list[str] = []
    code = "label" if of_labels else "frame"
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            place = f"{facts.name}/{entry.name}"
            if entry.name.startswith(JUNK):
                facts.flaw("junk", place)
            elif entry.is_dir():
                facts.flaw("folder-among-frames", place)
            elif of_labels and entry.name.lower().endswith(_OTHER_LABELS):
                found.append(entry.name)
            elif not entry.name.lower().endswith(IMAGE_SUFFIXES):
                facts.flaw(f"unsupported-{code}-file", place)
            elif entry.is_symlink() and not entry.is_file():
                facts.flaw("broken-link", place)
            elif of_labels and entry.name.lower().endswith(_LOSSY):
                facts.flaw("lossy-labels", place)
            else:
                found.append(entry.name)
    if len({len(name) for name in found}) > 1:
        found.sort(key=natural_order)
    return found


def _label_files(folder: Path, facts: VideoFacts) -> dict[str, list[str]]:
    """Frame name -> its label files, relative to the folder: one, or one in the folder of each object."""
    if not folder.is_dir():
        return {}
    names = _listed(folder, facts, of_labels=True)
    found = {frame_name(name): [name] for name in names}
    objects = facts.flaws.pop("folder-among-frames", None) if not found else None
    if objects is not None:  # SA-V, SegTrack v2
        for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
            for name in sorted(os.listdir(entry)):
                if name.lower().endswith(".png") and not name.startswith(JUNK):
                    found.setdefault(frame_name(name), []).append(f"{entry.name}/{name}")
        facts.kinds["folder per object"] += len(found)
    return found


def _objects_of(labels: Mapping[str, list[str]]) -> dict[str, int]:
    """The folders of objects, numbered from 1; empty where labels hold ids."""
    folders = {file.rpartition("/")[0] for files in labels.values() for file in files if "/" in file}
    return {folder: number for number, folder in enumerate(sorted(folders, key=natural_order), 1)}


def _look_at_names(images: Sequence[str], facts: VideoFacts) -> None:
    """Frames that exist twice, names that only differ in case, and gaps in their numbers."""
    stems = [frame_name(name) for name in images]
    for stem, count in Counter(stems).items():
        if count > 1:
            facts.flaw("frame-twice", f"{facts.name}/{stem}")
    for name, count in Counter(name.casefold() for name in set(images)).items():
        if count > 1:
            facts.flaw("names-differ-in-case", f"{facts.name}/{name}")
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    if len(numbers) != len(stems) or len(numbers) < 2:
        return
    steps = Counter(second - first for first, second in pairwise(sorted(set(numbers))))
    if not steps:
        return
    facts.step = steps.most_common(1)[0][0]
    for first, second in pairwise(sorted(set(numbers))):
        if second - first != facts.step:
            facts.flaw("gaps-in-frames", f"{facts.name} between {first} and {second}")


def _decode(task: VideoTask, images: list[str], labels: dict[str, list[str]], facts: VideoFacts) -> None:
    """Reads the frames and labels that were asked for."""
    objects = _objects_of(labels)
    first_label = next((name for name in images if frame_name(name) in labels), None)
    places = _spread(len(images), task.sample)
    if first_label is not None:
        places = sorted({*places, images.index(first_label)})
    seen: set[int] = set()
    native: Size | None = None
    for place in places:
        name = images[place]
        size = _look_at_image(task.images / name, facts)
        facts.checked += 1
        if size is not None:
            native = native or size
            if size != native:
                facts.flaw("frames-of-several-sizes", f"{task.name}/{name} is {_words(size)}")
        if task.annotations is None:
            continue
        for label in labels.get(frame_name(name), ()):
            path = task.annotations / label
            if not task.plain or label.endswith(_OTHER_LABELS):
                _look_at_coded(path, size, facts)
                continue
            number = objects.get(label.rpartition("/")[0])
            binary = task.binary if number is None else True
            ids = _look_at_labels(path, size, binary, facts, first=name == first_label)
            if ids is None:
                continue
            if number is not None:
                ids = {number} if ids else set()
            if name == first_label:
                facts.first_ids |= ids
            seen |= ids
    facts.ids = frozenset(seen.union(objects.values()))
    if native is not None and task.plain and task.annotations is not None and len(places) < len(images):
        looked = {frame_name(images[place]) for place in places}
        for name in sorted(labels.keys() - looked):
            for label in labels[name]:
                _compare_header(task.annotations / label, native, facts)


def _look_at_image(path: Path, facts: VideoFacts) -> Size | None:
    """(H, W) of a frame that can be decoded."""
    place = f"{facts.name}/{path.name}"
    try:
        if path.stat().st_size == 0:
            facts.flaw("unreadable-frame", f"{place} (0 bytes)")
            return None
        size = image_size(path)
        read_image(path, reduce=_REDUCED)
    except (OSError, ValueError, SyntaxError):
        facts.flaw("unreadable-frame", f"{place} ({path.stat().st_size} bytes)")
        return None
    facts.sizes[_words(size)] += 1
    return size


def _look_at_labels(
    path: Path, size: Size | None, binary: bool | None, facts: VideoFacts, *, first: bool
) -> set[int] | None:
    """Object ids of a label file that can be decoded."""
    place = f"{facts.name}/{path.name}"
    try:
        encoded = path.read_bytes()
        with Image.open(path) as image:
            mode = image.mode
        if mode in ("RGB", "RGBA"):
            facts.kinds["RGB"] += 1
            if not binary:
                facts.flaw("coloured-labels", place)
                return None
        ids = decode_labels(encoded, path, binary=mode in ("RGB", "RGBA")).numpy()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        wide = "expected object ids" in str(error)
        facts.flaw("ids-above-255" if wide else "unreadable-labels", place)
        return None
    if size is not None and ids.shape != size:
        facts.flaw("labels-of-other-size", f"{place} is {_words(ids.shape)}, its frame {_words(size)}")
    present = set(np.flatnonzero(np.bincount(ids.reshape(-1), minlength=VOID + 1)).tolist())
    only_ends = VOID in present and present <= {0, VOID}
    if mode not in ("RGB", "RGBA"):
        facts.kinds["0/255" if only_ends else _KINDS.get(mode, mode)] += 1
    if binary:
        if len(present - {0, VOID}) > 1:
            facts.flaw("several-ids-but-binary", place)
        return {1} if present - {0} else set()
    if only_ends and binary is None and first:
        facts.flaw("zero-and-255", place)
    facts.void += VOID in present
    return present - {0, VOID}


def _look_at_coded(path: Path, size: Size | None, facts: VideoFacts) -> None:
    """Decodes a label file whose values stand for something else than ids."""
    place = f"{facts.name}/{path.name}"
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
            facts.kinds["JSON"] += 1
            return
        with Image.open(path) as image:
            image.load()
            mode, found = image.mode, (image.size[1], image.size[0])
    except (OSError, ValueError, SyntaxError):
        facts.flaw("unreadable-labels", place)
        return
    facts.kinds[f"codes, {_KINDS.get(mode, mode)}"] += 1
    if size is not None and found != size:
        facts.flaw("labels-of-other-size", f"{place} is {_words(found)}, its frame {_words(size)}")


def _compare_header(path: Path, size: Size, facts: VideoFacts) -> None:
    """The size of a label file that is not decoded, from its first bytes."""
    with path.open("rb") as stream:
        header = png_header(stream.read(33))
    if header is not None and header.size != size:
        facts.flaw(
            "labels-of-other-size",
            f"{facts.name}/{path.name} is {_words(header.size)}, its frame {_words(size)}",
        )


def _spread(length: int, sample: int | None) -> list[int]:
    """Places of `sample` frames from the first to the last."""
    if sample is None or sample >= length:
        return list(range(length))
    return sorted({round(place) for place in np.linspace(0, length - 1, sample)})


def _words(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"
