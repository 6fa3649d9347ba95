"""Datasets of a few frames in the exact layout of their release, for tests.

Frame n of every video is grey n * 20; where it has labels, object 1 is the upper left quarter and object 2
the row n, which lies above.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tests.data.videos import labels_of, write_video
from vosssl.data.io import write_image, write_labels
from vosssl.data.rle import encode_rle, run_lengths

SIZE = (48, 64)  # pixels (H, W)
FRAMES = 10


def truth(number: int) -> Tensor:
    """(H, W) uint8 labels of frame n."""
    return labels_of(number, size=SIZE)


def objects(number: int) -> list[Tensor]:
    """The whole masks (H, W) of both objects in frame n, where they overlap too."""
    quarter, row = torch.zeros(2, *SIZE, dtype=torch.bool)
    quarter[: SIZE[0] // 2, : SIZE[1] // 2] = True
    row[number % SIZE[0]] = True
    return [quarter, row]


def frames(folder: Path, *, names: Iterable[str] | None = None) -> None:
    """The frames of a video as JPEGs."""
    for number, name in enumerate(names or [f"{number:05d}" for number in range(FRAMES)]):
        write_image(folder / f"{name}.jpg", torch.full((3, *SIZE), 20 * number, dtype=torch.uint8))


def palette_labels(folder: Path, numbers: Iterable[int] = range(FRAMES), *, first: int = 0) -> None:
    for number in numbers:
        write_labels(folder / f"{number + first:0{5 if not first else 8}d}.png", truth(number))


def binary_png(path: Path, mask: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask.numpy().astype(np.uint8) * 255)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def rle(mask: Tensor, *, compressed: bool = True) -> dict[str, Any]:
    counts = encode_rle(mask) if compressed else run_lengths(mask).tolist()
    return {"size": list(mask.shape), "counts": counts}


def davis(root: Path, *, year: str, annotations: str = "Annotations", splits: dict[str, str]) -> None:
    for split, videos in splits.items():
        for video in videos:
            frames(root / "JPEGImages/480p" / video)
            labelled = range(1) if split == "test-dev" else range(FRAMES)
            if year == "480p":
                for number in labelled:
                    path = root / annotations / "480p" / video / f"{number:05d}.png"
                    binary_png(path, truth(number) > 0)
            else:
                palette_labels(root / annotations / "480p" / video, labelled)
        lines = list(videos)
        if year == "480p":
            lines = [
                f"/JPEGImages/480p/{video}/{n:05d}.jpg /{annotations}/480p/{video}/{n:05d}.png"
                for video in videos
                for n in range(FRAMES)
            ]
        write_lines(root / "ImageSets" / year / f"{split}.txt", lines)


def folders(root: Path, parts: dict[str, str], *, first_only: bool = True, lvos: bool = False) -> None:
    """Parts with JPEGImages and Annotations; all but `train` may have labels of first frames only."""
    for part, videos in parts.items():
        for video in videos:
            names = [f"{number + 1:08d}" for number in range(FRAMES)] if lvos else None
            frames(root / part / "JPEGImages" / video, names=names)
            few = first_only and part != "train"
            labelled = [0] if few else range(FRAMES)
            palette_labels(root / part / "Annotations" / video, labelled, first=int(lvos))


def sav(root: Path) -> None:
    folder = root / "sav_train" / "sav_000"
    for video in ("sav_000001", "sav_000002"):
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{video}.mp4", frames=40, size=SIZE)
        masklets = [[rle(mask) for mask in objects(number)] for number in range(0, 40, 4)]
        for kind in ("manual", "auto"):
            content = {
                "video_id": video,
                "video_frame_count": 40.0,
                "masklet_id": [0, 1],
                "masklet": masklets,
            }
            write_json(folder / f"{video}_{kind}.json", content)
    for video in ("sav_c", "sav_d"):
        frames(root / "sav_val/JPEGImages_24fps" / video)
        for number in range(0, FRAMES, 4):
            for place, mask in enumerate(objects(number)):
                path = root / f"sav_val/Annotations_6fps/{video}/{place:03d}/{number:05d}.png"
                binary_png(path, mask)
    write_lines(root / "sav_val/sav_val.txt", ["sav_c", "sav_d"])


def burst(root: Path) -> None:
    for split, videos in (("train", "ab"), ("val", "cd")):
        sequences = []
        labelled = range(0, FRAMES, 3)
        for video in videos:
            names = [f"frame{number:04d}" for number in range(FRAMES)]
            frames(root / "frames" / split / "AVA" / video, names=names)
            tracks = [
                {str(i): {"rle": encode_rle(mask), "is_gt": True} for i, mask in enumerate(objects(n), 1)}
                for n in labelled
            ]
            sequences.append(
                {
                    "width": SIZE[1],
                    "height": SIZE[0],
                    "seq_name": video,
                    "dataset": "AVA",
                    "fps": 30,
                    "all_image_paths": [f"{name}.jpg" for name in names],
                    "annotated_image_paths": [f"{names[number]}.jpg" for number in labelled],
                    "track_category_ids": {"1": 805, "2": 95},
                    "segmentations": tracks,
                }
            )
        content = {"categories": [], "sequences": sequences, "split": split}
        write_json(root / split / "all_classes.json", content)
        for sequence in sequences:  # each object at its first appearance only
            sequence["segmentations"][1:] = [{} for _ in labelled[1:]]
        write_json(root / split / "first_frame_annotations.json", content)


def tracks(path: Path, videos: str, *, prefix: str = "", compressed: bool = False) -> None:
    """instances.json of YouTube-VIS; its videos are listed in another order than that of their names."""
    listed, annotations = [], []
    for place, video in enumerate(videos, 1):
        names = [f"{video}/{prefix}{number:05d}.jpg" for number in range(FRAMES)]
        listed.append(
            {"id": place, "width": SIZE[1], "height": SIZE[0], "length": FRAMES, "file_names": names}
        )
        for index in range(2):
            masks = [rle(objects(number)[index], compressed=compressed) for number in range(FRAMES)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": place,
                    "category_id": 26,
                    "iscrowd": 0,
                    "segmentations": masks,
                }
            )
    write_json(path, {"info": {}, "categories": [], "videos": listed, "annotations": annotations})


def ytvis(root: Path) -> None:
    for video in "badc":
        frames(root / "train/JPEGImages" / video)
    tracks(root / "train/instances.json", "badc")


def ovis(root: Path) -> None:
    for video in "badc":
        frames(root / "train" / video, names=[f"img_{number:05d}" for number in range(FRAMES)])
    tracks(root / "annotations_train.json", "badc", prefix="img_", compressed=True)


def vipseg(root: Path) -> None:
    """Things 6100 and 6101 (persons) on stuff 3, with one void pixel in the last column."""
    for split, videos in (("train", "ab"), ("val", "cd")):
        for video in videos:
            names = [f"{346 + 5 * number:08d}" for number in range(FRAMES)]
            frames(root / "imgs" / video, names=names)
            for number, name in enumerate(names):
                values = np.array([3, 6100, 6101], np.uint16)[truth(number).numpy()]
                values[-1, -1] = 0
                path = root / "panomasks" / video / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), values)
        write_lines(root / f"{split}.txt", videos)


def segtrack(root: Path) -> None:
    for video in ("birdfall", "bmx"):
        for number in range(FRAMES):
            name = f"{video}_{number:05d}.png"
            image = torch.full((3, *SIZE), 20 * number, dtype=torch.uint8)
            write_image(root / "JPEGImages" / video / name, image)
            if video == "birdfall":
                binary_png(root / "GroundTruth" / video / name, truth(number) > 0)
            else:
                for place, mask in enumerate(objects(number), 1):
                    binary_png(root / "GroundTruth" / video / str(place) / name, mask)


def fbms(root: Path) -> None:
    """One video with greys on black in pgm, one with colours on white in ppm."""
    greys = np.array([0, 128, 255], np.uint8)
    colours = np.array([[255, 255, 255], [255, 128, 0], [0, 0, 255]], np.uint8)  # BGR
    for part, videos in (("Trainingset", ("cats02",)), ("Testset", ("cars1", "bear09"))):
        for video in videos:
            digits = 2 if video == "cars1" else 4
            names = [f"{video}_{number + 1:0{digits}d}" for number in range(FRAMES)]
            frames(root / part / video, names=names)
            folder = root / part / video / "GroundTruth"
            folder.mkdir()
            for number in (0, FRAMES - 1):
                labels = truth(number).numpy()
                if video == "bear09":
                    cv2.imwrite(str(folder / f"{names[number]}_gt.ppm"), colours[labels])
                    cv2.imwrite(str(folder / f"{names[number]}_gt.pgm"), greys[labels * 0])
                    cv2.imwrite(str(folder / f"{names[number]}PROB_gt.ppm"), colours[labels])
                else:
                    cv2.imwrite(str(folder / f"{names[number]}.pgm"), greys[labels])
            (root / part / video / f"{video}.bmf").write_text("10 1\n")


def coco(root: Path) -> None:
    """Two images a part: a polygon, an RLE that overlaps it, and a crowd below them both."""
    for part, first in (("train2017", 1), ("val2017", 101)):
        images, annotations = [], []
        for number in range(2):
            identity = first + number
            frames(root / part, names=[f"{identity:012d}"])
            images.append(
                {"id": identity, "file_name": f"{identity:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            )
            crowd = torch.zeros(SIZE, dtype=torch.bool)
            crowd[: SIZE[0] // 2] = True
            masks: list[Any] = [
                [[0, 0, SIZE[1] / 2, 0, SIZE[1] / 2, SIZE[0] / 2, 0, SIZE[0] / 2]],
                rle(crowd, compressed=False),
                rle(objects(number)[1]),
            ]
            for place, mask in enumerate(masks):
                annotations.append(
                    {
                        "id": 10 * identity + place,
                        "image_id": identity,
                        "category_id": (18, 18, 44)[place],
                        "iscrowd": int(place == 1),
                        "segmentation": mask,
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": []}
        write_json(root / "annotations" / f"instances_{part}.json", content)


def boxes() -> Tensor:
    """(H, W) labels of the first frame of own footage: two boxes, which every format can hold."""
    labels = torch.zeros(SIZE, dtype=torch.uint8)
    labels[4:20, 8:24] = 1
    labels[10:30, 16:40] = 2
    return labels


def own_footage(root: Path, kind: str) -> str:
    """Videos c and d with their first frame labelled by some program; what `data.annotations` has to be."""
    places = [(8, 4, 24, 20), (16, 10, 40, 30)]  # left, top, right, bottom of boxes()
    outlines = [[left, top, right, top, right, bottom, left, bottom] for left, top, right, bottom in places]
    images, annotations, videos, entries = [], [], [], []
    for number, video in enumerate("cd"):
        frames(root / "JPEGImages" / video)
        folder = root / "Annotations" / video
        size = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"id": number, "file_name": f"{video}/00000.jpg", **size})
        names = [f"{video}/{frame:05d}.jpg" for frame in range(FRAMES)]
        videos.append({"id": number, "file_names": names, **size})
        shapes, drawn = [], []
        for place, (box, outline) in enumerate(zip(places, outlines, strict=True), 1):
            annotations.append({"image_id": number, "category_id": 1, "segmentation": [outline]})
            masks = [[outline], *[None] * (FRAMES - 1)]
            entries.append({"video_id": number, "category_id": 1, "segmentations": masks})
            corners = [list(box[:2]), list(box[2:])]
            shapes.append({"label": f"cat{place}", "shape_type": "rectangle", "points": corners})
            left, top, right, bottom = box
            ends = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
            drawn.append(
                f'<track id="{place}" label="cat"><box frame="0" outside="0" {ends}/>'
                f'<box frame="1" outside="1" {ends}/></track>'
            )
            if kind == "objects":
                mask = torch.zeros(SIZE, dtype=torch.bool)
                mask[top:bottom, left:right] = True
                binary_png(folder / str(place) / "00000.png", mask)
        if kind == "png":
            write_labels(folder / "00000.png", boxes())
        if kind == "labelme":
            write_json(folder / "00000.json", {"shapes": shapes, "imageHeight": 48, "imageWidth": 64})
        if kind == "cvat":
            (root / f"{video}.xml").write_text(f"<annotations>{''.join(drawn)}</annotations>")
    if kind == "coco":
        write_json(root / "labels.json", {"images": images, "annotations": annotations})
    if kind == "tracks":
        write_json(root / "labels.json", {"videos": videos, "annotations": entries})
    return {"coco": "labels.json", "tracks": "labels.json", "cvat": "{video}.xml"}.get(kind, "Annotations")


def lay_out(name: str, root: Path) -> None:
    """The miniature of a dataset by the name of its yaml."""
    both = {"train": "ab", "val": "cd"}
    later = {"train": "ab", "valid": "cd"}
    made = {
        "davis16": lambda: davis(root, year="480p", splits=both),
        "davis17": lambda: davis(root, year="2017", splits=both),
        "davis17_unsupervised": lambda: davis(
            root, year="2017", annotations="Annotations_unsupervised", splits=both
        ),
        "davis17_testdev": lambda: davis(root, year="2017", splits={"test-dev": "cd"}),
        "ytvos2018": lambda: folders(root, later),
        "ytvos2019": lambda: folders(root, later),
        "mose": lambda: folders(root, later),
        "mose2": lambda: folders(root, later),
        "lvos1": lambda: folders(root, both | {"test": "e"}, first_only=False, lvos=True),
        "lvos2": lambda: folders(root, both | {"test": "e"}, first_only=False, lvos=True),
        "sav": lambda: sav(root),
        "burst": lambda: burst(root),
        "ovis": lambda: ovis(root),
        "vipseg": lambda: vipseg(root),
        "segtrack2": lambda: segtrack(root),
        "fbms59": lambda: fbms(root),
        "ytvis2019": lambda: ytvis(root),
        "ytvis2021": lambda: ytvis(root),
        "coco": lambda: coco(root),
        "folder": lambda: folders(root / "..", {root.name: "cd"}, first_only=False),
    }
    root.mkdir(parents=True, exist_ok=True)
    made[name]()
