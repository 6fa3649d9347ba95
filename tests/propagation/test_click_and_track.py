"""Clicks to masks to tracks: corrections both ways, undo, files, and everything that can be said wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.methods.cutie_models import tiny_cutie
from tests.propagation.clickable import ColourNetwork, ColourSegmenter, square_labels, squares
from vosssl.clip import Clip, Frame
from vosssl.data.io import read_labels
from vosssl.data.video import Video, clip_video
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.methods.cutie.segmenter import cutie_segmenter
from vosssl.methods.floors import GridSegmenter
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.segmenter import Box, VideoSegmenter

FIRST, SECOND = (5, 5), (10, 20)  # points on the two squares in frame 0


def session(
    segmenter: VideoSegmenter | None = None, *, video: Video | None = None, folder: Path | None = None
) -> ClickAndTrack:
    return ClickAndTrack(
        squares() if video is None else video,
        segmenter or ColourSegmenter(),
        prompter=ImagePrompter(ColourNetwork()),
        folder=folder,
    )


def run(work: ClickAndTrack, start: int, **options) -> list[int]:
    return [tracked.frame for tracked in work.track(start, **options)]


def files(work: ClickAndTrack) -> dict[str, bytes]:
    """Everything that a session wrote, but for what undo keeps."""
    return {
        str(path.relative_to(work.folder)): path.read_bytes()
        for path in sorted(work.folder.rglob("*"))
        if path.is_file() and "undo" not in path.parts
    }


def test_a_click_becomes_a_mask_and_the_mask_a_track() -> None:
    work = session()
    draft = work.click(0, *FIRST)
    assert torch.equal(draft.mask, square_labels(0) == 1)
    assert (draft.identity, round(draft.score or 0, 1), work.objects) == (1, 0.9, ())
    assert work.accept() == 1 and work.draft is None
    assert run(work, 0) == list(range(8))
    for frame in range(8):
        assert torch.equal(work.labels(frame), square_labels(frame, objects=1))
        assert work.confidence(frame)[1] == pytest.approx(1.0 if frame == 0 else 0.8)


def test_clicks_add_up_and_each_can_be_taken_back() -> None:
    work = session()
    one = work.click(0, *FIRST).mask
    both = work.click(0, *SECOND).mask
    assert both.sum() == 2 * one.sum()
    assert torch.equal(work.click(0, *SECOND, positive=False).mask, one)
    assert work.undo() == "click"
    assert work.draft is not None and torch.equal(work.draft.mask, both)
    work.undo()
    assert torch.equal(work.draft.mask, one)
    work.undo()
    assert work.draft is None and work.undo() is None


def test_a_box_and_a_whole_mask_are_prompts_too() -> None:
    work = session()
    assert torch.equal(work.box(0, Box(-3, -3, 15, 14)).mask, square_labels(0) == 1)
    work.accept()
    draft = work.mask(0, (square_labels(0) == 2).byte())
    assert (draft.identity, draft.score) == (2, None)
    assert work.accept() == 2
    run(work, 0)
    assert torch.equal(work.labels(7), square_labels(7))


def test_an_image_is_encoded_once_for_all_its_clicks() -> None:
    work = session()
    network = work._drafter.prompter.network
    work.click(0, *FIRST)
    work.click(0, *SECOND)
    assert network.encoded == 1
    work.click(1, *FIRST)
    assert network.encoded == 2


def test_a_correction_starts_from_the_tracked_mask() -> None:
    work = session()
    work.click(0, *FIRST)
    work.accept()
    run(work, 0)
    work.click(3, 40, 2, positive=False, identity=1)  # on black: takes nothing away
    asked = work._drafter.prompter.network.asked.masks
    assert asked is not None and asked.shape == (1, 1, 16, 16)
    inside = asked[0, 0] > 0
    rows, columns = inside.nonzero().float().mean(0).tolist()  # image of 48 x 32 in 16 x 10.67
    assert rows * 3 + 1 == pytest.approx(6.5, abs=1.5) and columns * 3 + 1 == pytest.approx(10.5, abs=1.5)


class Drifting(CopyFirstMask):
    """A mask stays where it was prompted: a correction shows how far it is carried."""


def test_a_correction_is_carried_forwards_and_backwards_and_what_was_accepted_stays() -> None:
    work = session(Drifting())
    work.click(0, *FIRST)
    work.accept()
    run(work, 0)
    work.click(5, 12, 5, identity=1)
    work.accept()
    assert run(work, 5) == [5, 6, 7]
    assert run(work, 5, reverse=True) == [5, 4, 3, 2, 1, 0]
    at = [int((work.labels(frame) == 1).nonzero()[:, 1].min()) for frame in range(8)]
    assert at == [3, 8, 8, 8, 8, 8, 8, 8]  # frame 0 is the person's
    assert work.confidence(0)[1] == work.confidence(5)[1] == 1.0
    assert run(work, 5, reverse=True, until=4) == [5, 4]


def test_other_objects_change_only_where_the_corrected_one_comes_or_goes() -> None:
    work = session(Drifting())
    for point in (FIRST, SECOND):
        work.click(0, *point)
        work.accept()
    run(work, 0)
    before = work.labels(6)
    work.mask(4, square_labels(4) == 2, identity=1)  # object 1 takes the place of square 2
    work.accept()
    run(work, 4)
    after = work.labels(6)
    assert torch.equal(after == 1, square_labels(4) == 2)
    assert torch.equal(after == 2, (before == 2) & (square_labels(4) != 2))
    run(work, 4, objects=[2])
    assert torch.equal(work.labels(6) == 1, after == 1)


def test_a_new_object_on_a_later_frame_leaves_earlier_frames_alone() -> None:
    segmenter = ColourSegmenter()
    work = session(segmenter)
    work.click(0, *FIRST)
    work.accept()
    run(work, 0)
    work.click(4, 14, 20)
    assert work.accept() == 2
    run(work, 4)
    assert torch.equal(work.labels(3), square_labels(3, objects=1))
    assert torch.equal(work.labels(7), square_labels(7))
    run(work, 4, reverse=True)
    assert torch.equal(work.labels(1), square_labels(1))


def test_an_object_that_comes_later_is_not_seen_before_though_the_segmenter_was_shown_it() -> None:
    work = session()
    work.click(0, *FIRST)
    work.accept()
    work.click(4, 14, 20)
    work.accept()
    run(work, 0)
    assert torch.equal(work.labels(3), square_labels(3, objects=1))
    assert torch.equal(work.labels(4), square_labels(4)) and torch.equal(work.labels(7), square_labels(7))


def test_a_pass_that_goes_on_does_not_start_anew() -> None:
    segmenter = ColourSegmenter()
    work = session(segmenter)
    work.click(0, *FIRST)
    work.accept()
    run(work, 0, until=3)
    assert segmenter.prompts == [(1,), None, None, None]
    work.click(3, 13, 20)
    work.accept()
    run(work, 3)
    assert segmenter.prompts[4:] == [(2,), None, None, None, None]  # frame 3 once more, then on
    assert torch.equal(work.labels(7), square_labels(7))
    run(work, 3)
    assert segmenter.prompts[9:11] == [(1,), (1, 2)]  # anew: frame 0, then the first of the pass


def test_a_pass_ends_when_something_else_is_done() -> None:
    work = session()
    work.click(0, *FIRST)
    work.accept()
    going = work.track(0)
    assert [next(going).frame, next(going).frame] == [0, 1]
    work.click(1, 11, 20)
    work.accept()
    assert list(going) == []


def test_undo_brings_back_every_file_and_every_answer() -> None:
    work = session()
    work.click(0, *FIRST)
    work.accept()
    run(work, 0, until=4)
    states = []
    for change in (
        lambda: (work.click(2, 12, 20), work.accept()),
        lambda: run(work, 2),
        lambda: work.set_absent(3, 1),
        lambda: run(work, 3, reverse=True),
        lambda: work.remove(1),
        lambda: run(work, 2),
    ):
        states.append((files(work), work.objects, work.prompted_frames, work.next_identity))
        change()
    for expected in reversed(states):
        assert work.undo() is not None
        assert (files(work), work.objects, work.prompted_frames, work.next_identity) == expected


def test_what_follows_an_undo_is_what_would_have_followed_without() -> None:
    results = []
    for strays in (False, True):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (12, 3, 32, 48), dtype=torch.uint8, generator=generator)
        work = session(cutie_segmenter(tiny_cutie(), mem_every=2), video=clip_video(Clip("noise", images)))
        work.mask(0, square_labels(0) == 1)
        work.accept()
        run(work, 0, until=5)
        if strays:
            work.mask(5, square_labels(7) == 2)
            work.accept()
            run(work, 5)
            work.undo()
            work.undo()
        run(work, 5)
        results.append(torch.stack([work.labels(frame) for frame in range(12)]))
        assert work.segmenter.frame_index == 12
    assert torch.equal(*results)


def test_corrected_frames_stay_in_memory_where_there_is_a_permanent_one() -> None:
    work = session(cutie_segmenter(tiny_cutie()))
    work.mask(0, square_labels(0) == 1)
    work.accept()
    run(work, 0)
    work.mask(4, square_labels(4) == 1, identity=1)
    work.accept()
    run(work, 4)
    (group,) = work.segmenter.memory.groups
    assert len(group.permanent) == 2


def test_removed_objects_are_gone_and_their_ids_are_not_given_again(tmp_path: Path) -> None:
    work = session()
    for point in (FIRST, SECOND):
        work.click(0, *point)
        work.accept()
    run(work, 0)
    work.remove(2)
    assert torch.equal(work.labels(5), square_labels(5, objects=1))
    work.click(0, *SECOND)
    assert work.accept() == 3


def test_an_object_can_be_absent() -> None:
    work = session()
    work.click(0, *FIRST)
    work.accept()
    run(work, 0)
    work.set_absent(4, 1)
    run(work, 4)
    assert [bool(work.labels(frame).any()) for frame in (3, 4, 5, 7)] == [True, False, False, False]


def test_a_folder_is_a_session_that_goes_on(tmp_path: Path) -> None:
    work = session(folder=tmp_path)
    work.click(0, *FIRST)
    work.accept()
    run(work, 0, until=4)
    assert torch.equal(read_labels(tmp_path / "labels" / "squares" / "00003.png"), work.labels(3))
    again = session(folder=tmp_path)
    assert (again.objects, again.prompted_frames, again.next_identity) == ((1,), (0,), 2)
    assert again.confidence(3) == work.confidence(3)
    run(again, 4)
    assert torch.equal(again.labels(7), square_labels(7, objects=1))
    with pytest.raises(ValueError, match="holds a session about squares of 32 x 48, not about other"):
        session(video=clip_video(Clip("other", torch.zeros(2, 3, 8, 8, dtype=torch.uint8))), folder=tmp_path)
    (tmp_path / "session.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        session(folder=tmp_path)


class Live(Video):
    """A camera of some frames."""

    def __init__(self, frames: int) -> None:
        super().__init__("live")
        self.stored = squares(frames=frames)
        self.given = 0

    def __len__(self) -> int:
        raise TypeError("live")

    @property
    def native_size(self) -> tuple[int, int]:
        return self.stored.size

    def _decode(self, indices, size) -> Iterator[Frame]:
        for frame in self.stored:
            self.given += 1
            yield frame


def test_a_camera_is_followed_and_can_be_gone_back_to() -> None:
    camera = Live(60)
    work = session(video=camera)
    assert camera.given == 1
    work.click(0, *FIRST)
    work.accept()
    run(work, 0, until=50)
    assert camera.given == 51
    assert (work.labels(50) == 1).sum() > 0
    work.click(2, 12, 20)  # long out of memory
    work.accept()
    assert run(work, 2, until=4) == [2, 3, 4]
    assert len(work.frames._kept) <= 32
    with pytest.raises(ValueError, match="holds an earlier session; choose another folder for live"):
        session(video=Live(3), folder=work.folder)


def wrong(message: str, call) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_cannot_be_is_said_and_the_session_goes_on() -> None:
    work = session()
    wrong("no mask to accept; click on an object", work.accept)
    wrong("nothing is known in frame 0; accept a mask there", lambda: run(work, 0))
    wrong("x 48, y 3 lies outside the frame of 48 x 32", lambda: work.click(0, 48, 3))
    wrong("x -1, y 3 lies outside", lambda: work.click(0, -1, 3))
    wrong("x nan, y 3 lies outside", lambda: work.click(0, float("nan"), 3))
    wrong("is empty; expected left < right", lambda: work.box(0, Box(5, 5, 5, 9)))
    wrong("lies outside the frame of 48 x 32", lambda: work.box(0, Box(50, 0, 60, 9)))
    wrong(r"the mask is \(3, 3\), expected \(32, 48\)", lambda: work.mask(0, torch.ones(3, 3)))
    wrong("values beside 0 and 1", lambda: work.mask(0, square_labels(0)))
    wrong("there is no object 7; there are: none", lambda: work.click(0, *FIRST, identity=7))
    wrong("there is no object 7", lambda: work.remove(7))
    wrong("there is no object 7", lambda: work.set_absent(0, 7))
    wrong("frame 99 was asked for; video squares has frames 0..7", lambda: work.click(99, *FIRST))
    wrong("frame -1 was asked for", lambda: work.labels(-1))
    assert work.draft is None
    work.click(0, 40, 2)  # on black
    wrong("the mask of object 1 in frame 0 is empty; click on the object", work.accept)
    work.click(0, *FIRST)
    work.accept()
    wrong("there is no object 7", lambda: run(work, 0, objects=[7]))
    wrong("nothing is known in frame 3", lambda: run(work, 3))
    assert run(work, 0) == list(range(8))
    assert work.undo() == "tracking from frame 0" and work.undo() == "mask of object 1"


def test_a_prompt_on_a_frame_that_the_camera_has_not_shown_is_refused() -> None:
    work = session(video=Live(5))
    wrong("frame 3 was asked for; of live frames 0..0 were read", lambda: work.click(3, *FIRST))
    work.click(0, *FIRST)
    assert work.accept() == 1


def test_clicks_need_a_prompter_and_masks_a_segmenter_that_takes_them() -> None:
    work = ClickAndTrack(squares(), ColourSegmenter())
    wrong("need a prompter, such as vosssl.create_prompter", lambda: work.click(0, *FIRST))
    work.mask(0, square_labels(0) == 1)
    assert work.accept() == 1

    class Discovers(GridSegmenter):
        prompt_kinds = ()

    wrong("Discovers takes no masks", lambda: ClickAndTrack(squares(), Discovers(rows=2, columns=2)))


class Broken(Video):
    """A video whose frame 4 cannot be decoded."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.stored = squares()

    def __len__(self) -> int:
        return 8

    @property
    def native_size(self) -> tuple[int, int]:
        return self.stored.size

    def _decode(self, indices, size) -> Iterator[Frame]:
        for index in indices:
            if index == 4:
                raise ValueError("frame 4 is truncated")
            yield next(self.stored._decode([index], size))


def test_a_video_that_breaks_in_the_middle_keeps_what_was_tracked_and_can_be_passed_over() -> None:
    work = session(video=Broken())
    work.click(0, *FIRST)
    work.accept()
    wrong("frame 4 is truncated", lambda: run(work, 0))
    assert torch.equal(work.labels(3), square_labels(3, objects=1)) and work.labels(4) is None
    work.click(5, 15, 5, identity=1)
    work.accept()
    assert run(work, 5) == [5, 6, 7]
    wrong("frame 4 is truncated", lambda: run(work, 3))
    assert work.undo() == "tracking from frame 5"


def test_a_segmenter_that_fails_starts_anew_afterwards() -> None:
    segmenter = ColourSegmenter()
    work = session(segmenter)
    work.click(0, *FIRST)
    work.accept()
    segmenter.fails_at = 3
    with pytest.raises(MemoryError):
        run(work, 0)
    assert work.labels(1) is not None and work.labels(2) is None
    assert run(work, 1) == list(range(1, 8))
    assert torch.equal(work.labels(7), square_labels(7, objects=1))


def test_a_full_label_map_is_said() -> None:
    work = session()
    work._known = work._known.__class__(next_identity=255)
    wrong("254 objects", lambda: work.click(0, *FIRST))
