"""LabelMe JSON, a file per labelled frame."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.videos import SIZE, write_sequence
from vosssl.data.io import encode_labels
from vosssl.data.label_sources import LabelOptions
from vosssl.data.labelme import LabelMeVideo
from vosssl.data.video import load_clip

SMALL = (4, 5)


def shape(label: str, kind: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, "group_id": None} | more


def write(folder: Path, frame: str, *shapes: dict[str, Any], size: tuple[int, int] = SMALL) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": f"{frame}.jpg", "imageData": "AAAA"}
    (folder / f"{frame}.json").write_text(
        json.dumps(content | {"imageHeight": size[0], "imageWidth": size[1]})
    )


def read(folder: Path, frame: str) -> list[list[int]]:
    labels = LabelMeVideo(folder, video="dog", options=LabelOptions()).read(frame, SMALL)
    assert labels is not None
    return labels.tolist()  # type: ignore[no-any-return]


def test_every_kind_of_area_is_drawn(tmp_path: Path) -> None:
    piece = b64encode(encode_labels(torch.ones(2, 2, dtype=torch.uint8))).decode()
    write(tmp_path, "0", shape("a", "polygon", (0, 0), (2, 0), (2, 1), (0, 1)), shape("p", "point", (4, 3)))
    write(tmp_path, "1", shape("a", "rectangle", (5, 2), (3, 0)))
    write(tmp_path, "2", shape("a", "circle", (2.5, 2.5), (2.5, 3.5)))
    write(tmp_path, "3", shape("a", "mask", (3, 2), (5, 4), mask=piece))
    assert read(tmp_path, "0") == [[1, 1, 0, 0, 0]] + [[0] * 5] * 3
    assert read(tmp_path, "1") == [[0, 0, 0, 1, 1]] * 2 + [[0] * 5] * 2
    assert read(tmp_path, "2") == [[0] * 5, [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert read(tmp_path, "3") == [[0] * 5] * 2 + [[0, 0, 0, 1, 1]] * 2


def test_ids_are_the_same_in_every_frame(tmp_path: Path) -> None:
    box = ((0, 0), (5, 4))
    write(tmp_path, "0", shape("dog", "rectangle", *box))
    write(tmp_path, "1", shape("cat", "rectangle", *box))
    write(tmp_path, "2", shape("cat", "rectangle", *box, group_id=2))
    assert [read(tmp_path, frame)[0][0] for frame in "012"] == [3, 1, 2]  # cat, cat of group 2, dog


def test_labels_that_are_numbers_are_the_ids(tmp_path: Path) -> None:
    write(tmp_path, "0", shape("7", "rectangle", (0, 0), (2, 4)), shape("2", "rectangle", (1, 0), (5, 4)))
    assert read(tmp_path, "0") == [[7, 2, 2, 2, 2]] * 4


def test_shapes_of_one_object_belong_together(tmp_path: Path) -> None:
    left, right = ((0, 0), (1, 4)), ((4, 0), (5, 4))
    write(tmp_path, "0", shape("a", "rectangle", *left), shape("a", "rectangle", *right))
    assert read(tmp_path, "0") == [[1, 0, 0, 0, 1]] * 4


def test_a_folder_of_frames_finds_its_labels(tmp_path: Path) -> None:
    write_sequence(tmp_path / "JPEGImages/dog")
    write(tmp_path / "Annotations/dog", "00002", shape("a", "rectangle", (0, 0), (32, 24)), size=SIZE)
    clip = load_clip(tmp_path / "JPEGImages/dog")
    assert clip.labelled is not None and clip.labelled.nonzero().flatten().tolist() == [2]
    assert clip.labels is not None and clip.labels[2].min() == 1


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "0", shape("a", "hexagon", (0, 0)))
    with pytest.raises(ValueError, match=r"0\.json: a shape of type 'hexagon', expected polygon"):
        read(tmp_path, "0")
    write(tmp_path, "0", shape("a", "polygon", (0, 0), (1, 1)))
    with pytest.raises(ValueError, match=r"0\.json: the polygon of a: .* 2 corners"):
        read(tmp_path, "0")
    (tmp_path / "0.json").write_text("{")
    with pytest.raises(ValueError, match=r"0\.json is damaged"):
        read(tmp_path, "0")
    (tmp_path / "0.json").write_text("[]")
    with pytest.raises(ValueError, match="has no list of shapes"):
        read(tmp_path, "0")
