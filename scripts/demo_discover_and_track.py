"""Nothing given: slots discover objects where they are surest, label propagation carries them both ways.

python scripts/demo_discover_and_track.py video.mp4 runs/slots/TIME/last.ckpt --out discovered

The checkpoint is one of `python -m vosssl mode=train hparam=slots`. The video is read several times, so a
camera will not do.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import cast

import vosssl
from vosssl.data.io import write_labels
from vosssl.data.video_io import VideoWriter
from vosssl.engine.drawing import overlay
from vosssl.propagation.discover_and_track import OfflineSegmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a video file or a folder of frames")
    parser.add_argument("checkpoint", type=Path, help="trained slots")
    parser.add_argument(
        "--spacing", type=int, default=8, help="objects are discovered once in so many frames"
    )
    parser.add_argument("--out", type=Path, default=Path("discovered"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    video = vosssl.open_video(arguments.source, annotations=None)
    segmenter = vosssl.create_segmenter(
        "slots-discover-and-track",
        weights=arguments.checkpoint,
        device=arguments.device,
        spacing=arguments.spacing,
    )
    label_video = cast(OfflineSegmenter, segmenter)  # looks at the whole video before it labels a frame
    frames_of: Counter[int] = Counter()  # by object
    with VideoWriter(arguments.out / f"{video.name}.mp4") as writer:
        for frame, labels in label_video(video):
            frames_of.update(identity for identity in labels.unique().tolist() if identity)
            write_labels(arguments.out / "labels" / video.name / f"{frame.name}.png", labels)
            writer.write(overlay(frame.image, labels))
    for identity, count in frames_of.most_common():
        print(f"object {identity}: {count} of {len(video)} frames")
    print(arguments.out)


if __name__ == "__main__":
    main()
