"""COCO JSON of images and of videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.data import miniatures
from vosssl.data.coco_json import CocoLabels
from vosssl.data.image_folders import ImageDataset
from vosssl.data.io import write_labels
from vosssl.data.label_sources import LabelOptions

SIZE = (2, 3)


def box(left: int, right: int) -> list[list[int]]:
    """A polygon over columns left..right, both rows."""
    return [[left, 0, right, 0, right, 2, left, 2]]


def opened(
    path: Path,
    annotations: list[dict[str, Any]],
    *,
    files: tuple[str, ...] = ("dog/0.jpg", "dog/1.jpg"),
    ids: Literal["auto", "instance", "category"] = "auto",
) -> CocoLabels:
    images = [{"id": n, "file_name": file, "height": 2, "width": 3} for n, file in enumerate(files)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return CocoLabels(path, LabelOptions(ids=ids))


def entry(image: int, left: int, right: int, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 5, "iscrowd": 0, "segmentation": box(left, right)} | more


def test_tracks_keep_their_ids_over_the_video(tmp_path: Path) -> None:
    found = [
        entry(0, 0, 1, track_id=300),
        entry(1, 2, 3, attributes={"track_id": 12}),
        entry(1, 0, 1, track_id=300),
    ]
    source = opened(tmp_path / "a.json", found).source("dog", ["0", "1"])
    assert source.read("0", SIZE).tolist() == [[2, 0, 0]] * 2  # type: ignore[union-attr]
    assert source.read("1", SIZE).tolist() == [[2, 0, 1]] * 2  # type: ignore[union-attr]


def test_frames_whose_objects_cannot_be_told_apart_are_not_guessed(tmp_path: Path) -> None:
    found = [entry(0, 0, 1), entry(1, 2, 3)]
    with pytest.raises(ValueError, match=r"2 frames of video dog do not say which object.*ids=category"):
        opened(tmp_path / "a.json", found).source("dog", ["0", "1"]).read("0", SIZE)
    for ids, expected in (("instance", 1), ("category", 5)):
        source = opened(tmp_path / "a.json", found, ids=ids).source("dog", ["0", "1"])  # type: ignore[arg-type]
        assert source.read("1", SIZE).max() == expected  # type: ignore[union-attr]


def test_one_labelled_frame_needs_no_tracks_and_the_rest_is_unlabelled(tmp_path: Path) -> None:
    source = opened(tmp_path / "a.json", [entry(0, 0, 2), entry(0, 1, 3)]).source("dog", ["0", "1"])
    assert set(source.names) == {"0"}
    assert source.read("0", SIZE).tolist() == [[1, 2, 2]] * 2  # type: ignore[union-attr]


def test_images_belong_to_the_video_of_their_folder(tmp_path: Path) -> None:
    files = ("x/dog/0.jpg", "x/cat/0.jpg")
    labels = opened(tmp_path / "a.json", [entry(0, 0, 1), entry(1, 2, 3)], files=files)
    assert labels.source("cat", ["0"]).read("0", SIZE).tolist() == [[0, 0, 1]] * 2  # type: ignore[union-attr]
    flat = opened(tmp_path / "b.json", [entry(0, 0, 1)], files=("0.jpg",))
    assert set(flat.source("any", ["0"]).names) == {"0"}


def test_crowds_boxes_and_large_categories(tmp_path: Path) -> None:
    found = [entry(0, 0, 1), entry(0, 0, 3, iscrowd=1), entry(0, 0, 3, segmentation=[])]
    source = opened(tmp_path / "a.json", found, ids="instance").source("dog", ["0"])
    assert source.read("0", SIZE).tolist() == [[1, 255, 255]] * 2  # type: ignore[union-attr]
    large = opened(tmp_path / "b.json", [entry(0, 0, 1, category_id=1000)], ids="category")
    with pytest.raises(ValueError, match=r"has categories \[1000\], expected 1\.\.254"):
        large.source("dog", ["0"]).read("0", SIZE)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    bad = opened(tmp_path / "a.json", [entry(0, 0, 1, segmentation=[[0, 0, 1, 1]])])
    with pytest.raises(ValueError, match="2 corners"):
        bad.source("dog", ["0"]).read("0", SIZE)
    (tmp_path / "b.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(ValueError, match=r"b\.json, image at byte 12, has no 'file_name'"):
        CocoLabels(tmp_path / "b.json", LabelOptions())
    (tmp_path / "c.json").write_text('{"images": [{"id": 1')
    with pytest.raises(ValueError, match=r"c\.json ends within its content"):
        CocoLabels(tmp_path / "c.json", LabelOptions())


def test_a_folder_of_images_is_a_set_of_videos_of_one_frame(tmp_path: Path) -> None:
    miniatures.lay_out("coco", tmp_path)
    plain = ImageDataset(tmp_path, images="val2017")
    assert len(plain) == 2 and plain[0].labels is None
    for name in ("000000000101", "000000000102"):
        write_labels(tmp_path / "masks" / f"{name}.png", miniatures.truth(0))
    masks = ImageDataset(tmp_path, images="val2017", annotations="masks")
    assert masks[1].labels is not None and torch.equal(masks[1].labels[0], miniatures.truth(0))
    categories = ImageDataset(
        tmp_path, images="val2017", annotations="annotations/instances_val2017.json", ids="category"
    )
    assert categories[0].labels is not None
    assert categories[0].labels.unique().tolist() == [0, 18, 44, 255]
    with pytest.raises(ValueError, match=r"2 of 2 images in .*val2017 have no labels in .*another part"):
        ImageDataset(tmp_path, images="val2017", annotations="annotations/instances_train2017.json")
    with pytest.raises(FileNotFoundError, match="holds no folder nothing"):
        ImageDataset(tmp_path, images="nothing")
