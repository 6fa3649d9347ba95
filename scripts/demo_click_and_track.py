"""Click on objects in a video or a camera, see their masks, track them, correct them, export: a window.

python scripts/demo_click_and_track.py video.mp4
python scripts/demo_click_and_track.py 0 --out my_session              # the first camera
python scripts/demo_click_and_track.py video.mp4 --prompter grab-cut --segmenter motion-features-propagation
python scripts/demo_click_and_track.py video.mp4 --click 320 180       # no window: x and y in the first frame

The third needs no weights that are not in this repository. Press h in the window for the keys.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vosssl
from vosssl.engine.click_export import export_tracks
from vosssl.engine.click_session import ClickSession
from vosssl.engine.click_window import run_window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a video file, a folder of frames, or a camera's number")
    parser.add_argument("--prompter", default="mobile-sam", help="makes masks of clicks")
    parser.add_argument("--prompter-weights", help="a known name or a file; default: the released ones")
    parser.add_argument("--segmenter", default="cutie-base", help="follows masks")
    parser.add_argument("--weights", help="of the segmenter; default: the released ones")
    parser.add_argument("--click", type=float, nargs=2, help="on the object, instead of opening a window")
    parser.add_argument("--out", type=Path, default=Path("runs/click_and_track"), help="session and export")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    video = vosssl.open_video(arguments.source, annotations=None)
    work = vosssl.ClickAndTrack(
        video,
        vosssl.create_segmenter(arguments.segmenter, weights=arguments.weights, device=arguments.device),
        prompter=vosssl.create_prompter(
            arguments.prompter, weights=arguments.prompter_weights, device=arguments.device
        ),
        folder=arguments.out / video.name,
    )
    export = arguments.out / video.name / "export"
    with work:
        if arguments.click is None:
            run_window(ClickSession(work, export_folder=export))
            return
        draft = work.click(0, *arguments.click)
        identity = work.accept()
        print(f"the mask has {int(draft.mask.sum())} pixels, score {draft.score}")
        for tracked in work.track(0):
            print(f"frame {tracked.frame}: confidence {tracked.confidence.get(identity, 0):.2f}")
        print(export_tracks(work, export))


if __name__ == "__main__":
    main()
