"""Which masks a method is given, and when."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from vosssl.clip import VOID, Clip, Frame
from vosssl.data.video import Video, clip_video
from vosssl.engine.evaluator import follow, follow_protocol
from vosssl.engine.prompting import FirstMasks, can_take_late_objects, gives_late_objects
from vosssl.engine.protocol import LOCK_ON, load_protocol
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.propagation.segmenter import Prompt


def labels_of(*rows: list[int]) -> Tensor:
    """(T, 1, W) uint8."""
    return torch.tensor(rows, dtype=torch.uint8)[:, None]


def video_of(labels: Tensor, *, labelled: list[bool] | None = None) -> Video:
    frames = torch.zeros(len(labels), 3, *labels.shape[1:], dtype=torch.uint8)
    return clip_video(Clip("v", frames, labels, None if labelled is None else torch.tensor(labelled)))


class Recorder(CopyFirstMask):
    """Notes what it is given in which frame."""

    def step(self, frame: Tensor, prompt: Prompt | None = None) -> Tensor:
        self.given.append(prompt[0].tolist() if isinstance(prompt, Tensor) else None)
        return super().step(frame, prompt)

    def forget(self) -> None:
        super().forget()
        self.given: list[list[int] | None] = []


def test_each_object_is_given_once_where_it_is_first_seen_and_nothing_else_then() -> None:
    prompts = FirstMasks(late=True)
    labels = labels_of([1, 1, 0, VOID], [0, 1, 1, 0], [0, 1, VOID, 2], [0, 0, 0, 0], [7, 2, 1, 2])
    taken = [prompts.take(frame) for frame in (None, *labels)]
    assert [None if one is None else one[0].tolist() for one in taken] == [
        *(None, [1, 1, 0, VOID], None, [0, 0, 0, 2], None, [7, 0, 0, 0]),
    ]


def test_without_late_objects_the_first_labelled_frame_is_the_only_prompt() -> None:
    segmenter = Recorder()
    labels = labels_of([9, 9, 9], [1, 0, 0], [0, 1, 2])
    video = video_of(labels, labelled=[False, True, True])
    found = [ids[0].tolist() for _, ids in follow(segmenter, prompt_first=True)(video)]
    assert segmenter.given == [[1, 0, 0], None]  # nothing is segmented before
    assert found == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_a_late_object_takes_its_pixels_and_the_others_go_on() -> None:
    labels = labels_of([1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 2, 0], [0, 0, 1, 2], [3, 1, 0, 2])
    found = follow(CopyFirstMask(), prompt_first=True, prompt_late=True)(video_of(labels))
    assert [ids[0].tolist() for _, ids in found] == [
        *([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 2, 0], [1, 1, 2, 0], [3, 1, 2, 0]),
    ]


def test_frames_before_the_first_object_are_background() -> None:
    segmenter = Recorder()
    video = video_of(labels_of([0, 0], [0, 0], [0, 4]))
    found = [ids[0].tolist() for _, ids in follow(segmenter, prompt_first=True, prompt_late=True)(video)]
    assert found == [[0, 0], [0, 0], [0, 4]]
    assert segmenter.given == [[0, 4]]


def test_merged_objects_are_given_once() -> None:
    prompts = FirstMasks(late=True, merge=True)
    taken = [prompts.take(frame) for frame in labels_of([0, 0], [3, VOID], [4, 5])]
    assert [None if one is None else one[0].tolist() for one in taken] == [None, [1, 1], None]


def test_a_video_without_labels_has_no_prompt() -> None:
    bare = clip_video(Clip("bare", torch.zeros(2, 3, 4, 4, dtype=torch.uint8)))
    for late in (False, True):
        with pytest.raises(ValueError, match="no frame of bare has labels"):
            list(follow(CopyFirstMask(), prompt_first=True, prompt_late=late)(bare))


@pytest.mark.parametrize(
    ("name", "late"),
    [
        *(("davis16-val", False), ("davis17-val", False), ("fbms59", False), ("vos-benchmark", True)),
        *(("mose-val", True), ("mose2-val", True), ("lvos2-val", True), ("sav-val", True)),
        *(("ytvos2018-val", True), ("ytvos2019-val-from-first", True), ("burst-jf", True)),
    ],
)
def test_late_objects_are_given_where_they_count(name: str, late: bool) -> None:
    assert gives_late_objects(load_protocol(name)) == late
    assert not gives_late_objects(LOCK_ON)


def test_protocols_of_the_first_frame_do_not_give_late_objects() -> None:
    labels = labels_of([1, 0], [1, 2], [1, 2])
    for name, expected in (("davis17-val", [1, 0]), ("vos-benchmark", [1, 2])):
        found = follow_protocol(CopyFirstMask(), load_protocol(name))(video_of(labels))
        assert [ids[0].tolist() for _, ids in found][-1] == expected


def test_a_method_that_starts_from_the_first_labels_only_gets_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    segmenter = Recorder()
    segmenter.needs_prompt = True
    with caplog.at_level(logging.WARNING):
        assert not can_take_late_objects(segmenter)
        label_video = follow(segmenter, prompt_first=True, prompt_late=True)
    list(label_video(video_of(labels_of([1, 0], [1, 2]))))
    assert segmenter.given == [[1, 0], None]
    assert "Recorder starts from the first labels only" in caplog.text


def test_a_frame_keeps_its_device_and_size_while_nothing_is_given() -> None:
    ids = FirstMasks(late=True).step(CopyFirstMask(), Frame("0", torch.zeros(3, 5, 7, dtype=torch.uint8)))
    assert (ids.shape, ids.dtype, int(ids.max())) == ((5, 7), torch.uint8, 0)
