"""What a person does in the click-and-track window, without the window: events in, a picture out.

The window itself (`click_window`) only passes on mouse and keys and shows the picture; so do tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vosssl.engine import click_drawing as drawing
from vosssl.engine.click_drawing import Fact
from vosssl.engine.click_export import export_tracks
from vosssl.ops.resize import Size
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.segmenter import Box
from vosssl.propagation.tracking_steps import TrackedFrame

LARGEST_VIEW: Size = (720, 1280)
DRAG = 6  # pixels; less is a click
SMOOTHING = 0.8  # of the frame rate that is shown
WELCOME = "click on an object;  h: help"


class ClickSession:
    """The state of the window.

    Args:
        work: the objects, their masks and tracks.
        export_folder: gets what `e` exports.
        largest: (H, W) that frames are shown at, at most.
        clock: seconds, for the frame rate.

    Attributes:
        frame: number of the frame that is shown.
        identity: object that clicks are about; None: a new one.
        playing: whether the video goes on by itself.
        helping: whether the keys are shown.
        message: what happened last, and whether it went wrong.
        done: the window can be closed.
    """

    def __init__(
        self,
        work: ClickAndTrack,
        *,
        export_folder: str | Path,
        largest: Size = LARGEST_VIEW,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.work = work
        self.export_folder = Path(export_folder)
        self.size = drawing.view_size(work.video.size, largest)
        self.frame = 0
        self.identity: int | None = work.objects[-1] if work.objects else None
        self.playing = self.helping = self.done = False
        self.message, self.failed = WELCOME, False
        self.rate = 0.0
        self._clock = clock
        self._pass: Iterator[TrackedFrame] | None = None
        self._pressed: tuple[float, float] | None = None  # where the left button went down, in the picture
        self._dragged: tuple[float, float] | None = None
        self._untracked: set[int] = set()  # frames with acceptances that no pass has started from yet
        self._keys: dict[str, Callable[[], None]] = {
            "enter": self._accept,
            "space": self._play,
            "b": lambda: self._start(reverse=True),
            "t": lambda: self._start(reverse=False),
            "left": lambda: self._go(self.frame - 1),
            "right": self._forward,
            "home": lambda: self._go(0),
            "end": lambda: self._go(max(self.work.known_frames, default=0)),
            "n": self._new_object,
            "tab": self._next_object,
            "a": self._absent,
            "r": self._remove,
            "u": self._undo,
            "escape": self._discard,
            "e": self._export,
            "h": self._help,
            "q": self._quit,
        }

    @property
    def is_dragging(self) -> bool:
        """Whether the left button is down."""
        return self._pressed is not None

    def press(self, x: float, y: float, *, left: bool = True) -> None:
        """A mouse button goes down at a pixel of the picture."""
        self.helping = False
        if y >= self.size[0]:
            if y < self.size[0] + drawing.TIMELINE and left:
                self._try(lambda: self._go(drawing.frame_at(x, len(self.work.frames), self.size[1])))
        elif left:
            self._pressed = self._dragged = (x, y)
        else:
            self._try(lambda: self._click(x, y, positive=False))

    def move(self, x: float, y: float) -> None:
        """The mouse is at a pixel of the picture."""
        if self._pressed is not None:
            self._dragged = (x, y)

    def release(self, x: float, y: float) -> None:
        """The left button comes up: a click, or the other corner of a box."""
        start, self._pressed, self._dragged = self._pressed, None, None
        if start is None:
            return
        if max(abs(x - start[0]), abs(y - start[1])) < DRAG:
            self._try(lambda: self._click(*start, positive=True))
        else:
            self._try(lambda: self._box(start, (x, y)))

    def key(self, name: str) -> None:
        """A key: a character, or `enter`, `space`, `left`, `right`, `home`, `end`, `tab`, `escape`."""
        if name.isdigit() and name != "0":
            self._try(lambda: self._choose(int(name)))
        elif name in self._keys:
            self._try(self._keys[name])

    def tick(self) -> bool:
        """The next frame, while the video plays.

        Returns:
            Whether there is something new to show.
        """
        if not self.playing:
            return False
        self._try(self._advance)
        return True

    def picture(self) -> Tensor:
        """(3, H, W) uint8 RGB: frame, timeline, facts."""
        image = self.work.frames.read(self.frame).image
        draft = self.work.draft
        own = draft if draft is not None and draft.frame == self.frame else None
        view = drawing.frame_picture(image, self.work.labels(self.frame), own, self.size)
        if self._pressed is not None and self._dragged is not None:
            drawing.rectangle(view, (*self._pressed, *self._dragged), drawing.AMBER)
        if self.helping:
            view = drawing.help_panel(view)
        strip = drawing.timeline(
            self.size[1],
            len(self.work.frames),
            known=self.work.known_frames,
            said=self.work.prompted_frames,
            now=self.frame,
        )
        message = Fact(self.message, drawing.RED if self.failed else drawing.DIM)
        return torch.cat([view, strip, drawing.facts_bar(self.facts(), message, self.size[1])], dim=1)

    def facts(self) -> list[Fact]:
        """What the line below the timeline says."""
        draft = self.work.draft
        identity = self.identity if self.identity is not None else self.work.next_identity
        new = "" if identity in self.work.objects else " (new)"
        last = f"{len(self.work.frames) - 1}{'+' if self.work.frames.live else ''}"  # numbered as files are
        facts = [
            Fact(f"frame {self.frame} / {last}"),
            Fact(f"object {identity}{new}", swatch=drawing.color_of(identity)),
        ]
        if draft is not None and draft.frame == self.frame:
            given = "" if draft.score is None else f"score {draft.score:.2f}, "
            facts.append(Fact(f"{given}Enter accepts", drawing.AMBER))
        elif identity in (values := self.work.confidence(self.frame)):
            facts.append(Fact(f"confidence {values[identity]:.2f}"))
        if self.playing:
            tracking = f"tracking, {self.rate:.1f} frames/s"
            facts.append(Fact("showing" if self._pass is None else tracking, drawing.GREEN))
        else:
            facts.append(Fact("paused", drawing.DIM))
        return facts

    def _try(self, action: Callable[[], None]) -> None:
        """Does something; what is wrong with it becomes the message, and the session goes on."""
        self.failed = False
        try:
            action()
        except (ValueError, OSError, MemoryError) as error:
            self._stop()
            self.message, self.failed = str(error) or type(error).__name__, True

    def _say(self, text: str) -> None:
        self.message = text

    def _stop(self) -> None:
        self.playing = False
        if self._pass is not None:
            self._pass.close()  # type: ignore[attr-defined]
        self._pass = None

    def _in_frame(self, x: float, y: float) -> tuple[float, float]:
        """From a pixel of the picture to coordinates in the frame."""
        height, width = self.work.video.size
        return (x + 0.5) * width / self.size[1], (y + 0.5) * height / self.size[0]

    def _click(self, x: float, y: float, *, positive: bool) -> None:
        self._stop()
        place = self._in_frame(x, y)
        draft = self.work.click(self.frame, *place, positive=positive, identity=self._about())
        self._say(f"{len(draft.points)} {'click' if len(draft.points) == 1 else 'clicks'}")

    def _box(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._stop()
        (x0, y0), (x1, y1) = self._in_frame(*start), self._in_frame(*end)
        box = Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self.work.box(self.frame, box, identity=self._about())
        self._say("box")

    def _about(self) -> int:
        return self.work.next_identity if self.identity is None else self.identity

    def _accept(self) -> None:
        self.identity = self.work.accept()
        self._untracked.add(self.frame)
        self._say(f"object {self.identity} accepted;  Space: track forwards,  b: backwards,  n: next object")

    def _accept_draft(self) -> None:
        draft = self.work.draft
        if draft is not None and draft.frame == self.frame:
            self._accept()

    def _play(self) -> None:
        if self.playing:
            self._stop()
            self._say("Space: go on,  click: correct the object,  n: new object")
            return
        self._accept_draft()
        known = self.work.labels(self.frame) is not None
        if self.frame in self._untracked or (known and not self._has_next()):
            self._start(reverse=False)
        else:  # what was tracked, or a video in which nothing was said yet
            self.playing = True
            self._say("Space: pause")

    def _has_next(self) -> bool:
        """Whether the next frame has labels already."""
        return self.frame + 1 < len(self.work.frames) and self.work.labels(self.frame + 1) is not None

    def _start(self, *, reverse: bool) -> None:
        """Begins a pass from the frame that is shown."""
        self._stop()
        self._accept_draft()
        self._pass = self.work.track(self.frame, reverse=reverse)
        next(self._pass)  # the frame itself, or what is wrong with it
        self._untracked.discard(self.frame)
        self.playing, self.rate = True, 0.0
        self._since = self._clock()
        self._say("backwards;  Space: pause" if reverse else "Space: pause")

    def _advance(self) -> None:
        if self._pass is None:
            if self.work.labels(self.frame) is not None and not self._has_next():
                self._start(reverse=False)
            elif self.work.frames.has(self.frame + 1):
                self._show_next()
            else:
                self._stop()
                self._say("the end of the video")
            return
        tracked = next(self._pass, None)
        if tracked is None:
            self._stop()
            self._say("the end of the video" if self.frame else "the beginning of the video")
            return
        self.frame = tracked.frame
        now = self._clock()
        rate = 1 / max(now - self._since, 1e-6)
        self.rate = rate if self.rate == 0 else SMOOTHING * self.rate + (1 - SMOOTHING) * rate
        self._since = now

    def _show_next(self) -> None:
        self.work.frames.read(self.frame + 1)  # or what is wrong with it
        self.frame += 1

    def _go(self, frame: int) -> None:
        self._stop()
        self.work.frames.require(frame)
        self.work.frames.read(frame)
        self.frame = frame
        self._say("")

    def _forward(self) -> None:
        """The next frame, tracked if it has no labels but this one has."""
        self._stop()
        if not self.work.frames.has(self.frame + 1):
            raise ValueError(f"frame {self.frame} is the last one")
        known = self.work.objects and self.work.labels(self.frame) is not None
        if known and self.work.draft is None and not self._has_next():
            for _ in self.work.track(self.frame, until=self.frame + 1):
                pass
        self._go(self.frame + 1)

    def _new_object(self) -> None:
        self._stop()
        self._accept_draft()
        self.identity = None
        self._say(f"click on object {self.work.next_identity}")

    def _next_object(self) -> None:
        self._stop()
        if not self.work.objects:
            raise ValueError("there is no object yet; click on one")
        later = [key for key in self.work.objects if self.identity is not None and key > self.identity]
        self._choose(later[0] if later else self.work.objects[0])

    def _choose(self, identity: int) -> None:
        self._stop()
        if identity not in self.work.objects:
            known = ", ".join(map(str, self.work.objects)) or "none"
            raise ValueError(f"there is no object {identity}; there are: {known}")
        self.identity = identity
        self._say(f"clicks correct object {identity}")

    def _absent(self) -> None:
        self._stop()
        self.work.set_absent(self.frame, self._about())
        self._untracked.add(self.frame)
        self._say(f"object {self.identity} is absent in this frame")

    def _remove(self) -> None:
        self._stop()
        identity = self._about()
        self.work.remove(identity)
        self.identity = self.work.objects[-1] if self.work.objects else None
        self._say(f"object {identity} removed;  u: undo")

    def _undo(self) -> None:
        self._stop()
        undone = self.work.undo()
        if self.identity is not None and self.identity not in self.work.objects:
            self.identity = None
        self._say("there is nothing to undo" if undone is None else f"undone: {undone}")

    def _discard(self) -> None:
        self._stop()
        self.helping = False
        self.work.discard()
        self._say("clicks discarded")

    def _export(self) -> None:
        self._stop()
        report = export_tracks(self.work, self.export_folder)
        self._say(f"{report['frames']} frames exported to {self.export_folder}")

    def _help(self) -> None:
        self.helping = not self.helping

    def _quit(self) -> None:
        self._stop()
        self.done = True
