"""From a click to a mask, from a mask to a track, and corrections on any frame: any prompter, any segmenter.

The labels of every frame lie in files, so memory does not grow with the video, and what a person accepted is
never overwritten by tracking. A pass starts from the labels of its first frame, after the segmenter has been
shown the nearest frames that a person has spoken about.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.frame_reader import open_frames
from vosssl.data.sources import Video
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.label_journal import LabelJournal
from vosssl.propagation.mask_drafts import Draft, Drafter
from vosssl.propagation.segmenter import Box, VideoSegmenter
from vosssl.propagation.track_record import Masks, Reached, Record, load_record, save_record
from vosssl.propagation.tracking_steps import PassSteps, TrackedFrame, among

SAVED_EVERY = 1.0  # seconds of a pass


class ClickAndTrack:
    """Click on an object, see its mask, accept it, track it, correct it on any frame, undo, export.

        with ClickAndTrack(video, segmenter, prompter=prompter, folder="work") as work:
            draft = work.click(0, 320, 180)  # frame, x, y: a mask to look at, with its score
            draft = work.click(0, 300, 90, positive=False)
            dog = work.accept()
            for tracked in work.track(0):
                ...
            work.click(40, 310, 200, identity=dog)  # corrects the mask that was tracked
            work.accept()
            for tracked in work.track(40):
                ...
            for tracked in work.track(40, reverse=True, until=1):
                ...

    Args:
        video: any; a camera is recorded into the folder, so that one can go back.
        segmenter: any that takes masks; it is this session's alone.
        prompter: answers clicks and boxes; None: masks are given whole.
        folder: for labels (`labels/VIDEO/FRAME.png`, palette PNGs as DAVIS has them) and what was said. An
            earlier session there goes on. None: a temporary one, gone with the session.
        shown_again: of the frames that a person spoke about, so many of the nearest are shown to the
            segmenter when it starts anew.
        undo_levels: steps that can be taken back.

    Attributes:
        frames: reads the video's frames.
        draft: the mask that was not accepted yet, or None.

    Raises:
        ValueError: a segmenter that takes no masks, or a folder of another video.
    """

    def __init__(
        self,
        video: Video,
        segmenter: VideoSegmenter,
        *,
        prompter: ImagePrompter | None = None,
        folder: str | Path | None = None,
        shown_again: int = 8,
        undo_levels: int = 30,
    ) -> None:
        if "masks" not in getattr(segmenter, "prompt_kinds", ()):
            raise ValueError(
                f"{type(segmenter).__name__} takes no masks; choose a segmenter that follows them"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="vosssl-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        self.video = video
        self.frames = open_frames(video, folder=self.folder / "frames")
        self.segmenter = segmenter
        self.draft: Draft | None = None
        self._drafts: list[Draft | None] = []  # those before the draft
        self._drafter = Drafter(prompter)
        self._journal = LabelJournal(
            self.folder / "labels" / video.name,
            aside=self.folder / "undo",
            name=self.frames.name,
            levels=undo_levels,
        )
        self._steps = PassSteps(
            segmenter,
            read=lambda frame: self.frames.read(frame).image,
            labels=self._labels,
            again=shown_again,
        )
        self._passes = 0  # a pass that something else has come after is over
        self._saved: Record | None = None
        self._saved_at = time.monotonic()
        self._known = Record()
        if (self.folder / "session.json").is_file():
            if self.frames.live:
                raise ValueError(
                    f"{self.folder} holds an earlier session; choose another folder for {video.name}, or "
                    f"open what was recorded then, {self.folder / 'frames'}"
                )
            self._known = load_record(self.folder, video=video.name, size=video.size)
        if not self.frames.has(0):
            raise ValueError(f"video {video.name} has no frames")

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of all objects, in order of arrival."""
        return self._known.objects

    @property
    def prompted_frames(self) -> tuple[int, ...]:
        """Frames in which a person accepted masks."""
        return tuple(sorted(self._known.said))

    @property
    def known_frames(self) -> tuple[int, ...]:
        """Frames that have labels, accepted or tracked."""
        return tuple(sorted(self._known.confidence))

    @property
    def next_identity(self) -> int:
        """The id that the next new object gets."""
        return self._known.next_identity

    def said(self, frame: int) -> Masks:
        """What a person said of a frame: (H, W) bool by object, an empty one where it is absent."""
        return dict(self._known.said.get(frame, {}))

    def label_file(self, frame: int) -> Path:
        """Where the labels of a frame are, or would be."""
        return self._journal.file(frame)

    def labels(self, frame: int) -> Tensor | None:
        """(H, W) uint8 ids of a frame, accepted or tracked; None where nothing is known yet."""
        self.frames.require(frame)
        return self._labels(frame)

    def confidence(self, frame: int) -> dict[int, float]:
        """By object, mean probability of its pixels in a tracked frame."""
        return {k: v for k, v in self._known.confidence.get(frame, {}).items() if k in self.objects}

    def click(
        self, frame: int, x: float, y: float, *, positive: bool = True, identity: int | None = None
    ) -> Draft:
        """One more click on the draft; another frame or object begins a new draft.

        Args:
            frame: its number.
            x, y: in pixels of the frame.
            positive: on the object, else beside it.
            identity: of an object that is there already, to correct it; None: the draft's, or a new object.

        Returns:
            The mask as it is now. `accept` makes it count.

        Raises:
            ValueError: no such frame or object, a point outside the frame. Nothing has changed then.
        """
        draft, image = self._begun(frame, identity), self.frames.read(frame).image
        return self._drafted(self._drafter.ask(draft, image, points=[(x, y, positive)]))

    def box(self, frame: int, box: Box, *, identity: int | None = None) -> Draft:
        """A box around the object of the draft; otherwise as `click`."""
        draft, image = self._begun(frame, identity), self.frames.read(frame).image
        return self._drafted(self._drafter.ask(draft, image, box=box))

    def mask(self, frame: int, mask: Tensor, *, identity: int | None = None) -> Draft:
        """The whole mask of the draft, (H, W) of bool or 0 and 1; otherwise as `click`."""
        return self._drafted(self._drafter.given(self._begun(frame, identity), mask))

    def discard(self) -> None:
        """Forgets the draft."""
        self.draft, self._drafts = None, []

    def accept(self) -> int:
        """Makes the draft the truth of its frame; tracking starts from it and never changes it.

        Returns:
            The object's id.

        Raises:
            ValueError: there is no draft, or its mask is empty; the draft stays.
        """
        draft = self.draft
        if draft is None or not draft.is_said:
            raise ValueError(
                "there is no mask to accept; click on an object, draw a box or give a mask first"
            )
        if not bool(draft.mask.any()):
            raise ValueError(
                f"the mask of object {draft.identity} in frame {draft.frame} is empty; click on the object, "
                "or say that it is absent"
            )
        self._say(draft.frame, draft.identity, draft.mask, f"mask of object {draft.identity}")
        return draft.identity

    def set_absent(self, frame: int, identity: int) -> None:
        """Says that an object is not to be seen in a frame.

        Raises:
            ValueError: no such frame or object.
        """
        self._require(identity)
        empty = torch.zeros(self.frames.read(frame).image.shape[-2:], dtype=torch.bool)
        self._say(frame, identity, empty, f"object {identity} is absent")

    def remove(self, identity: int) -> None:
        """Forgets an object in all frames.

        Raises:
            ValueError: no such object.
        """
        self._require(identity)
        self._begin(f"removal of object {identity}")
        said = {
            frame: {key: mask for key, mask in masks.items() if key != identity}
            for frame, masks in self._known.said.items()
        }
        self._known = replace(
            self._known,
            objects=tuple(key for key in self.objects if key != identity),
            said={frame: masks for frame, masks in said.items() if masks},
            reached=None,
        )
        if self.draft is not None and self.draft.identity == identity:
            self.discard()
        self._save()

    @torch.inference_mode()
    def track(
        self,
        start: int,
        *,
        reverse: bool = False,
        until: int | None = None,
        objects: Sequence[int] | None = None,
        worth: Callable[[TrackedFrame], bool] | None = None,
    ) -> Iterator[TrackedFrame]:
        """Follows objects from a frame on, through frames that were tracked before, too.

        What is said of frames on the way is kept and followed from there. The pass can be left at any time; a
        pass that goes on where the last one ended goes on with the same memory.

        Args:
            start: a frame in which objects are known, accepted or tracked.
            reverse: towards the beginning.
            until: the last frame; None: the end of the video.
            objects: whose masks may change in frames that have labels; None: those that a person spoke about
                in the first frame, or all. Other objects change only where these come or go.
            worth: is asked before a frame is kept, while `labels` and `confidence` give what is known of it;
                False ends the pass, and the frame stays as it was.

        Yields:
            The first frame as it is, then frame after frame.

        Raises:
            ValueError: no such frame or object, nothing known in it; a frame on the way that cannot be read.
                What was tracked before that is kept.
        """
        step = -1 if reverse else 1
        labels = self._start_labels(start, objects)
        reached = self._known.reached
        self._begin(f"tracking from frame {start}")
        own, entry = self._passes, self._journal.entries[-1]
        try:
            self._arrived(None)  # should anything below fail
            if reached is None or (reached.frame, reached.step) != (start, step) or objects is not None:
                reached = self._steps.start(self._known, start, step, labels, objects)
            elif reached.fresh:
                reached = self._steps.look_again(self._known, reached)
            self._arrived(reached)
            yield TrackedFrame(start, labels, self.confidence(start))
            last = None if until is None else until + step
            while own == self._passes and reached.frame + step != last:
                if not self.frames.has(reached.frame + step):
                    break
                image = self.frames.read(reached.frame + step).image
                self._arrived(None)
                tracked, reached = self._steps.follow(self._known, reached, image)
                if worth is not None and not worth(tracked):
                    break
                self._keep(tracked)
                self._arrived(reached)
                if time.monotonic() - self._saved_at > SAVED_EVERY:  # a killed pass loses no more than that
                    self._save()
                yield tracked
        finally:
            if own == self._passes:
                self._save()
                if not entry.frames:
                    self._journal.drop_last()

    def undo(self) -> str | None:
        """Takes back the last click, or without a draft the last acceptance, removal or pass.

        Returns:
            What was taken back, in words; None where there is nothing.
        """
        if self.draft is not None:
            self.draft = self._drafts.pop() if self._drafts else None
            return "click"
        if not self._journal.entries:
            return None
        self._passes += 1
        entry, state = self._journal.revert()
        self._known = entry.known if state is not None else replace(entry.known, reached=None)
        if state is not None:
            self.segmenter.load_state_dict(state)  # type: ignore[attr-defined]
        self._save()
        return entry.name

    def close(self) -> None:
        """Lets go of the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> ClickAndTrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begun(self, frame: int, identity: int | None) -> Draft:
        """The draft to go on with: the present one, or a new one that shows what was tracked."""
        self.frames.require(frame)
        draft = self.draft
        if draft is not None and draft.frame == frame and identity in (None, draft.identity):
            return draft
        if identity is None:
            identity = self.next_identity
        elif identity != self.next_identity:
            self._require(identity)
        if identity >= VOID:
            raise ValueError(f"there have been {VOID - 1} objects, more than label images can tell apart")
        labels = self._labels(frame)
        mask = torch.zeros(self.video.size, dtype=torch.bool) if labels is None else labels == identity
        return self._drafter.tracked(frame, identity, mask)

    def _drafted(self, draft: Draft) -> Draft:
        """Keeps a new draft, and the one before it for undo."""
        before = self.draft
        same = before is not None and (before.frame, before.identity) == (draft.frame, draft.identity)
        self._drafts = [*self._drafts, before] if same else [None]
        self.draft = draft
        return draft

    def _require(self, identity: int) -> None:
        if identity not in self.objects:
            known = ", ".join(map(str, self.objects)) or "none"
            raise ValueError(f"there is no object {identity}; there are: {known}")

    def _labels(self, frame: int) -> Tensor | None:
        """Labels of a frame without objects that were removed."""
        labels = self._journal.read(frame)
        return None if labels is None else labels * among(labels, self.objects)

    def _say(self, frame: int, identity: int, mask: Tensor, name: str) -> None:
        """Makes a mask, which may be empty, the truth of a frame; the latest of two masks has the pixels."""
        self._begin(name)
        record = self._known
        before = {key: old for key, old in record.said.get(frame, {}).items() if key != identity}
        here = {key: old & ~mask for key, old in before.items()}
        covered = {key for key, old in before.items() if bool(old.any()) and not bool(here[key].any())}
        here = {key: old for key, old in here.items() if key not in covered}  # nobody said that it is absent
        labels = self._labels(frame)
        labels = torch.zeros(mask.shape, dtype=torch.uint8) if labels is None else labels
        labels[labels == identity] = 0
        labels[mask] = identity
        self._journal.write(frame, labels)
        reached = record.reached
        if reached is not None:
            here_now = reached.frame == frame
            reached = reached._replace(fresh=(*reached.fresh, identity)) if here_now else None
        confidence = {**record.confidence.get(frame, {}), identity: 1.0}
        self._known = Record(
            objects=record.objects if identity in record.objects else (*record.objects, identity),
            next_identity=max(record.next_identity, identity + 1),
            said={**record.said, frame: {**here, identity: mask}},
            confidence={**record.confidence, frame: confidence},
            reached=reached,
        )
        self.discard()
        self._save()

    def _begin(self, name: str) -> None:
        """A step that can be taken back; it ends a pass that is under way."""
        self._passes += 1
        state = getattr(self.segmenter, "state_dict", None)
        known = None if self._known.reached is None or state is None else state()
        self._journal.begin(name, self._known, state=known)

    def _save(self) -> None:
        save_record(self._known, self.folder, video=self.video.name, size=self.video.size, before=self._saved)
        self._saved, self._saved_at = self._known, time.monotonic()

    def _start_labels(self, start: int, objects: Sequence[int] | None) -> Tensor:
        self.frames.require(start)
        labels = self._labels(start)
        if labels is None or not self.objects:
            raise ValueError(
                f"nothing is known in frame {start}; accept a mask there, or track up to it first"
            )
        for identity in objects or ():
            self._require(identity)
        return labels

    def _keep(self, tracked: TrackedFrame) -> None:
        self._journal.write(tracked.frame, tracked.labels)
        confidence = {**self._known.confidence, tracked.frame: tracked.confidence}
        self._known = replace(self._known, confidence=confidence)

    def _arrived(self, reached: Reached | None) -> None:
        self._known = replace(self._known, reached=reached)
