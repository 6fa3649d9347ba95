"""Slots on a video: objects found and followed without labels, drawn over the frames.

python scripts/demo_slots.py video.mp4 runs/slots/TIME/last.ckpt --out slots.mp4
python scripts/demo_slots.py video.mp4 slotcontrast.ckpt --model slotcontrast-ytvis

The first takes what `python -m vosssl mode=train hparam=slots` wrote, the second a released checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vosssl
from vosssl.data.video_io import VideoWriter
from vosssl.engine.drawing import overlay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a video file or a folder of frames")
    parser.add_argument("checkpoint", type=Path, help="trained slots")
    parser.add_argument("--model", default="slots-synthetic", help="whose network the checkpoint is")
    parser.add_argument("--out", type=Path, default=Path("slots.mp4"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    video = vosssl.open_video(arguments.source, annotations=None)
    segmenter = vosssl.create_segmenter(
        arguments.model, weights=arguments.checkpoint, device=arguments.device
    )
    seen: set[int] = set()
    with VideoWriter(arguments.out) as writer:
        for frame in video:  # one frame in memory
            labels = segmenter.step(frame.image)  # (H, W) uint8, the slot that each pixel belongs to
            seen.update(labels.unique().tolist())
            writer.write(overlay(frame.image, labels))
    print(f"{len(video)} frames, {len(seen)} slots with pixels: {arguments.out}")


if __name__ == "__main__":
    main()
