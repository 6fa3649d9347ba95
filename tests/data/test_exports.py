"""COCO, CVAT and YOLO files: written here, read back by our readers or by OpenCV."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vosssl.data.coco_export import box_of, write_coco
from vosssl.data.coco_json import CocoLabels
from vosssl.data.cvat import CvatLabels
from vosssl.data.cvat_export import write_cvat
from vosssl.data.label_sources import LabelOptions
from vosssl.data.yolo_export import outline, write_yolo

SIZE = (20, 30)


def label_maps() -> list[Tensor]:
    """Four frames: 1 has a hole and a second part, 2 goes and comes back, 3 is one pixel."""
    frames = torch.zeros(4, *SIZE, dtype=torch.uint8)
    for index in range(4):
        frames[index, 2:9, 1 + index : 9 + index] = 1
        frames[index, 4:6, 4 + index : 6 + index] = 0
        frames[index, 15, 20] = 1
    frames[0, 8:14, 10:20] = frames[3, 8:14, 10:20] = 2
    frames[1, 19, 29] = 3
    return list(frames)


def test_coco_is_read_back_as_it_was(tmp_path: Path) -> None:
    frames = label_maps()
    path = tmp_path / "coco.json"
    named = [(f"{index:05d}", labels) for index, labels in enumerate(frames)]
    counts = write_coco(path, named, video="clip", names={1: "ring"})
    assert counts == {"images": 4, "annotations": 7, "categories": 2}
    source = CocoLabels(path, LabelOptions()).source("clip", None)
    for name, labels in named:
        assert torch.equal(source.read(name, SIZE), labels)
    content = json.loads(path.read_text())
    first = content["annotations"][0]
    assert first["bbox"] == [1, 2, 20, 14] and first["area"] == 53
    assert content["images"][0]["file_name"] == "clip/00000.jpg"
    assert [category["name"] for category in content["categories"]] == ["ring", "object"]


def test_cvat_is_read_back_as_it_was_and_objects_leave_when_they_leave(tmp_path: Path) -> None:
    frames = label_maps()
    path = tmp_path / "annotations.xml"
    assert write_cvat(path, enumerate(frames), video="clip", length=5, names={2: 'a <b> & "c"'}) == 7
    source = CvatLabels(path, LabelOptions()).source("clip", [f"{index:05d}" for index in range(5)])
    for index, labels in enumerate(frames):
        assert torch.equal(source.read(f"{index:05d}", SIZE), labels)
    assert "00004" not in source.names


def test_yolo_outlines_fill_to_the_masks_again(tmp_path: Path) -> None:
    frames = label_maps()
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    named = [(f"{index:05d}", image, labels) for index, labels in enumerate(frames)]
    assert write_yolo(tmp_path, named, names={2: "block"}) == 7
    lines = (tmp_path / "labels/00000.txt").read_text().splitlines()
    kind, *values = lines[1].split()
    points = np.array(values, float).reshape(-1, 2) * SIZE[::-1]
    filled = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(filled, [points.astype(np.int32)], 1)
    assert kind == "1" and torch.equal(torch.from_numpy(filled) > 0, frames[0] == 2)
    assert '1: "block"' in (tmp_path / "data.yaml").read_text()
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_an_outline_keeps_holes_and_parts() -> None:
    mask = label_maps()[0] == 1
    filled = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(filled, [outline(mask).astype(np.int32)], 1)
    wrong = int(((torch.from_numpy(filled) > 0) ^ mask).sum())
    assert wrong <= 14  # the bridge to the second part
    assert not filled[4, 5] and filled[15, 20]
    single = torch.zeros(SIZE, dtype=torch.bool)
    single[3, 4] = True
    assert outline(single).shape == (3, 2) and box_of(single) == [4, 3, 1, 1]


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    for write in (
        lambda: write_coco(tmp_path / "a.json", [], video="clip"),
        lambda: write_cvat(tmp_path / "a.xml", [], video="clip", length=3),
        lambda: write_yolo(tmp_path / "yolo", []),
    ):
        with pytest.raises(ValueError, match="no labelled frame"):
            write()
    assert not (tmp_path / "a.json").exists()
