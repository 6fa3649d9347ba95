"""What the page can ask for, without the page: actions by name, long ones in the background, pictures."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vosssl.annotation.overlays import encoded, outlined, painted
from vosssl.annotation.project import FORMATS, Annotation, sides
from vosssl.annotation.uploads import receive
from vosssl.engine.drawing import id_colors
from vosssl.engine.html_page import css_color
from vosssl.propagation.segmenter import Box

log = logging.getLogger(__name__)
YIELD = 0.002  # seconds between two frames of a job: what waits for the lock gets its turn
USER_ERRORS = (ValueError, OSError, MemoryError)


class TextFinder(Protocol):
    """Boxes of what a text names in an image (3, H, W), best first, with scores in [0, 1]."""

    def __call__(self, image: Tensor, text: str) -> list[tuple[Box, float]]: ...


@dataclass
class Job:
    """Something long that is under way.

    Attributes:
        name: what, in words.
        total: steps that it will take, about.
        number: 1 for the first job of the desk.
        done: steps.
        frame: reached last.
        message: how it ended; empty while it goes on.
        failed: whether that is an error.
    """

    name: str
    total: int
    number: int
    done: int = 0
    frame: int = 0
    message: str = ""
    failed: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class Desk:
    """One project at a time, asked by many threads.

    Args:
        open_project: makes the project of a video file or folder.
        folder: of all projects and uploaded videos.
        project: the first one; None: a video has to be uploaded.
        finder: turns text into boxes; None: says why there is none.
    """

    def __init__(
        self,
        open_project: Callable[[Path], Annotation],
        *,
        folder: Path,
        project: Annotation | None = None,
        finder: TextFinder | None = None,
    ) -> None:
        self.folder = folder
        self.project = project
        self.finder = finder
        self.job: Job | None = None
        self.lock = threading.RLock()
        self.version = 0  # grows with every change, so that the page knows when to look
        self._open = open_project
        self._jobs = 0
        self._thread: threading.Thread | None = None
        self._actions: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "click": self._click,
            "box": self._box,
            "brush": self._brush,
            "accept": lambda said: self._about().accept(),
            "discard": lambda said: self._about().discard(),
            "undo": lambda said: self._about().undo() or "nothing",
            "absent": self._absent,
            "remove": lambda said: self._about().remove(_whole(said, "object")),
            "name": lambda said: self._about().call(_whole(said, "object"), str(said.get("name", ""))),
            "look": lambda said: self._about().look_at(_whole(said, "frame")),
            "track": self._track,
            "spread": self._spread,
            "check": self._check,
            "worst": lambda said: self._about().worst_frame(),
            "text": self._text,
            "export": self._export,
        }

    def act(self, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Does something; what is under way is stopped first.

        Args:
            name: of the action.
            said: what it is about.

        Returns:
            `result`, and the `state` afterwards.

        Raises:
            ValueError: no such action, or something that cannot be; the project is as it was.
        """
        if name == "stop":
            self.stop()
            return {"result": None, "state": self.state()}
        if name not in self._actions:
            raise ValueError(f"there is no action {name!r}; there are: {', '.join([*self._actions, 'stop'])}")
        if name not in ("look", "worst"):
            self.stop()
        with self.lock:
            result = self._actions[name](said)
            if name not in ("look", "worst", "export"):
                self.version += 1
        return {"result": result, "state": self.state()}

    def stop(self) -> None:
        """Ends what is under way, and waits for it; what it did is kept."""
        thread, job = self._thread, self.job
        if job is not None and thread is not None and thread.is_alive():
            job.stop.set()
            thread.join()

    def state(self) -> dict[str, Any]:
        """What the page shows besides pictures."""
        with self.lock:
            job = self.job
            common = {
                "version": self.version,
                "job": None
                if job is None
                else {
                    "name": job.name,
                    "number": job.number,
                    "total": job.total,
                    "done": job.done,
                    "frame": job.frame,
                    "message": job.message,
                    "failed": job.failed,
                },
            }
            if self.project is None:
                return {**common, "video": None}
            work, draft = self.project.work, self.project.work.draft
            colours = id_colors()
            height, width = work.video.size
            return {
                **common,
                "video": work.video.name,
                "frames": len(work.frames),
                "height": height,
                "width": width,
                "frame": self.project.frame,
                "folder": str(self.project.folder.resolve()),
                "segmenter": type(work.segmenter).__name__,
                "second": self.project.second is not None,
                "text": self.finder is not None,
                "next": work.next_identity,
                "next_colour": css_color(colours[work.next_identity]),
                "objects": [
                    {"id": key, "colour": css_color(colours[key]), "name": self.project.names.get(key, "")}
                    for key in work.objects
                ],
                "draft": None
                if draft is None
                else {
                    "frame": draft.frame,
                    "object": draft.identity,
                    "score": draft.score,
                    "points": draft.points,
                    "box": sides(draft.box),
                },
            }

    def timeline(self) -> dict[str, Any]:
        """Confidence and disagreement of every frame; null where there is none."""
        with self.lock:
            scores = [] if self.project is None else self.project.scores()
            return {
                "version": self.version,
                "confidence": [score.confidence for score in scores],
                "disagreement": [score.disagreement for score in scores],
                "said": [frame for frame, score in enumerate(scores) if score.said],
            }

    def frame_jpeg(self, frame: int) -> bytes:
        """A frame of the video."""
        with self.lock:
            image = self._about().work.frames.read(frame).image  # (3, H, W) RGB
        return encoded(".jpg", image.flip(0).permute(1, 2, 0).contiguous().numpy())

    def masks_png(self, frame: int) -> bytes:
        """The masks of a frame as a transparent picture; the draft's is dashed."""
        with self.lock:
            work = self._about().work
            labels, draft = work.labels(frame), work.draft
            labels = torch.zeros(work.video.size, dtype=torch.uint8) if labels is None else labels
        own = draft if draft is not None and draft.frame == frame else None
        if own is not None:
            labels = torch.where(own.mask, own.identity, torch.where(labels == own.identity, 0, labels))
        return encoded(".png", painted(labels.to(torch.uint8), draft=own.mask if own else None))

    def second_png(self, frame: int) -> bytes:
        """Outlines of what the second source found in a frame, as a transparent picture."""
        with self.lock:
            project = self._about()
            project.work.frames.require(frame)
            labels = None if project.second is None else project.second.read(frame)
            labels = torch.zeros(project.work.video.size, dtype=torch.uint8) if labels is None else labels
        return encoded(".png", outlined(labels))

    def upload(self, name: str, body: Iterable[bytes]) -> dict[str, Any]:
        """Keeps a video that was sent, and opens it.

        Args:
            name: of the file, without folders.
            body: its bytes, in parts.

        Raises:
            ValueError: not a video that can be read; the project that was open stays open.
        """
        path = receive(name, body, self.folder / "uploads")
        try:
            return self.open(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def open(self, path: Path) -> dict[str, Any]:
        """Opens another video; the one before is saved already."""
        self.stop()
        with self.lock:
            project = self._open(path)
            project.work.frames.read(0)
            self.project, self.job = project, None
            self.version += 1
            return {"result": path.name, "state": self.state()}

    def _about(self) -> Annotation:
        if self.project is None:
            raise ValueError("no video is open; upload one")
        return self.project

    def _identity(self, said: Mapping[str, Any]) -> int | None:
        return _whole(said, "object") if said.get("object") is not None else self._about().work.next_identity

    def _click(self, said: Mapping[str, Any]) -> None:
        x, y = _numbers(said, "x", "y")
        positive = bool(said.get("positive", True))
        self._about().click(_whole(said, "frame"), x, y, positive=positive, identity=self._identity(said))

    def _box(self, said: Mapping[str, Any]) -> None:
        box = Box(*_numbers(said, "left", "top", "right", "bottom"))
        self._about().box(_whole(said, "frame"), box, identity=self._identity(said))

    def _brush(self, said: Mapping[str, Any]) -> None:
        stroke = said.get("stroke")
        if not isinstance(stroke, list) or not 0 < len(stroke) <= 10_000:
            raise ValueError("a stroke is a list of 1 to 10000 points [x, y]")
        points = [tuple(_numbers({"x": point[0], "y": point[1]}, "x", "y")) for point in map(_pair, stroke)]
        self._about().brush(
            _whole(said, "frame"),
            [(x, y) for x, y in points],
            radius=_numbers(said, "radius")[0],
            erase=bool(said.get("erase", False)),
            identity=self._identity(said),
        )

    def _absent(self, said: Mapping[str, Any]) -> None:
        project = self._about()
        project.work.set_absent(_whole(said, "frame"), _whole(said, "object"))
        project.save()

    def _track(self, said: Mapping[str, Any]) -> None:
        project, frame, reverse = self._about(), _whole(said, "frame"), bool(said.get("reverse", False))
        work = project.work
        total = frame if reverse else len(work.frames) - 1 - frame
        steps = work.track(frame, reverse=reverse)
        next(steps)  # the frame itself, or what is wrong with it
        name = f"tracking {'backwards' if reverse else 'forwards'} from frame {frame}"
        self._start(name, total, project.follow(steps))

    def _spread(self, said: Mapping[str, Any]) -> None:
        project, frame = self._about(), _whole(said, "frame")
        if not project.work.said(frame):
            raise ValueError(f"no mask was accepted in frame {frame}; accept one there first")
        steps = (tracked.frame for tracked in project.spread(frame))
        self._start(f"carrying frame {frame} both ways", len(project.work.frames) - 1, steps)

    def _check(self, said: Mapping[str, Any]) -> None:
        project = self._about()
        steps = project.check()
        total, first = project.second.length if project.second else 0, next(steps)
        self._start("checking with the second source", total, steps, done=first)

    def _start(self, name: str, total: int, steps: Iterable[int], *, done: int = 0) -> None:
        """Takes steps in a thread of its own, each under the lock."""
        self._jobs += 1
        self.job = job = Job(name, max(total, 1), self._jobs, done=done)
        self._thread = threading.Thread(
            target=self._run, args=(job, iter(steps)), name="vosssl-job", daemon=True
        )
        self._thread.start()

    def _run(self, job: Job, steps: Any) -> None:
        try:
            while not job.stop.is_set():
                with self.lock:
                    frame = next(steps, None)
                    if frame is None:
                        break
                    job.done, job.frame = job.done + 1, frame
                    self.version += 1
                time.sleep(YIELD)
            with self.lock:
                steps.close()
            job.message = "stopped" if job.stop.is_set() else "done"
        except USER_ERRORS as error:
            job.failed, job.message = True, str(error) or type(error).__name__
        except Exception as error:
            log.exception("%s failed", job.name)
            job.failed, job.message = True, f"not foreseen: {type(error).__name__}: {error}"
        finally:
            with suppress(*USER_ERRORS), self.lock:
                self.version += 1

    def _text(self, said: Mapping[str, Any]) -> list[float]:
        """Boxes around what a text names; each in which the prompter sees something becomes an object."""
        project, frame = self._about(), _whole(said, "frame")
        if self.finder is None:
            raise ValueError("finding objects by text was not configured")
        text = str(said.get("text", "")).strip()
        if not text:
            raise ValueError("say what to look for, such as: a dog")
        scores = []
        for box, score in self.finder(project.work.frames.read(frame).image, text):
            if not bool(project.box(frame, box, identity=project.work.next_identity).mask.any()):
                project.discard()
                continue
            project.call(project.accept(), text)
            scores.append(score)
        if not scores:
            raise ValueError(f"nothing in frame {frame} was taken for {text!r}")
        return scores

    def _export(self, said: Mapping[str, Any]) -> str:
        kind = str(said.get("format", ""))
        if kind not in FORMATS:
            raise ValueError(f"there is no format {kind!r}; there are: {', '.join(FORMATS)}")
        return str(self._about().export(kind).resolve())


def _whole(said: Mapping[str, Any], key: str) -> int:
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, expected a whole number")
    return value


def _numbers(said: Mapping[str, Any], *keys: str) -> list[float]:
    values = [said.get(key) for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"{key} is {value!r}, expected a number")
    return [float(value) for value in values if value is not None]


def _pair(point: object) -> list[Any]:
    if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f"a point is {point!r}, expected [x, y]")
    return point
