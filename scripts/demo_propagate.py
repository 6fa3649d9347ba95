"""A mask of the first frame, carried through the video: label images, and the video with them over it.

python scripts/demo_propagate.py video.mp4 first_mask.png --out propagated
python scripts/demo_propagate.py video.mp4 first_mask.png --model cutie-base --weights cutie-base

The first needs nothing that is not in this repository. Values of the mask are ids, 0 is background; of one
object 0 and 255 will do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vosssl
from vosssl.data.io import read_labels, write_labels
from vosssl.data.video_io import VideoWriter
from vosssl.engine.drawing import overlay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a video file or a folder of frames")
    parser.add_argument("mask", type=Path, help="label PNG of the first frame")
    parser.add_argument("--model", default="motion-features-propagation", help="see vosssl.list_models()")
    parser.add_argument("--weights", help="a known name or a file; default: what comes with the model")
    parser.add_argument("--out", type=Path, default=Path("propagated"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    video = vosssl.open_video(arguments.source, annotations=None)
    segmenter = vosssl.create_segmenter(arguments.model, weights=arguments.weights, device=arguments.device)
    given = read_labels(arguments.mask)  # (H, W) uint8
    if given.unique().tolist() in ([0, 255], [255]):
        given = (given == 255).byte()  # one object, drawn in white
    with VideoWriter(arguments.out / f"{video.name}.mp4") as writer:
        for index, frame in enumerate(video):
            labels = segmenter.step(frame.image, given if index == 0 else None)
            write_labels(arguments.out / "labels" / video.name / f"{frame.name}.png", labels)
            writer.write(overlay(frame.image, labels))
    print(f"objects {segmenter.object_ids} in {len(video)} frames: {arguments.out}")


if __name__ == "__main__":
    main()
