"""One video that is annotated: what it looks like over time, where it is worst, corrections, files.

A thin layer over `ClickAndTrack`, which holds objects, masks and tracks and saves what is accepted and
tracked. Here the draft is saved too, so that a program that is killed loses nothing that was clicked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from vosssl.annotation.correction import Correction
from vosssl.annotation.second_source import SecondSource
from vosssl.data.coco_export import write_coco
from vosssl.data.cvat_export import write_cvat
from vosssl.data.files import atomic_write
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.data.yolo_export import write_yolo
from vosssl.propagation.click_and_track import SAVED_EVERY, ClickAndTrack
from vosssl.propagation.mask_drafts import Draft
from vosssl.propagation.segmenter import Box, VideoSegmenter
from vosssl.propagation.tracking_steps import TrackedFrame

Format = Literal["davis", "coco", "cvat", "yolo"]
FORMATS: tuple[Format, ...] = ("davis", "coco", "cvat", "yolo")


class FrameScore(NamedTuple):
    """How sure one may be of a frame.

    Attributes:
        confidence: of the object that is tracked worst, mean probability of its pixels; None: no labels.
        disagreement: 1 - intersection over union with the second source, of the object where it is largest;
            None: there is no second source for the frame.
        said: a person gave masks here.
    """

    confidence: float | None
    disagreement: float | None
    said: bool

    @property
    def badness(self) -> float | None:
        """0 good to 1 bad; None where there is nothing to look at: no labels, or a person's own."""
        if self.confidence is None or self.said:
            return None
        return max(1 - self.confidence, self.disagreement or 0.0)


class Annotation:
    """A video that is annotated.

    Args:
        work: its objects, masks and tracks; its folder is the project's.
        second: makes a segmenter that is independent of the one that tracks; `check` compares them. None:
            there is none.

    Attributes:
        work: the same.
        frame: that was looked at last; it is there again when the project is opened again.
        names: what objects are called, by id.
    """

    def __init__(self, work: ClickAndTrack, *, second: Callable[[], VideoSegmenter] | None = None) -> None:
        self.work = work
        self.folder = work.folder
        self.second = None if second is None else SecondSource(work, second)
        self.frame = 0
        self.names: dict[int, str] = {}
        self._load()

    def click(
        self, frame: int, x: float, y: float, *, positive: bool = True, identity: int | None = None
    ) -> Draft:
        """See `ClickAndTrack.click`."""
        return self._kept(self.work.click(frame, x, y, positive=positive, identity=identity))

    def box(self, frame: int, box: Box, *, identity: int | None = None) -> Draft:
        """See `ClickAndTrack.box`."""
        return self._kept(self.work.box(frame, box, identity=identity))

    def brush(
        self,
        frame: int,
        stroke: Sequence[tuple[float, float]],
        *,
        radius: float,
        erase: bool = False,
        identity: int | None = None,
    ) -> Draft:
        """Paints on the draft, or on the mask that is known of the object.

        Args:
            frame: its number.
            stroke: x and y in pixels of the frame, along the brush's way.
            radius: of the brush, in pixels.
            erase: take away instead.
            identity: of the object; None: the draft's, or a new one.

        Raises:
            ValueError: no such frame or object, an empty stroke, or a radius that is not above 0.
        """
        height, width = self.work.video.size
        limit = 4 * max(height, width)
        if not stroke or not 0 < radius <= limit or not np.isfinite(np.array(stroke)).all():
            raise ValueError(
                f"a stroke of {len(stroke)} points and radius {radius}: expected points, a radius above 0"
            )
        mask = self._mask_so_far(frame, identity).numpy().astype(np.uint8)
        points = np.clip(np.array(stroke, np.float64) - 0.5, -limit, limit)
        fixed = np.round(points * 16).astype(np.int32)  # OpenCV's 4 bits below a pixel
        value = 0 if erase else 1
        cv2.polylines(mask, [fixed], False, value, max(1, round(2 * radius)), cv2.LINE_8, 4)
        for x, y in fixed[[0, -1]]:
            cv2.circle(mask, (int(x), int(y)), round(radius * 16), value, -1, cv2.LINE_8, 4)
        return self._kept(self.work.mask(frame, torch.from_numpy(mask), identity=identity))

    def accept(self) -> int:
        """See `ClickAndTrack.accept`."""
        return self._then_save(self.work.accept)

    def discard(self) -> None:
        """See `ClickAndTrack.discard`."""
        self._then_save(self.work.discard)

    def undo(self) -> str | None:
        """See `ClickAndTrack.undo`."""
        return self._then_save(self.work.undo)

    def remove(self, identity: int) -> None:
        """See `ClickAndTrack.remove`."""
        self._then_save(lambda: self.work.remove(identity))

    def call(self, identity: int, name: str) -> None:
        """Gives an object a name, which exports use as its category."""
        if identity not in self.work.objects:
            raise ValueError(f"there is no object {identity}")
        self.names[identity] = name.strip()[:100]
        self.save()

    def spread(self, frame: int) -> Iterator[TrackedFrame]:
        """Carries what was said in a frame both ways, up to the next frames that a person spoke about.

        A way ends before that once it finds what is known already, or is less sure than what is known (see
        `Correction`): it changes what was wrong, not the good track behind it.

        Args:
            frame: one in which masks were accepted.

        Yields:
            The frames that changed, first forwards, then backwards.

        Raises:
            ValueError: nothing was said in this frame.
        """
        objects = set(self.work.said(frame))
        if not objects:
            raise ValueError(f"no mask was accepted in frame {frame}; accept one there first")
        others = [other for other in self.work.prompted_frames if objects & set(self.work.said(other))]
        after = min((other - 1 for other in others if other > frame), default=None)
        before = max((other + 1 for other in others if other < frame), default=0)
        ways = []
        if after != frame:
            ways.append(self.work.track(frame, until=after, worth=Correction(self.work, frame)))
        if before < frame:
            correction = Correction(self.work, frame)
            ways.append(self.work.track(frame, reverse=True, until=before, worth=correction))
        for tracked in chain.from_iterable(ways):
            if tracked.frame != frame:
                yield tracked

    def check(self) -> Iterator[int]:
        """Lets the second source segment the video from the accepted masks.

        Yields:
            How many frames are done.

        Raises:
            ValueError: there is no second source, or nothing was accepted.
        """
        if self.second is None:
            raise ValueError("no second source was chosen: annotate.second=MODEL")
        yield from self.second.run()

    def scores(self) -> list[FrameScore]:
        """How sure one may be of every frame."""
        known, said = set(self.work.known_frames), set(self.work.prompted_frames)
        scores = []
        for frame in range(len(self.work.frames)):
            confidence = min(self.work.confidence(frame).values(), default=None) if frame in known else None
            differences = self.second.disagreement(frame) if self.second and frame in known else {}
            scores.append(FrameScore(confidence, max(differences.values(), default=None), frame in said))
        return scores

    def worst_frame(self) -> int | None:
        """The tracked frame of which one may be least sure; None: there is none."""
        rated = [(score.badness, -frame) for frame, score in enumerate(self.scores())]
        worst = max(((value, frame) for value, frame in rated if value is not None), default=None)
        return None if worst is None else -worst[1]

    def export(self, kind: str) -> Path:
        """Writes all frames that have labels, below `export` in the project's folder.

        Args:
            kind: one of `FORMATS`: DAVIS' folders of frames and palette PNGs, COCO JSON with run lengths,
                CVAT's XML for video, or YOLO's segmentation text files (with the frames).

        Returns:
            The file or folder that was written.

        Raises:
            ValueError: another format, or nothing is labelled.
        """
        if not self.work.known_frames:
            raise ValueError("nothing was accepted or tracked yet; there is nothing to export")
        place, name = self.folder / "export", self.work.video.name
        if kind == "davis":
            for index in self.work.known_frames:
                frame, file = self.work.frames.read(index), f"480p/{name}/{self.work.frames.name(index)}"
                write_image(place / "davis/JPEGImages" / f"{file}.jpg", frame.image)
                write_labels(place / "davis/Annotations" / f"{file}.png", self._labels(index))
            return place / "davis"
        if kind == "coco":
            path = place / "coco.json"
            write_coco(path, self._named(), video=name, names=self.names)
            return path
        if kind == "cvat":
            path = place / "cvat.xml"
            numbered = ((frame, self._labels(frame)) for frame in self.work.known_frames)
            write_cvat(path, numbered, video=name, length=len(self.work.frames), names=self.names)
            return path
        if kind == "yolo":
            with_images = (
                (frame, self.work.frames.read(index).image, labels)
                for index, (frame, labels) in zip(self.work.known_frames, self._named(), strict=True)
            )
            write_yolo(place / "yolo", with_images, names=self.names)
            return place / "yolo"
        raise ValueError(f"there is no format {kind!r}; there are: {', '.join(FORMATS)}")

    def look_at(self, frame: int) -> None:
        """Remembers which frame is looked at."""
        self.work.frames.require(frame)
        self.frame = frame
        self.save()

    def follow(self, steps: Iterable[TrackedFrame]) -> Iterator[int]:
        """The frames of a pass, each looked at in its turn, so that a killed pass is found where it was."""
        saved = time.monotonic()
        try:
            for tracked in steps:
                self.frame = tracked.frame
                if time.monotonic() - saved > SAVED_EVERY:
                    self.save()
                    saved = time.monotonic()
                yield tracked.frame
        finally:
            self.save()

    def save(self) -> None:
        """Writes what `ClickAndTrack` does not save: the draft, names, the frame that is looked at."""
        draft = self.work.draft
        content: dict[str, Any] = {"frame": self.frame, "names": self.names, "draft": None}
        if draft is not None:
            content["draft"] = {
                "frame": draft.frame,
                "identity": draft.identity,
                "score": draft.score,
                "points": draft.points,
                "box": sides(draft.box),
                "given": draft.given,
            }
            write_labels(self.folder / "draft.png", draft.mask.byte())
        with atomic_write(self.folder / "annotation.json") as path:
            path.write_text(json.dumps(content))

    def _load(self) -> None:
        path = self.folder / "annotation.json"
        if not path.is_file():
            return
        try:
            content = json.loads(path.read_text())
            self.frame = self._still_known(min(max(int(content["frame"]), 0), len(self.work.frames) - 1))
            self.names = {int(key): str(value) for key, value in content["names"].items()}
            kept = content["draft"]
            if kept is not None:
                mask = read_labels(self.folder / "draft.png", size=self.work.video.size) > 0
                points = tuple((float(x), float(y), bool(on)) for x, y, on in kept["points"])
                box = None if kept["box"] is None else Box(*map(float, kept["box"]))
                self.work.draft = Draft(
                    int(kept["frame"]),
                    int(kept["identity"]),
                    mask,
                    kept["score"],
                    points,
                    box,
                    bool(kept["given"]),
                )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); move it away, masks and tracks stay") from error

    def _still_known(self, frame: int) -> int:
        """The frame, or of a pass that was killed the last one before it of which all was written."""
        known = self.work.known_frames
        if not known or frame in known or not self.work.label_file(frame).is_file():
            return frame
        return min(known, key=lambda other: abs(other - frame))

    def _kept(self, draft: Draft) -> Draft:
        self.save()
        return draft

    def _then_save(self, action: Callable[[], Any]) -> Any:
        result = action()
        self.save()
        return result

    def _mask_so_far(self, frame: int, identity: int | None) -> Tensor:
        """(H, W) bool of the draft, or of what is known of the object."""
        self.work.frames.require(frame)
        draft = self.work.draft
        if draft is not None and draft.frame == frame and identity in (None, draft.identity):
            return draft.mask.clone()
        labels = self.work.labels(frame)
        if labels is None or identity is None:
            return torch.zeros(self.work.video.size, dtype=torch.bool)
        return labels == identity

    def _labels(self, frame: int) -> Tensor:
        labels = self.work.labels(frame)
        assert labels is not None
        return labels

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for frame in self.work.known_frames:
            yield self.work.frames.name(frame), self._labels(frame)


def sides(box: Box | None) -> list[float] | None:
    """A box as JSON has it: left, top, right, bottom."""
    return None if box is None else [box.left, box.top, box.right, box.bottom]
