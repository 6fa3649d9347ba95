"""An annotation project: scores, the worst frame, corrections both ways, files, and reopening."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.propagation.clickable import ColourNetwork, ColourSegmenter, square_labels, squares
from vosssl.annotation.project import Annotation, FrameScore
from vosssl.annotation.second_source import differences
from vosssl.data.coco_json import CocoLabels
from vosssl.data.label_sources import LabelOptions
from vosssl.data.video import load_clip
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.methods.floors import ColourKMeansSegmenter
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.segmenter import Box, VideoSegmenter

FIRST, SECOND = (5, 5), (10, 20)  # points on the two squares in frame 0


def project(
    folder: Path,
    *,
    segmenter: VideoSegmenter | None = None,
    second: Callable[[], VideoSegmenter] | None = None,
) -> Annotation:
    prompter = ImagePrompter(ColourNetwork())
    work = ClickAndTrack(squares(), segmenter or ColourSegmenter(), prompter=prompter, folder=folder)
    return Annotation(work, second=second)


def clicked(folder: Path, **options) -> Annotation:
    """Both squares accepted in frame 0 and tracked to the end."""
    found = project(folder, **options)
    for point in (FIRST, SECOND):
        found.click(0, *point)
        found.accept()
    assert [tracked.frame for tracked in found.spread(0)] == list(range(1, 8))
    return found


def test_two_maps_differ_by_one_minus_their_overlap() -> None:
    first, second = torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)
    first[0], second[0, :2] = 1, 1
    second[3] = 2
    assert differences(first, second) == {1: 0.5, 2: 1.0}
    assert differences(second, first) == differences(first, second)
    assert differences(first, first) == {1: 0.0}


def test_the_worse_of_confidence_and_disagreement_counts() -> None:
    assert FrameScore(0.8, None, False).badness == pytest.approx(0.2)
    assert FrameScore(0.8, 0.5, False).badness == 0.5
    assert FrameScore(0.8, 0.5, True).badness is None and FrameScore(None, None, False).badness is None


def test_the_worst_frame_is_where_the_second_source_is_furthest_away(tmp_path: Path) -> None:
    found = clicked(tmp_path, second=CopyFirstMask)
    assert found.worst_frame() == 1  # ColourSegmenter is as sure everywhere: the first of equals
    assert list(found.check()) == list(range(1, 10))
    scores = found.scores()
    expected = differences(square_labels(3), square_labels(0))
    assert scores[3].disagreement == pytest.approx(max(expected.values()), abs=1e-3)
    assert scores[0] == FrameScore(1.0, 0.0, True)
    assert found.worst_frame() == 7
    differing = [score.disagreement for score in scores]
    assert differing == sorted(differing)


def test_an_object_found_late_is_compared_before_its_first_mask_too(tmp_path: Path) -> None:
    found = project(tmp_path, second=ColourSegmenter)
    found.click(0, *FIRST)
    found.accept()
    list(found.spread(0))
    found.click(4, SECOND[0] + 4, SECOND[1])
    found.accept()
    assert sorted(tracked.frame for tracked in found.spread(4)) == [0, 1, 2, 3, 5, 6, 7]
    list(found.check())
    assert all(score.disagreement == 0 for score in found.scores())


def test_a_second_source_that_follows_no_masks_says_so(tmp_path: Path) -> None:
    found = clicked(tmp_path, second=lambda: ColourKMeansSegmenter(clusters=3))
    with pytest.raises(ValueError, match=r"follows no masks.*annotate\.second"):
        list(found.check())


def test_the_steps_of_a_check_are_known_before(tmp_path: Path) -> None:
    found = project(tmp_path, second=ColourSegmenter)
    assert found.second is not None and found.second.length == 0
    found.click(2, FIRST[0] + 2, FIRST[1])
    found.accept()
    found.click(5, SECOND[0] + 5, SECOND[1])
    found.accept()
    assert len(list(found.check())) == found.second.length == 6 + 6


def test_a_killed_pass_is_looked_at_where_all_was_written(tmp_path: Path) -> None:
    first = project(tmp_path)
    first.click(0, *FIRST)
    first.accept()
    steps = first.follow(first.work.track(0))
    assert [next(steps) for _ in range(4)] == [0, 1, 2, 3] and first.frame == 3
    first.save()  # the frame, as it does every second; the record says no more than frame 0
    again = project(tmp_path)
    assert (again.work.known_frames, again.frame) == ((0,), 0)
    steps.close()
    assert project(tmp_path).frame == 3


def test_a_correction_reaches_to_the_neighbouring_accepted_frames(tmp_path: Path) -> None:
    found = clicked(tmp_path, segmenter=CopyFirstMask())
    found.click(6, FIRST[0] + 6, FIRST[1], identity=1)
    found.work.mask(6, square_labels(6) == 1, identity=1)
    found.accept()
    assert [tracked.frame for tracked in found.spread(6)] == [7, 5, 4, 3, 2, 1]
    found.work.mask(3, square_labels(3) == 1, identity=1)
    found.accept()
    assert [tracked.frame for tracked in found.spread(3)] == [4, 5, 2, 1]
    assert torch.equal(found.work.labels(5) == 1, square_labels(3) == 1)
    assert torch.equal(found.work.labels(6) == 1, square_labels(6) == 1)  # what a person said stays
    assert torch.equal(found.work.labels(7) == 1, square_labels(6) == 1)


def test_a_correction_ends_where_it_finds_what_is_known(tmp_path: Path) -> None:
    found = clicked(tmp_path)  # ColourSegmenter is right everywhere
    found.work.mask(6, square_labels(6) == 1, identity=1)
    found.accept()
    assert [tracked.frame for tracked in found.spread(6)] == [7, 5, 4]


def test_an_object_that_another_mask_covers_is_not_said_to_be_absent(tmp_path: Path) -> None:
    found = clicked(tmp_path)
    found.work.mask(0, torch.ones(32, 48).bool(), identity=2)
    found.accept()
    assert set(found.work.said(0)) == {2}


def test_the_brush_paints_and_erases_whole_discs(tmp_path: Path) -> None:
    found = project(tmp_path)
    draft = found.brush(0, [(20.5, 15.5)], radius=4)
    rows, columns = draft.mask.nonzero().T.tolist()
    assert (min(rows), max(rows), min(columns), max(columns)) == (11, 19, 16, 24)
    draft = found.brush(0, [(20.5, 15.5), (40.5, 15.5)], radius=4)
    assert draft.mask[12:19, 20:40].all() and draft.identity == 1
    draft = found.brush(0, [(0.5, 15.5), (47.5, 15.5)], radius=60, erase=True)
    assert not draft.mask.any()
    with pytest.raises(ValueError, match="radius"):
        found.brush(0, [], radius=4)
    with pytest.raises(ValueError, match="radius"):
        found.brush(0, [(float("nan"), 3)], radius=4)


def test_everything_is_there_again_after_a_kill(tmp_path: Path) -> None:
    first = clicked(tmp_path)
    first.call(2, "  block ")
    first.click(5, *FIRST, positive=False, identity=1)
    first.box(5, Box(1, 1, 20, 14), identity=1)
    first.look_at(5)
    again = project(tmp_path)  # the first one was never closed
    assert (again.frame, again.names, again.work.objects) == (5, {2: "block"}, (1, 2))
    assert again.work.draft is not None and first.work.draft is not None
    assert torch.equal(again.work.draft.mask, first.work.draft.mask)
    assert again.work.draft.points == first.work.draft.points
    assert again.work.draft.box == first.work.draft.box
    assert again.scores() == first.scores()
    assert again.accept() == 1
    third = project(tmp_path)
    assert third.work.draft is None and third.work.prompted_frames == (0, 5)


def test_every_format_is_written(tmp_path: Path) -> None:
    found = clicked(tmp_path)
    coco = found.export("coco")
    source = CocoLabels(coco, LabelOptions()).source("squares", None)
    for frame in range(8):
        assert torch.equal(source.read(found.work.frames.name(frame), (32, 48)), square_labels(frame))
    assert found.export("cvat").read_text().count("<track") == 2
    assert len(list((found.export("yolo") / "labels").iterdir())) == 8
    clip = load_clip(found.export("davis") / "JPEGImages/480p/squares")
    assert clip.labels is not None
    assert torch.equal(clip.labels, torch.stack([square_labels(frame) for frame in range(8)]))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    found = project(tmp_path)
    assert found.worst_frame() is None
    for wrong in (
        lambda: found.export("coco"),
        lambda: list(found.check()),
        lambda: list(found.spread(0)),
        lambda: found.call(1, "dog"),
        lambda: found.look_at(8),
    ):
        with pytest.raises(ValueError):
            wrong()
    found.click(0, *FIRST)
    found.accept()
    with pytest.raises(ValueError, match="there is no format"):
        found.export("voc")
    (tmp_path / "annotation.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        project(tmp_path)
