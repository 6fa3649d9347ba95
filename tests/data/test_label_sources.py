"""What all readers of labels share: ids, overlaps, sizes, and files that are indexed rather than loaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.data import miniatures
from tests.data.videos import SIZE, labels_of, write_sequence, write_video
from vosssl.data.annotations import Annotations, open_source
from vosssl.data.folders import FolderDataset, VideoFiles
from vosssl.data.io import write_labels
from vosssl.data.label_sources import (
    DrawnLabels,
    EntryIndex,
    LabelOptions,
    number_objects,
    overlay,
    segmentation_mask,
)
from vosssl.data.listing import LabelFiles
from vosssl.data.video import load_clip, open_video


class Constant(DrawnLabels):
    def _labels(self, frame: str, size: tuple[int, int]) -> Tensor:
        return torch.tensor([[0, 3], [7, 255]], dtype=torch.uint8)


def constant(**options: object) -> Constant:
    return Constant(Path("labels.json"), ["a"], video="dog", options=LabelOptions(**options))  # type: ignore[arg-type]


def test_the_later_of_two_objects_lies_above() -> None:
    masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]], dtype=torch.bool)
    assert overlay([(4, masks[0]), (2, masks[1])], (1, 3)).tolist() == [[4, 2, 2]]
    assert overlay([], (1, 3)).tolist() == [[0, 0, 0]]


def test_names_that_are_ids_stay_and_others_are_numbered() -> None:
    assert number_objects([7, 3], where="x") == {7: 7, 3: 3}
    assert number_objects(["cat", "dog", "cat"], where="x") == {"cat": 1, "dog": 2}
    assert number_objects([1000, 0], where="x") == {1000: 1, 0: 2}
    assert len(number_objects(range(254), where="x")) == 254
    with pytest.raises(ValueError, match=r"a\.json, video dog, has 255 objects, expected at most 254"):
        number_objects(range(255), where="a.json, video dog,")


def test_labels_of_another_size_name_both_and_can_be_stretched() -> None:
    with pytest.raises(
        ValueError, match=r"2 wide and 2 high.*frame is 6 wide and 4 high.*on_wrong_size=resize"
    ):
        constant().read("a", (4, 6))
    stretched = constant(on_wrong_size="resize").read("a", (4, 6))
    assert stretched is not None and stretched[0].tolist() == [0, 0, 0, 3, 3, 3]
    assert constant().read("b", (2, 2)) is None


def test_objects_may_count_as_one_while_void_stays_void() -> None:
    labels = constant(binary=True).read("a", (2, 2))
    assert labels is not None and labels.tolist() == [[0, 1], [1, 255]]


def test_a_mask_is_run_lengths_or_polygons() -> None:
    square = torch.zeros(4, 5, dtype=torch.bool)
    square[:2, :3] = True
    for compressed in (True, False):
        assert torch.equal(segmentation_mask(miniatures.rle(square, compressed=compressed), (4, 5)), square)
    assert torch.equal(segmentation_mask([[0, 0, 3, 0, 3, 2, 0, 2]], (4, 5)), square)
    with pytest.raises(ValueError, match=r"a mask is \[4, 5\], its image \[5, 4\]"):
        segmentation_mask(miniatures.rle(square), (5, 4))
    with pytest.raises(ValueError, match="expected run lengths or polygons"):
        segmentation_mask(7, (4, 5))


def test_entries_are_found_by_their_number_without_being_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    entries = [{"id": n, "image_id": (5, 3, 5)[n], "segmentation": [[1.5, 2]]} for n in range(3)]
    path.write_text(json.dumps({"info": {"image_id": 9}, "annotations": entries}, indent=1))
    index = EntryIndex(path, "annotations", "image_id")
    text = path.read_bytes()
    assert [json.loads(text[start:end])["id"] for start, end in index.spans(5)] == [0, 2]
    assert 3 in index and 9 not in index
    path.write_text('{"annotations": [{"id": 1}]}')
    with pytest.raises(ValueError, match=r"a\.json, entry at byte 17, has no number image_id"):
        EntryIndex(path, "annotations", "image_id")
    path.write_text('{"annotations": []}')
    assert 1 not in EntryIndex(path, "annotations", "image_id")


def test_sources_travel_to_worker_processes(tmp_path: Path) -> None:
    miniatures.lay_out("ytvis2021", tmp_path)
    source = Annotations(tmp_path, "train/instances.json").of("a", ["00000"])
    before = source.read("00004", miniatures.SIZE)
    again = pickle.loads(pickle.dumps(source)).read("00004", miniatures.SIZE)
    assert before is not None and torch.equal(before, again)
    assert len(pickle.dumps(source)) < 3000  # nothing parsed goes along


def test_a_video_opens_with_the_annotations_of_any_program(tmp_path: Path) -> None:
    miniatures.lay_out("sav", tmp_path / "sav")
    clip = load_clip(tmp_path / "sav/sav_train/sav_000/sav_000001.mp4")  # finds the JSON beside it
    assert clip.labels is not None and clip.labelled is not None
    assert clip.labelled.nonzero().flatten().tolist() == list(range(0, 40, 4))
    assert torch.equal(clip.labels[8], miniatures.truth(8))
    miniatures.lay_out("burst", tmp_path / "burst")
    folder = tmp_path / "burst/frames/val/AVA/c"
    clip = load_clip(folder, annotations=tmp_path / "burst/val/first_frame_annotations.json", frames=2)
    assert clip.labels is not None and torch.equal(clip.labels[0], miniatures.truth(0))
    objects = tmp_path / "sav/sav_val/Annotations_6fps/sav_c"
    video = open_video(tmp_path / "sav/sav_val/JPEGImages_24fps/sav_c", annotations=objects)
    assert torch.equal(video.clip([4]).labels[0], miniatures.truth(4))  # type: ignore[index]


def test_own_footage_is_labelled_by_whatever_lies_there(tmp_path: Path) -> None:
    write_sequence(tmp_path / "JPEGImages/dog", annotations=tmp_path / "Annotations/dog", labelled=range(1))
    write_sequence(tmp_path / "JPEGImages/cat")
    objects = {1: labels_of(0) == 1, 2: labels_of(0) == 2}
    for number, mask in objects.items():
        miniatures.binary_png(tmp_path / f"Annotations/cat/{number}/00000.png", mask)
    videos = FolderDataset(tmp_path, labels="first").videos()
    assert [video.name for video in videos] == ["cat", "dog"]
    for video in videos:  # the first frame's labels are all there is
        clip = video.clip([0, 1])
        assert clip.labels is not None and torch.equal(clip.labels[0], labels_of(0))
        assert clip.labelled is not None and clip.labelled.tolist() == [True, False]


def test_video_files_carry_labels_too(tmp_path: Path) -> None:
    write_video(tmp_path / "dog.mp4", size=miniatures.SIZE)
    write_labels(tmp_path / "masks/dog/00003.png", miniatures.truth(3))
    (video,) = VideoFiles(tmp_path, annotations="masks").videos()
    assert torch.equal(video.clip([3]).labels[0], miniatures.truth(3))  # type: ignore[index]
    with pytest.raises(ValueError, match=r"no labels beside 1 video files .*dog_manual\.json"):
        VideoFiles(tmp_path, annotations="beside")
    with pytest.raises(ValueError, match=r"none of 1 video files has labels in .*\{video\}\.xml; pass"):
        VideoFiles(tmp_path, annotations="{video}.xml")
    with pytest.raises(FileNotFoundError, match="holds no folder Masks"):
        VideoFiles(tmp_path, annotations="Masks")


def test_masks_one_pixel_narrower_than_their_frame_are_explained(tmp_path: Path) -> None:
    write_sequence(tmp_path / "images/judo", size=(24, 32))
    write_labels(tmp_path / "masks/judo/00000.png", labels_of(0, size=(24, 31)))
    with pytest.raises(ValueError, match=r"31 wide and 24 high.*32 wide and 24 high.*on_wrong_size=resize"):
        load_clip(tmp_path / "images/judo")
    clip = load_clip(tmp_path / "images/judo", on_wrong_size="resize")
    assert clip.labels is not None and tuple(clip.labels.shape) == (6, 24, 32)
    assert clip.labels[0].unique().tolist() == [0, 1, 2]


def test_files_of_no_known_format_are_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a")
    for name, text, message in (
        ("a.json", "[]", "are a list of results"),
        ("b.json", '{"info": 1}', "hold info, expected one of videos, sequences, masklet, images"),
        ("c.txt", "x", r"are no folder, and no \.json or \.xml file"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            open_video(tmp_path / "a", annotations=tmp_path / name)
    with pytest.raises(ValueError, match="kind of labels 'pngs', expected one of auto, png"):
        open_video(tmp_path / "a", annotations=tmp_path, kind="pngs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a folder for kind 'png'"):
        open_video(tmp_path / "a", annotations=tmp_path / "b.json", kind="png")
    with pytest.raises(ValueError, match="are no file, expected one for kind 'coco'"):
        open_source(tmp_path, "coco", video="a", frames=None, options=LabelOptions())
    nothing = open_source(tmp_path / "none", "auto", video="a", frames=None, options=LabelOptions())
    assert isinstance(nothing, LabelFiles) and not nothing.names


def test_parts_of_a_set_are_slices_in_the_order_of_its_list(tmp_path: Path) -> None:
    miniatures.lay_out("ytvis2021", tmp_path)
    settings = {"images": "train/JPEGImages", "annotations": None, "split_file": "train/instances.json"}
    names = [
        [v.name for v in FolderDataset(tmp_path, part=part, **settings).videos()]  # type: ignore[arg-type]
        for part in (None, (None, -3), (-3, None))
    ]
    assert names == [["b", "a", "d", "c"], ["b"], ["a", "d", "c"]]
    with pytest.raises(ValueError, match=r"part \[9, None\] of 4 videos"):
        FolderDataset(tmp_path, part=[9, None], **settings)  # type: ignore[arg-type]


def test_frames_without_labels_can_be_left_out(tmp_path: Path) -> None:
    write_sequence(
        tmp_path / "JPEGImages/dog", annotations=tmp_path / "Annotations/dog", labelled=range(0, 6, 2)
    )
    (video,) = FolderDataset(tmp_path, only_labelled=True).videos()
    assert video.frame_names == ("00000", "00002", "00004") and video.size == SIZE


def test_object_folders_count_from_0_where_any_video_does(tmp_path: Path) -> None:
    for video, numbers in (("a", (0, 1)), ("b", (1,))):
        write_sequence(tmp_path / "JPEGImages" / video)
        for number in numbers:
            mask = torch.ones(SIZE, dtype=torch.bool)
            miniatures.binary_png(tmp_path / f"Annotations/{video}/{number:03d}/00000.png", mask)
    videos = FolderDataset(tmp_path, labels="first").videos()
    found = [video.read_labels(0) for video in videos]
    assert [int(labels.max()) for labels in found if labels is not None] == [2, 2]
