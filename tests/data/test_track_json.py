"""Tracks in JSON: YouTube-VIS, OVIS, BURST and SA-V, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data import miniatures
from vosssl.data.annotations import Annotations
from vosssl.data.label_sources import LabelOptions
from vosssl.data.track_json import MaskletLabels, TrackLabels

SIZE = (2, 3)


def tracks(path: Path, segmentations: list[list[Any]], **more: Any) -> TrackLabels:
    """A file of one video of two frames."""
    videos = [{"id": 7, "width": 3, "height": 2, "file_names": ["dog/0.jpg", "dog/5.jpg"]}]
    entries = [{"id": n, "video_id": 7, "segmentations": masks} for n, masks in enumerate(segmentations)]
    if entries:
        entries[-1].update(more)
    path.write_text(json.dumps({"videos": videos, "annotations": entries}))
    return TrackLabels(path, LabelOptions())


def counts(*runs: int) -> dict[str, Any]:
    return {"size": [2, 3], "counts": list(runs)}


def test_tracks_are_numbered_in_order_and_the_later_lies_above(tmp_path: Path) -> None:
    labels = tracks(tmp_path / "a.json", [[counts(0, 6), None], [counts(4, 2), counts(0, 2, 4)]])
    source = labels.source("dog", ["0", "5"])
    assert set(source.names) == {"0", "5"}
    assert source.read("0", SIZE).tolist() == [[1, 1, 2], [1, 1, 2]]  # type: ignore[union-attr]
    assert source.read("5", SIZE).tolist() == [[2, 0, 0], [2, 0, 0]]  # type: ignore[union-attr]


def test_crowds_are_void_below_the_objects(tmp_path: Path) -> None:
    labels = tracks(tmp_path / "a.json", [[counts(0, 2, 4), None], [counts(0, 6), None]], iscrowd=1)
    assert labels.source("dog", []).read("0", SIZE).tolist() == [[1, 255, 255]] * 2  # type: ignore[union-attr]


def test_a_video_that_is_not_listed_is_named(tmp_path: Path) -> None:
    miniatures.lay_out("ytvis2021", tmp_path)
    labels = TrackLabels(tmp_path / "train/instances.json", LabelOptions())
    assert list(labels.videos) == ["b", "a", "d", "c"]
    with pytest.raises(ValueError, match=r"instances\.json lists no video zebra, it has b, a, d, c"):
        labels.source("zebra", [])


def test_damaged_entries_are_named_with_file_and_frame(tmp_path: Path) -> None:
    short = tracks(tmp_path / "a.json", [[counts(0, 5), None]])
    with pytest.raises(ValueError, match=r"a\.json, frame 0 of video dog: run lengths add up to 5"):
        short.source("dog", []).read("0", SIZE)
    missing = tracks(tmp_path / "b.json", [[counts(0, 6)]])
    with pytest.raises(ValueError, match=r"b\.json, frame 5 of video dog are not as expected"):
        missing.source("dog", []).read("5", SIZE)
    (tmp_path / "c.json").write_text('{"videos": [{"id": 1}], "annotations": []}')
    with pytest.raises(ValueError, match=r"c\.json, video at byte 12, lacks 'file_names'"):
        TrackLabels(tmp_path / "c.json", LabelOptions())
    many = tracks(tmp_path / "d.json", [[None, None]] * 255)
    with pytest.raises(ValueError, match=r"d\.json, video dog, has 255 objects, expected at most 254"):
        many.source("dog", []).read("0", SIZE)


def test_first_appearances_of_burst_leave_other_frames_empty(tmp_path: Path) -> None:
    miniatures.lay_out("burst", tmp_path)
    source = Annotations(tmp_path, "val/first_frame_annotations.json").of("c", None)
    assert torch.equal(source.read("frame0000", miniatures.SIZE), miniatures.truth(0))  # type: ignore[arg-type]
    assert source.read("frame0003", miniatures.SIZE).max() == 0  # type: ignore[union-attr]
    assert source.read("frame0001", miniatures.SIZE) is None


def test_masklets_belong_to_every_fourth_frame(tmp_path: Path) -> None:
    path = tmp_path / "sav_1_manual.json"
    masklets = [[counts(0, 2, 4), counts(6)], [counts(6), counts(1, 2, 3)]]
    path.write_text(json.dumps({"video_id": "sav_1", "masklet_id": [4, 9], "masklet": masklets}))
    source = MaskletLabels(path, LabelOptions()).source("sav_1", None)
    assert list(source.names) == ["00000", "00004"]
    assert source.read("00000", SIZE).tolist() == [[1, 0, 0], [1, 0, 0]]  # type: ignore[union-attr]
    assert source.read("00004", SIZE).tolist() == [[0, 2, 0], [2, 0, 0]]  # type: ignore[union-attr]
    assert source.read("00001", SIZE) is None
