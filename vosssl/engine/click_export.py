"""What a session of clicking and tracking hands on: label images, a video with them over it, confidences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosssl.data.files import atomic_write
from vosssl.data.io import write_labels
from vosssl.data.video_io import VideoWriter
from vosssl.engine.drawing import overlay
from vosssl.ops.masks import object_ids
from vosssl.propagation.click_and_track import ClickAndTrack


def export_tracks(work: ClickAndTrack, folder: str | Path, *, with_overlay: bool = True) -> dict[str, Any]:
    """Writes every frame that has labels.

    Args:
        work: the session.
        folder: gets `labels/VIDEO/FRAME.png` (palette PNGs, as DAVIS has them), `VIDEO.mp4` and
            `tracks.json`: the report, and each object's confidence by frame.
        with_overlay: whether to write the video.

    Returns:
        The report: frames, the frames that a person gave masks in, and in how many frames each object is.

    Raises:
        ValueError: no frame has labels.
    """
    if not work.known_frames:
        raise ValueError("nothing was accepted or tracked yet; there is nothing to export")
    folder = Path(folder)
    seen: dict[int, int] = {}
    if with_overlay:
        fps = getattr(work.video, "fps", 0.0) or 25.0
        with VideoWriter(folder / f"{work.video.name}.mp4", fps=fps) as writer:
            _write(work, folder, seen, writer)
    else:
        _write(work, folder, seen, None)
    report = {
        "video": work.video.name,
        "frames": len(work.known_frames),
        "prompted_frames": list(work.prompted_frames),
        "objects": {str(identity): seen.get(identity, 0) for identity in work.objects},
    }
    confidence = {
        work.frames.name(frame): {str(key): value for key, value in work.confidence(frame).items()}
        for frame in work.known_frames
    }
    with atomic_write(folder / "tracks.json") as path:
        path.write_text(json.dumps({**report, "confidence": confidence}, indent=1))
    return report


def _write(work: ClickAndTrack, folder: Path, seen: dict[int, int], writer: VideoWriter | None) -> None:
    for frame in work.known_frames:
        labels = work.labels(frame)
        assert labels is not None
        write_labels(folder / "labels" / work.video.name / f"{work.frames.name(frame)}.png", labels)
        for identity in object_ids(labels):
            seen[identity] = seen.get(identity, 0) + 1
        if writer is not None:
            writer.write(overlay(work.frames.read(frame).image, labels))
