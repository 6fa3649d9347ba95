"""A user's folder: a video, frames with masks, and predictions, all generated and tiny."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from vosssl import evaluate
from vosssl.clip import Clip
from vosssl.data.io import write_image, write_labels
from vosssl.data.synthetic import SyntheticClips
from vosssl.data.video_io import VideoWriter

SIZE = (48, 64)  # pixels (H, W) of all frames
FRAMES = 6
OBJECTS = 2
WHITE = torch.tensor(255, dtype=torch.uint8)  # the one object of DAVIS 2016
VIDEOS = ("dog", "boat", "kite")


def generated(count: int) -> list[Clip]:
    """Clips of two moving objects, both of which are seen in every frame."""
    clips = SyntheticClips(
        size=SIZE, frames=FRAMES, objects=(OBJECTS, OBJECTS), count=40, split="val", flow=False
    )
    return list(islice(filter(_is_seen, clips.clips()), count))


def _is_seen(clip: Clip) -> bool:
    assert clip.labels is not None
    ids = {frozenset(labels.unique().tolist()) for labels in clip.labels}
    return ids == {frozenset(range(OBJECTS + 1))}


def write_footage(folder: Path) -> Path:
    """Everything that the demos and the pages name.

    Args:
        folder: gets `video.mp4`, `first_mask.png`, `MINE` (JPEGImages and Annotations), `DAVIS` (laid out as
            DAVIS 2016), `TRUTH` and `PREDICTIONS` (label images, the predictions a pixel to the right of the
            truth), and two reports of these, `ours.json` and `theirs.json`.

    Returns:
        The folder.
    """
    clips = generated(len(VIDEOS))
    assert clips[0].labels is not None
    with VideoWriter(folder / "video.mp4") as writer:
        for frame in clips[0].frames:
            writer.write(frame)
    write_labels(folder / "first_mask.png", clips[0].labels[0])
    for name, clip in zip(VIDEOS, clips, strict=True):
        assert clip.labels is not None
        for number, (image, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
            write_image(folder / "MINE/JPEGImages" / name / f"{number:05d}.jpg", image)
            write_labels(folder / "MINE/Annotations" / name / f"{number:05d}.png", labels)
            write_image(folder / "DAVIS/JPEGImages/480p" / name / f"{number:05d}.jpg", image)
            write_labels(folder / "DAVIS/Annotations/480p" / name / f"{number:05d}.png", (labels > 0) * WHITE)
            write_labels(folder / "TRUTH" / name / f"{number:05d}.png", labels)
            write_labels(folder / "PREDICTIONS" / name / f"{number:05d}.png", labels.roll(1, dims=1))
    lists = folder / "DAVIS/ImageSets/480p"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in VIDEOS))
    report = evaluate(folder / "PREDICTIONS", folder / "TRUTH", protocol="davis17-val")
    for name in ("ours", "theirs"):
        report.to_json(folder / f"{name}.json")
    return folder
