"""Objects given by clicks in the first frame instead of masks, as a person would give them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vosssl.clip import VOID, Frame
from vosssl.data.prompt_simulation import click_at_error_centre
from vosssl.data.video import Video
from vosssl.engine.evaluator import LabelVideo
from vosssl.ops.masks import object_ids
from vosssl.propagation.segmenter import Clicks, VideoSegmenter


def follow_clicks(segmenter: VideoSegmenter, *, clicks: int) -> LabelVideo:
    """A function from videos to labels that clicks on the objects of the first frame, then follows them.

    Each click goes where what is still wrong with an object is widest; the first one into its middle. The
    frame is segmented anew from all clicks so far before the next one is placed.

    Args:
        segmenter: takes clicks.
        clicks: on each object; an object that is all right gets no more.

    Returns:
        A generator function; frames before the first labelled one are background.

    Raises:
        ValueError: no click, or a segmenter that takes none.
    """
    if clicks < 1 or "clicks" not in segmenter.prompt_kinds:
        raise ValueError(
            f"{type(segmenter).__name__} takes {', '.join(segmenter.prompt_kinds)} and {clicks} clicks were "
            "asked for; expected a segmenter that takes clicks, and at least 1"
        )

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        waiting = True
        for frame in video:
            ids = object_ids(frame.labels) if waiting and frame.labels is not None else ()
            if ids:
                waiting = False
                yield frame, _clicked(segmenter, frame, ids, clicks)
            elif waiting:
                yield frame, torch.zeros(frame.image.shape[-2:], dtype=torch.uint8)
            else:
                yield frame, segmenter.step(frame.image)
        if waiting:
            raise ValueError(f"no frame of {video.name} shows a labelled object; clicks need one")

    return label


def _clicked(segmenter: VideoSegmenter, frame: Frame, ids: tuple[int, ...], clicks: int) -> Tensor:
    """Labels (H, W) of the frame after so many clicks on each object."""
    assert frame.labels is not None
    truth = torch.stack([frame.labels == identity for identity in ids])  # (N, H, W)
    known = frame.labels != VOID
    points: list[list[Tensor]] = [[] for _ in ids]
    positive: list[list[Tensor]] = [[] for _ in ids]
    labels = torch.zeros_like(frame.labels)
    for _ in range(clicks):
        found = torch.stack([labels == identity for identity in ids]) & known
        places, kinds = click_at_error_centre(truth, found)
        for row, wrong in enumerate((truth ^ found).flatten(1).any(dim=1).tolist()):
            if wrong:
                points[row].append(places[row] + 0.5)
                positive[row].append(kinds[row])
        segmenter.reset()
        said = {
            identity: Clicks(torch.stack(points[row]), torch.stack(positive[row]))
            for row, identity in enumerate(ids)
        }
        labels = segmenter.step(frame.image, said).to(frame.labels.device)
    return labels
