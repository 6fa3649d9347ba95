"""mode=annotate: objects of a video are clicked on, tracked and corrected, on a page or in a window."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from omegaconf import DictConfig

from vosssl.annotation.desk import Desk
from vosssl.annotation.project import Annotation
from vosssl.annotation.server import AnnotationServer
from vosssl.annotation.text_boxes import GroundingDino
from vosssl.backbones.weights import KNOWN_WEIGHTS
from vosssl.data.download import cached_path
from vosssl.data.files import atomic_write, path_inside
from vosssl.data.frame_reader import has_end
from vosssl.data.video import open_video
from vosssl.engine.click_session import ClickSession
from vosssl.engine.click_window import run_window
from vosssl.modes.build import create_prompter, create_segmenter, method_config
from vosssl.modes.session import Session, segmenter_of, start
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)
DEFAULT_SEGMENTER = "motion-features-propagation"  # its weights are shipped
LAST = "last.json"  # the source that was open last, in the folder of all projects
SOURCE = "source.json"  # of a project, in its folder


def run(cfg: DictConfig) -> None:
    """Serves the page, or opens the window; Ctrl-C ends it, and the same command goes on where it was.

    Raises:
        ValueError, FileNotFoundError: a source that cannot be read, or models that are none.
    """
    given = cfg.annotate.source if cfg.annotate.source is not None else cfg.predict.source
    folder = Path(cfg.annotate.folder or Path(cfg.out) / "annotate").expanduser()
    source = last_source(folder) if given is None else given
    if source is not None:
        open_video(source, annotations=None)  # or what is wrong with it, before models are loaded
    session = start(cfg, folder=folder)
    opener = Opener(cfg, session)
    if cfg.annotate.window:
        if source is None:
            raise ValueError("the window needs annotate.source=video.mp4")
        work = opener(source).work
        with work:
            run_window(ClickSession(work, export_folder=work.folder / "export"))
        return
    project = None if source is None else opener(source)
    finder = GroundingDino(cfg.annotate.text, device=str(session.device))
    desk = Desk(opener, folder=folder, project=project, finder=finder)
    with AnnotationServer(
        desk, port=cfg.annotate.port, largest_upload=cfg.annotate.largest_upload_mb << 20
    ) as server:
        sys.stdout.write(f"{server.url}\n")  # not logged: who knows it may annotate
        sys.stdout.flush()
        log.info("open the address above; Ctrl-C ends, the same command goes on where you were")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            desk.stop()
            log.info("all is saved in %s", folder.resolve())


class Opener:
    """Makes projects; the models are loaded once.

    Args:
        cfg: the composed configuration.
        session: the run.
    """

    def __init__(self, cfg: DictConfig, session: Session) -> None:
        self._cfg = cfg
        self._device = str(session.device)
        self._folder = session.folder
        self._segmenter = self._first_source(session)
        if cfg.annotate.second:
            method_config(cfg.annotate.second, weights=cfg.annotate.second_weights)  # or what it could be
        name = cfg.annotate.prompter or default_prompter()
        log.info("masks of clicks by %s", name)
        self._prompter = create_prompter(name, weights=cfg.annotate.prompter_weights, device=self._device)

    def __call__(self, source: str | int | Path) -> Annotation:
        """The project of a video file or folder; one that was begun earlier goes on.

        Raises:
            ValueError, FileNotFoundError: a source that cannot be read, or a camera.
        """
        video = open_video(source, annotations=None)
        if not has_end(video):
            raise ValueError(
                f"{source} is a camera, which has no end; record it, or mode=predict predict.window=true"
            )
        place, folder = Path(str(source)).expanduser().resolve(), path_inside(self._folder, video.name)
        require_same_source(folder, place)
        work = ClickAndTrack(video, self._segmenter, prompter=self._prompter, folder=folder)
        work.frames.read(0)  # or what is wrong with it, before the project that is open loses its models
        project = Annotation(work, second=self._second_source if self._cfg.annotate.second else None)
        for path in (self._folder / LAST, folder / SOURCE):
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps({"source": str(place)}))
        self._segmenter.reset()
        return project

    def _first_source(self, session: Session) -> VideoSegmenter:
        if self._cfg.get("method"):
            segmenter = segmenter_of(self._cfg, session)
        else:
            log.info("tracks by %s; method=… chooses another model", DEFAULT_SEGMENTER)
            segmenter = create_segmenter(DEFAULT_SEGMENTER, device=self._device)
        if self._cfg.annotate.size is not None:
            segmenter.size = self._cfg.annotate.size
        return segmenter

    def _second_source(self) -> VideoSegmenter:
        name, weights = self._cfg.annotate.second, self._cfg.annotate.second_weights
        return create_segmenter(name, weights=weights, device=self._device)


def require_same_source(folder: Path, source: Path) -> None:
    """Refuses to go on with the project of another video of the same name; a video may have moved.

    Raises:
        ValueError: the folder's own video is still there.
    """
    own = last_source(folder, name=SOURCE)
    if own is not None and Path(own) != source:
        raise ValueError(
            f"{folder} is the project of {own}, not of {source}; choose another "
            "annotate.folder, or rename the video"
        )


def last_source(folder: Path, *, name: str = LAST) -> str | None:
    """What was annotated last in a folder, if it is still there."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        source = str(json.loads(path.read_text())["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged; pass annotate.source=video.mp4") from error
    return source if Path(source).exists() else None


def default_prompter() -> str:
    """mobile-sam where its weights were downloaded before, else grab-cut, which has none."""
    return "mobile-sam" if cached_path(KNOWN_WEIGHTS["mobile-sam"].url).is_file() else "grab-cut"
