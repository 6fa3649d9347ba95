"""Damaged datasets of a few KB: what the readers say of each, and what mode=check says.

`python -m tests.data.damaged_layouts` prints both as a Markdown table.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from tests.data.movi_records import write_movi
from tests.data.test_shards import write_shards
from tests.data.videos import frame_of, labels_of, write_video
from vosssl.data.check import check_dataset
from vosssl.data.check_findings import CheckReport, Finding, Severity
from vosssl.data.check_parts import PartSpec
from vosssl.data.clips import VideoClips
from vosssl.data.folders import FolderDataset, VideoFiles
from vosssl.data.io import write_image, write_labels
from vosssl.data.movi import MoviDataset
from vosssl.data.release import Release
from vosssl.data.shards import ShardDataset

FRAMES, VIDEOS = 4, ("bear", "camel", "dog")
IMAGES, LABELS, SPLIT = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017/val.txt"
DAVIS = PartSpec.from_dict(
    {"part": "val", "images": IMAGES, "annotations": LABELS, "split_file": SPLIT, "videos": 3, "frames": 12}
    | {"size": 24, "ids": "palette", "fps": 24}
)


@dataclass(frozen=True)
class Layout:
    """One kind of damage.

    Attributes:
        name: of the damage.
        damage: does it to a whole miniature; may return another root to pass.
        said: words of the readers' message, in order; empty: they read on, or a later step notices.
        severity: of the finding of mode=check.
        found: words of its message, in order.
        make: writes the miniature.
        read: opens it with an ordinary constructor.
        spec: what mode=check expects.
    """

    name: str
    damage: Callable[[Path], Path | None]
    said: Sequence[str]
    severity: Severity
    found: Sequence[str]
    make: Callable[[Path], Any]
    read: Callable[[Path], VideoClips]
    spec: PartSpec


def davis(root: Path) -> None:
    """Three videos of four frames, in the folders of DAVIS 2017."""
    for place, video in enumerate(VIDEOS):
        for number in range(FRAMES):
            write_image(root / IMAGES / video / f"{number:05d}.jpg", frame_of(40 * place + number))
            write_labels(root / LABELS / video / f"{number:05d}.png", labels_of(number))
    (root / SPLIT).parent.mkdir(parents=True)
    (root / SPLIT).write_text("\n".join(VIDEOS))


def read_davis(root: Path) -> VideoClips:
    return FolderDataset(root, images=IMAGES, annotations=LABELS, split_file=SPLIT)


def read_footage(root: Path) -> VideoClips:
    return VideoFiles(root)


def read_movi(root: Path) -> VideoClips:
    return MoviDataset(root, variant="movi_e", split="train", verify="all")


def read_shards(root: Path) -> VideoClips:
    return ShardDataset(root, shards="movi_e-train-{000000..000001}.tar")


def footage(root: Path) -> None:
    write_video(root / "a.mp4", frames=6)
    write_video(root / "b.avi", frames=6)


def whole_movi(root: Path) -> None:
    write_movi(root, splits=("train",))


FOOTAGE = PartSpec("all", images="", labels="none", more={"files": "video"})
MOVI = PartSpec("train", images="", labels="none", more={"series": "movi_e-train"})


def frame(root: Path, name: str = "00001.jpg", video: str = "camel") -> Path:
    return root / IMAGES / video / name


def label(root: Path, name: str = "00001.png", video: str = "camel") -> Path:
    return root / LABELS / video / name


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


def save(path: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(path), pixels)


def movi_shard(root: Path, number: int = 1) -> Path:
    return next(root.rglob(f"movi_e-train.tfrecord-{number:05d}-of-00002"))


def one_folder_too_high(root: Path) -> Path:
    return root.parent


def one_folder_too_deep(root: Path) -> Path:
    return root / "JPEGImages"


def nowhere(root: Path) -> Path:
    return root.with_name("davis-2017")


def still_packed(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    with zipfile.ZipFile(root / "DAVIS-2017-trainval-480p.zip", "w") as archive:
        archive.writestr("DAVIS/README.md", "x")


def another_resolution(root: Path) -> None:
    for above in ("JPEGImages", "Annotations"):
        (root / above / "480p").rename(root / above / "Full-Resolution")


def other_case(root: Path) -> None:
    (root / "JPEGImages").rename(root / "jpegimages")


def no_annotations(root: Path) -> None:
    shutil.rmtree(root / "Annotations")


def annotations_of_one_video_missing(root: Path) -> None:
    shutil.rmtree(root / LABELS / "dog")


def no_split_file(root: Path) -> None:
    (root / SPLIT).rename(root / SPLIT.replace("val", "test-dev"))


def video_missing(root: Path) -> None:
    shutil.rmtree(root / IMAGES / "dog")


def split_file_empty(root: Path) -> None:
    (root / SPLIT).write_text("\n")


def split_file_leads_outside(root: Path) -> None:
    (root / SPLIT).write_text("bear\n../../../etc\n")


def video_folder_empty(root: Path) -> None:
    shutil.rmtree(root / IMAGES / "camel")
    (root / IMAGES / "camel").mkdir()


def frames_one_folder_deeper(root: Path) -> None:
    for video in VIDEOS:
        (root / IMAGES / video).rename(root / "moved")
        (root / IMAGES / video).mkdir()
        (root / "moved").rename(root / IMAGES / video / "frames")


def frame_cut_off(root: Path) -> None:
    cut(frame(root))


def frame_of_0_bytes(root: Path) -> None:
    cut(frame(root), 0)


def label_cut_off(root: Path) -> None:
    cut(label(root))


def web_page_as_frame(root: Path) -> None:
    frame(root).write_text("<!DOCTYPE html><title>Google Drive - Quota exceeded</title>")


def label_a_pixel_narrower(root: Path) -> None:
    write_labels(label(root), labels_of(1, size=(24, 31)))


def labels_in_rgb(root: Path) -> None:
    save(label(root), np.full((24, 32, 3), 128, np.uint8))


def labels_of_16_bits(root: Path) -> None:
    save(label(root), np.full((24, 32), 26001, np.uint16))


def labels_of_davis_2016(root: Path) -> None:
    for path in (root / LABELS).rglob("*.png"):
        save(path, (labels_of(1).numpy() == 1).astype(np.uint8) * 255)


def labels_in_jpeg(root: Path) -> None:
    for path in (root / LABELS / "camel").glob("*.png"):
        Image.fromarray(labels_of(1).numpy()).save(path.with_suffix(".jpg"))
        path.unlink()


def first_labels_only(root: Path) -> None:
    for path in (root / LABELS).rglob("*.png"):
        if path.stem != "00000":
            path.unlink()


def labels_named_otherwise(root: Path) -> None:
    for path in (root / LABELS / "camel").glob("*.png"):
        path.rename(path.with_name(f"frame_{path.name}"))


def frame_twice(root: Path) -> None:
    write_image(frame(root, "00001.png"), frame_of(1))


def frames_of_two_sizes(root: Path) -> None:
    write_image(frame(root), frame_of(1, size=(24, 40)))


def mac_leftovers(root: Path) -> None:
    (root / IMAGES / "camel" / "._00001.jpg").write_bytes(b"\0\5\26\7")
    (root / "__MACOSX").mkdir()


def frames_lost(root: Path) -> None:
    frame(root, "00002.jpg").unlink()
    label(root, "00002.png").unlink()


def every_other_frame(root: Path) -> None:
    for folder in (IMAGES, LABELS):
        for path in (root / folder).rglob("0*"):
            if int(path.stem) % 2:
                path.unlink()


def split_of_two(root: Path) -> None:
    (root / SPLIT).write_text("bear\ncamel")


def link_to_nowhere(root: Path) -> None:
    frame(root).unlink()
    frame(root).symlink_to(root / "moved" / "00001.jpg")


def meta_of_another_release(root: Path) -> None:
    (root / "JPEGImages" / "meta.json").write_text(json.dumps({"videos": {"zebra": {"objects": {}}}}))


def video_cut_off(root: Path) -> None:
    cut(root / "a.mp4", 0.3)


def no_video_files(root: Path) -> None:
    for path in root.iterdir():
        path.rename(path.with_suffix(".braw"))


def shard_cut_off(root: Path) -> None:
    cut(movi_shard(root), 0.7)


def shard_byte_changed(root: Path) -> None:
    flip_byte(movi_shard(root), 400)


def shard_missing(root: Path) -> None:
    movi_shard(root).unlink()


def tar_cut_off(root: Path) -> None:
    cut(root / "movi_e-train-000001.tar", 0.4)


def tar_missing(root: Path) -> None:
    (root / "movi_e-train-000000.tar").unlink()


def _davis(
    damage: Callable[[Path], Path | None], said: Sequence[str], severity: Severity, found: Sequence[str]
) -> Layout:
    return Layout(damage.__name__, damage, said, severity, found, davis, read_davis, DAVIS)


def _other(
    damage: Callable[[Path], Path | None],
    said: Sequence[str],
    found: Sequence[str],
    kind: tuple[Callable[[Path], Any], Callable[[Path], VideoClips], PartSpec],
) -> Layout:
    return Layout(damage.__name__, damage, said, "error", found, *kind)


_FILES = (footage, read_footage, FOOTAGE)
_RECORDS = (whole_movi, read_movi, MOVI)
_TARS = (write_shards, read_shards, MOVI)
NO_LABELS = ["camel", "have no labels", "labels=first"]

LAYOUTS = [
    _davis(nowhere, ["no dataset at", "davis-2017", "pass the folder"], "error", ["no dataset at"]),
    _davis(one_folder_too_high, ["does: pass root="], "error", ["one folder too high", "pass root="]),
    _davis(one_folder_too_deep, ["does: pass root="], "error", ["one folder too deep", "pass root="]),
    _davis(still_packed, ["still packed", "mode=download"], "error", ["480p.zip", "still packed"]),
    _davis(another_resolution, ["images=JPEGImages/Full-Resolution"], "error", ["another resolution"]),
    _davis(other_case, ["JPEGImages/480p", "jpegimages"], "error", ["differs only in case: rename it"]),
    _davis(no_annotations, ["no folder Annotations", "annotations=null"], "error", ["no Annotations/480p"]),
    _davis(annotations_of_one_video_missing, ["dog", "no such folder"], "error",
           ["1 of 3 videos have no labels"]),
    _davis(no_split_file, ["no split file", "found test-dev.txt"], "error",
           ["no split file", "test-dev.txt"]),
    _davis(video_missing, ["1 of 3 videos", "such as dog", "partial"], "error",
           ["1 of 3 videos", "dog", "partial"]),
    _davis(split_file_empty, ["names no video"], "error", ["names no video"]),
    _davis(split_file_leads_outside, ["outside the dataset"], "error", ["outside the dataset"]),
    _davis(split_of_two, [], "warning", ["val has 2 of 3 videos", "not comparable"]),
    _davis(video_folder_empty, ["no frames in", "camel", "is empty"], "error",
           ["video folders are empty", "camel"]),
    _davis(frames_one_folder_deeper, ["is no folder of frames", "pass images="], "error",
           ["is no folder of frames"]),
    _davis(frame_cut_off, ["00001.jpg", "truncated or damaged"], "error", ["camel/00001.jpg"]),
    _davis(frame_of_0_bytes, ["(0 bytes)", "truncated"], "error", ["(0 bytes)", "get them again"]),
    _davis(web_page_as_frame, ["00001.jpg", "damaged"], "error", ["frames that are truncated", "00001.jpg"]),
    _davis(label_cut_off, ["camel/00001.png", "truncated"], "error", ["label files that are truncated"]),
    _davis(label_a_pixel_narrower, ["31 wide", "32 wide"], "error", ["31x24", "its frame 32x24"]),
    _davis(labels_in_rgb, ["mode RGB", "object ids"], "error", ["label files in RGB"]),
    _davis(labels_of_16_bits, ["26001", "0..255"], "error", ["ids above 255"]),
    _davis(labels_of_davis_2016, ["only 0 and 255", "DAVIS 2016"], "error", ["only 0 and 255", "DAVIS 2016"]),
    _davis(labels_in_jpeg, NO_LABELS, "error", ["label files in JPEG", "compression changes ids"]),
    _davis(first_labels_only, ["bear", *NO_LABELS[1:]], "error",
           ["first frames only", "upload to the server"]),
    _davis(labels_named_otherwise, ["frame_00000.png"], "warning",
           ["label files that belong to no frame", "same names"]),
    _davis(frame_twice, ["two images for one frame"], "error", ["exist twice"]),
    _davis(frames_of_two_sizes, ["40 wide", "32 wide"], "error", ["another size", "is 40x24"]),
    _davis(mac_leftovers, [], "note", ["leftovers of macOS", "._00001.jpg"]),
    _davis(frames_lost, [], "warning", ["gaps in the numbers of frames", "between 1 and 3"]),
    _davis(every_other_frame, [], "warning", ["one of 2 frames of the release", "12 instead of 24 fps"]),
    _davis(link_to_nowhere, ["no file", "00001.jpg"], "error", ["links that lead nowhere"]),
    _davis(meta_of_another_release, [], "warning", ["meta.json", "zebra"]),
    _other(video_cut_off, ["no frame can be read", "a.mp4"], ["cannot be opened", "a.mp4"], _FILES),
    _other(no_video_files, ["no videos in", "a.braw"], ["no videos in", "a.braw"], _FILES),
    _other(shard_cut_off, ["of-00002", "truncated"], ["record", "truncated"], _RECORDS),
    _other(shard_byte_changed, ["record 0", "check value"], ["record 0", "check value"], _RECORDS),
    _other(shard_missing, ["1 of 2", "missing"], ["1 of 2 shards are missing (00001)"], _RECORDS),
    _other(tar_cut_off, ["movi_e-train-000001.tar"], ["cut off", "movi_e-train-000001.tar"], _TARS),
    _other(tar_missing, ["1 of 2 shards", "missing"], ["1 of 2 shards are missing (00000)"], _TARS),
]  # fmt: skip


def damaged(layout: Layout, folder: Path) -> Path:
    """Writes a layout below a folder; returns the root to pass."""
    root = folder / "set"
    root.mkdir()
    layout.make(root)
    return layout.damage(root) or root


def message_of_readers(layout: Layout, root: Path) -> str:
    """What constructing and reading all of it raises; empty when it goes through."""
    try:
        for video in layout.read(root).videos():
            for read in video:
                assert read.image.dtype == torch.uint8
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def checked(layout: Layout, root: Path) -> CheckReport:
    """What mode=check finds."""
    release = Release(title="DAVIS 2017")
    return check_dataset(root, name="davis17", release=release, parts=[layout.spec])


def finding_of(layout: Layout, report: CheckReport) -> Finding | None:
    """The finding that the layout is about."""
    return next((one for one in report.findings if in_order(layout.found, one.message)), None)


def in_order(words: Sequence[str], text: str) -> bool:
    """Whether a text holds all words, one after the other."""
    place = 0
    for word in words:
        place = text.find(word, place)
        if place < 0:
            return False
        place += len(word)
    return True


def main() -> None:
    """Prints the table."""
    sys.stdout.write("| layout | the readers say | mode=check says |\n| --- | --- | --- |\n")
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            root = damaged(layout, Path(folder))
            said = message_of_readers(layout, root) or "(read as it is)"
            finding = finding_of(layout, checked(layout, root))
            found = finding.line() if finding else "-"
            cells = (layout.name.replace("_", " "), said, " ".join(found.split()))
            row = " | ".join(cell.replace(f"{folder}/", "").replace("|", "\\|") for cell in cells)
            sys.stdout.write(f"| {row.replace(folder, '.')} |\n")


if __name__ == "__main__":
    main()
