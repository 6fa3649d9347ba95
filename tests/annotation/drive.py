"""From a generated video of 200 frames to COCO JSON, by mouse and keys, with a kill in between; its J&F.

    python -m tests.annotation.drive FOLDER [options of mode=annotate]

Somebody clicks on three objects, tracks, sees the program die in mid-pass, starts it again, goes on, lets the
second source check, goes to the worst frame, corrects what is wrong there, and exports. With a FOLDER that is
there already only the review is done (again).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from tests.annotation.moving_shapes import moving_shapes
from tests.annotation.person import Person
from tests.engine.webdriver import Browser
from vosssl.data.coco_json import CocoLabels
from vosssl.data.io import read_labels
from vosssl.data.label_sources import LabelOptions
from vosssl.data.video_io import VideoWriter
from vosssl.metrics.outlines import trace
from vosssl.metrics.region_boundary import paired_jf

IDS = (1, 2, 3)
HEIGHT, WIDTH = 128, 192
LOOKS_RIGHT = 0.9  # overlap of a mask at which somebody is content
RADIUS, SMALL, DABS = 8, 2, 5  # of the brush at first, and for details; dabs with it
WORTH_IT = 0.02  # overlap that a correction has to gain
ROUNDS = 3  # looks at a worst frame


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The program, and the address it prints."""
    command = [sys.executable, "-m", "vosssl", "mode=annotate", f"annotate.folder={folder}", *options]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    assert program.stdout is not None
    return program, program.stdout.readline().strip()


def inmost(mask: Tensor) -> tuple[float, float]:
    """x and y of the pixel of a mask (H, W) that is farthest from its border."""
    depth = torch.from_numpy(cv2.distanceTransform(mask.byte().numpy(), cv2.DIST_L2, 3))
    row, column = divmod(int(depth.argmax()), mask.shape[1])
    return column + 0.5, row + 0.5


def overlap(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / (first | second).sum().clamp(min=1))


class Drive:
    """One run.

    Args:
        folder: gets everything.
        truth: (T, H, W) uint8 ids: what the person sees.
        options: of the program.
    """

    def __init__(self, folder: Path, truth: Tensor, options: Sequence[str]) -> None:
        self.folder, self.truth, self.options = folder, truth, options
        self.began = time.monotonic()
        source = f"annotate.source={folder / 'shapes.mp4'}"
        self.program, self.url = start(folder / "work", source, *options)
        self.browser = Browser(Path(tempfile.mkdtemp()), size=(1280, 820))
        self.person = Person(self.browser)
        self.person.visit(self.url)
        self.say("the page is open")

    def say(self, text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self.began:6.1f} s  {text}\n")
        sys.stdout.flush()

    def picture(self, name: str) -> None:
        self.browser.screenshot(self.folder / f"{name}.png")

    def mark(self, frame: int, identity: int, *, before: float = 0.0) -> bool:
        """A click inside the object; where the mask looks wrong, the brush on what was there, or a box.

        Args:
            frame: that is looked at.
            identity: of the object.
            before: overlap of the mask that is there; a draft that is no better is discarded.

        Returns:
            Whether there is a draft to accept.
        """
        mask = self.truth[frame] == identity
        self.person.click(*inmost(mask))
        if identity == 1 and frame == 0:
            self.picture("1-click")
        found = overlap(self.draft() == identity, mask)
        if before and found < before + WORTH_IT:
            self.person.press("Escape", str(identity))
            found = self.paint(identity, mask)
        elif found < LOOKS_RIGHT and not before:
            self.person.press("Escape", str(identity))
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            corner = (float(columns[0]) - 1, float(rows[0]) - 1)
            self.person.drag(corner, (float(columns[-1]) + 2, float(rows[-1]) + 2))
            found = overlap(self.draft() == identity, mask)
        self.say(f"object {identity} in frame {frame}: overlap {before:.3f} -> {found:.3f}")
        if found < before + WORTH_IT:
            self.person.press("Escape")
            return False
        return True

    def paint(self, identity: int, mask: Tensor) -> float:
        """A few dabs with a small brush: where something is missing, or with the right button too much."""
        self.person.press("f", *["["] * (RADIUS - SMALL))
        wrong, found = mask, 0.0
        for _ in range(DABS):
            missing, surplus = mask & wrong, ~mask & wrong
            beside = int(surplus.sum()) > int(missing.sum())
            self.person.click(*inmost(surplus if beside else missing), button=2 if beside else 0)
            drawn = self.draft() == identity
            wrong, found = drawn ^ mask, overlap(drawn, mask)
        self.person.press("d", *["]"] * (RADIUS - SMALL))
        return found

    def draft(self) -> Tensor:
        """(H, W) uint8: what is kept of the draft, as an id."""
        kept = read_labels(self.folder / "work/shapes/draft.png")
        return kept * int(self.browser.script("return page.state.draft.object"))

    def click_and_track(self) -> None:
        for identity in IDS:
            self.mark(0, identity)
            self.person.press("n")
        self.person.begin("t")
        self.die_and_go_on(60)
        self.person.press("t")
        self.say(self.person.message)

    def die_and_go_on(self, reached: int) -> None:
        """Kills the program in a pass once it has reached a frame; starts it and opens the page anew."""
        while int(self.browser.script("return page.state.job?.done ?? 0")) < reached:
            time.sleep(0.1)
        self.picture("2-tracking")
        objects = self.browser.script("return page.state.objects")
        self.program.kill()
        self.program.wait()
        self.say(f"killed after {reached} frames of the pass")
        self.program, self.url = start(self.folder / "work", *self.options)
        self.person.visit(self.url)
        self.person.settle()
        assert self.browser.script("return page.state.objects") == objects
        self.picture("3-reopened")
        self.say(f"open again at frame {self.person.frame}: {self.person.hint}")

    def exported(self) -> float:
        """Presses the button, reads the file back: mean of J and F over objects and frames."""
        self.browser.click("[data-format=coco]")
        self.person.settle()
        path = self.folder / "work/shapes/export/coco.json"
        source = CocoLabels(path, LabelOptions()).source("shapes", None)
        frames = range(len(self.truth))
        labels = torch.stack([source.read(f"{frame:05d}", (HEIGHT, WIDTH)) for frame in frames])
        jf = paired_jf(trace(labels, self.truth), IDS)
        j, f = float(jf[0].mean()), float(jf[1].mean())
        worst = int(((jf[0] + jf[1]) / 2).mean(0).argmin())
        self.say(
            f"J&F {(j + f) / 2:.4f} (J {j:.4f}, F {f:.4f}), truly worst in frame {worst}; "
            f"{self.person.prompts} clicks and boxes, {self.person.presses} keys"
        )
        self.labels = labels
        return (j + f) / 2

    def correct_worst(self) -> bool:
        """Goes to the worst frame and corrects what looks wrong there; whether something did."""
        self.person.press("c", "w")
        return self.correct_here() or self.correct_later()

    def correct_later(self) -> bool:
        """Goes on ten frames, where hidden objects may be seen again, and corrects them there."""
        self.person.press(*["Right"] * 10)
        return self.correct_here()

    def correct_here(self) -> bool:
        """Corrects what looks wrong in the frame that is seen; whether something did."""
        frame = self.person.frame
        times = self.browser.script("return page.times")
        self.picture(f"4-worst-{frame}")
        masks = {key: overlap(self.labels[frame] == key, self.truth[frame] == key) for key in IDS}
        wrong = [key for key, value in masks.items() if value < LOOKS_RIGHT and self.sees(frame, key)]
        self.say(
            f"frame {frame}: confidence {times['confidence'][frame]}, "
            f"disagreement {times['disagreement'][frame]}, true overlaps "
            f"{[round(value, 3) for value in masks.values()]}, to correct: {wrong}"
        )
        if not wrong:
            return False
        accepted = 0
        for identity in wrong:
            self.person.press(str(identity))
            if self.mark(frame, identity, before=masks[identity]):
                self.person.press("Enter")
                accepted += 1
        if accepted:
            self.person.press("p")
            self.say(self.person.message)
        return bool(accepted)

    def sees(self, frame: int, identity: int) -> bool:
        return bool((self.truth[frame] == identity).any())

    def close(self) -> None:
        self.browser.close()
        self.program.kill()
        self.program.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", nargs="*", help="of mode=annotate, as key=value")
    given = parser.parse_args()
    folder = given.folder.resolve()
    images, truth = moving_shapes(frames=200, height=HEIGHT, width=WIDTH)
    begun = folder.is_dir()
    if not begun:
        folder.mkdir(parents=True)
        with VideoWriter(folder / "shapes.mp4") as writer:
            for image in images:
                writer.write(image)
    drive = Drive(folder, truth, given.options)
    try:
        if not begun:
            drive.click_and_track()
        drive.exported()
        for _ in range(ROUNDS):
            corrected = drive.correct_worst()
            drive.exported()
            if not corrected:
                break
        drive.person.begin("?")
        drive.picture("5-keys")
        drive.say(f"console: {drive.browser.console()}")
    finally:
        drive.close()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
