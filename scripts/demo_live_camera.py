"""A live camera: Space stops the picture, a box drawn around an object and Enter have it followed, q ends it.

python scripts/demo_live_camera.py 0
python scripts/demo_live_camera.py 0 --prompter grab-cut --segmenter motion-features-propagation
python scripts/demo_live_camera.py video.mp4 --box 40 30 200 160 --out live.mp4

The second needs no weights that are not in this repository; the third opens no window.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import cv2

import vosssl
from vosssl.data.video_io import VideoWriter
from vosssl.engine.drawing import overlay
from vosssl.propagation.segmenter import Box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a camera's number, or a video file that stands in for it")
    parser.add_argument("--prompter", default="mobile-sam", help="makes a mask of the box")
    parser.add_argument("--segmenter", default="cutie-small", help="follows the mask")
    parser.add_argument("--box", type=float, nargs=4, help="left top right bottom, in the first frame")
    parser.add_argument("--out", type=Path, help="write a video instead of opening a window")
    arguments = parser.parse_args()
    prompter = vosssl.create_prompter(arguments.prompter)
    segmenter = vosssl.create_segmenter(arguments.segmenter)
    box, seconds = arguments.box, list[float]()
    with nullcontext() if arguments.out is None else VideoWriter(arguments.out) as writer:
        for frame in vosssl.open_video(arguments.source, annotations=None, size=240):
            mask, started = None, perf_counter()
            if box is not None:
                prompter.set_image(frame.image)
                mask = prompter.predict(Box(*box)).best().masks[0, 0].byte()  # (H, W), 1 on the object
            picture, box = overlay(frame.image, segmenter.step(frame.image, mask)), None
            seconds.append(perf_counter() - started)
            if writer is not None:
                writer.write(picture)
                continue
            pixels = picture.flip(0).permute(1, 2, 0).contiguous().numpy()  # RGB -> BGR, (H, W, 3)
            cv2.imshow("live", pixels)
            if (key := cv2.waitKey(1)) == ord("q"):
                break
            if key == ord(" ") and any((roi := cv2.selectROI("live", pixels))[2:]):
                box = (roi[0], roi[1], roi[0] + roi[2], roi[1] + roi[3])
                segmenter.reset()
    print(f"{len(seconds)} frames, {sum(seconds) / len(seconds):.3f} s for each without reading and drawing")


if __name__ == "__main__":
    main()
