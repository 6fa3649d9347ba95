"""The annotation page in a real browser, with mouse and keys: from a video to COCO JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.annotation.moving_shapes import moving_shapes
from tests.annotation.person import Person
from tests.engine.webdriver import Browser, chromium
from vosssl.annotation.desk import Desk
from vosssl.annotation.project import Annotation
from vosssl.annotation.server import AnnotationServer
from vosssl.clip import Clip
from vosssl.data.coco_json import CocoLabels
from vosssl.data.label_sources import LabelOptions
from vosssl.data.video import clip_video
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.methods.grab_cut import grab_cut_prompter
from vosssl.propagation.click_and_track import ClickAndTrack

FRAMES, SIZE = 6, (96, 160)


@pytest.fixture(scope="module")
def shapes() -> tuple[torch.Tensor, torch.Tensor]:
    return moving_shapes(frames=FRAMES, height=SIZE[0], width=SIZE[1])


@pytest.fixture
def served(tmp_path: Path, shapes: tuple[torch.Tensor, torch.Tensor]) -> Iterator[AnnotationServer]:
    video = clip_video(Clip("shapes", shapes[0]))
    work = ClickAndTrack(video, CopyFirstMask(), prompter=grab_cut_prompter(), folder=tmp_path / "shapes")
    project = Annotation(work, second=CopyFirstMask)
    desk = Desk(lambda source: project, folder=tmp_path, project=project)
    with AnnotationServer(desk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        desk.stop()
        server.shutdown()


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="needs chromium and chromedriver")
def test_from_a_video_to_coco_with_mouse_and_keys(
    served: AnnotationServer, shapes: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    _, truth = shapes
    browser = Browser(tmp_path / "profile")
    try:
        page, project = Person(browser), served.desk.project
        page.visit(served.url)
        assert project is not None
        for identity in (1, 2, 3):
            rows, columns = (truth[0] == identity).nonzero().float().mean(0).tolist()
            page.click(columns + 0.5, rows + 0.5)
            assert project.work.draft is not None and project.work.draft.identity == identity
            page.press("n")
        assert project.work.objects == (1, 2, 3) and project.work.prompted_frames == (0,)
        labels = project.work.labels(0)
        assert labels is not None and float((labels == truth[0]).float().mean()) > 0.97
        page.press("t")
        assert "All frames are tracked. C lets" in page.hint
        assert "done" in page.message and project.work.known_frames == tuple(range(FRAMES))
        page.press("c", "w", "3")
        assert page.frame == project.worst_frame()
        assert browser.script("return !page.outlines")
        page.press("s")
        browser.wait_for("page.outlines && page.outlines.naturalWidth")
        browser.click("[data-tool=brush]")
        page.drag((5, 5), (40, 5))
        draft = project.work.draft
        assert draft is not None and bool(draft.mask[5, 6:39].all()) and draft.identity == 3
        page.drag((20, 5), (60, 5), button=2)
        assert not bool(project.work.draft.mask[5, 30])
        page.press("u", "u", "d")
        assert project.work.draft is None
        page.drag((2, 2), (60, 50))  # a box
        assert project.work.draft is not None and project.work.draft.box is not None
        page.press("Escape")
        page.click(80, 48, button=2)
        assert project.work.draft is not None and not project.work.draft.points[0][2]
        page.press("Escape", "Home")
        browser.click("[data-format=coco]")
        page.settle()
        assert "coco.json" in page.message
        source = CocoLabels(project.folder / "export/coco.json", LabelOptions()).source("shapes", None)
        for frame in range(FRAMES):
            own = project.work.labels(frame)
            assert own is not None and torch.equal(source.read(f"{frame:05d}", SIZE), own)
        assert len(json.loads((project.folder / "annotation.json").read_text())) == 3
        assert [line for line in browser.console() if "favicon" not in line] == []
    finally:
        browser.close()
