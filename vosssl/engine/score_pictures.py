"""What the score page shows of one sequence's pixels: frames, truth, predictions, errors and identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.predictions import open_predictions
from vosssl.data.video import Video, open_video
from vosssl.engine.drawing import evenly_spaced, id_colors
from vosssl.engine.file_scoring import open_truth
from vosssl.engine.html_page import css_color
from vosssl.engine.page_timeline import label_identity, object_colors, timeline_payload
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.sprite_sheets import fit, image_sheet, indexed_sheet, label_sheet
from vosssl.ops.assignment import optimal_assignment
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import Size, resize_labels

JPEG_QUALITY = 70  # a page shows many frames, below the labels that it is about
CORRECT, FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_OBJECT, NOT_COUNTED = range(1, 6)
# red and blue are told apart by all kinds of eyes; RGBA
ERROR_COLORS = (
    (0, 0, 0, 0),
    (70, 170, 90, 110),
    (226, 60, 36, 215),
    (36, 104, 246, 215),
    (255, 190, 20, 225),
    (235, 235, 225, 130),
)


class LabelSource(Protocol):
    """Label maps by sequence and frame, read when asked; `vosssl.data.predictions.Predictions` is one."""

    def frames(self, sequence: str) -> tuple[str, ...]:
        """Names of the frames that have labels, in order; raises for a sequence that is not there."""
        ...

    def labels(self, sequence: str, frame: str) -> Tensor:
        """(H, W) uint8 ids."""
        ...


FrameSource = Callable[[str], Video | None]  # sequence -> its frames, None where there are none


class Sources(NamedTuple):
    """Where pixels come from; any of them may be missing.

    Attributes:
        truth: of the objects.
        predictions: one per method.
        frames: the images.
    """

    truth: LabelSource | None
    predictions: Sequence[LabelSource | None]
    frames: FrameSource | None


def as_predictions(source: LabelSource | str | Path | None) -> LabelSource | None:
    """A folder of predictions opened; anything else as it is."""
    return open_predictions(source) if isinstance(source, (str, Path)) else source


def as_truth(source: LabelSource | str | Path | None) -> LabelSource | None:
    """Truth on disk opened as the evaluator opens it; anything else as it is."""
    return open_truth(source) if isinstance(source, (str, Path)) else source


def as_frames(source: FrameSource | str | Path | None) -> FrameSource | None:
    """A folder of frame folders (or a dataset root with `JPEGImages`) opened; anything else as it is."""
    if source is None or callable(source):
        return source
    root = Path(source)
    root = next((root / name for name in ("JPEGImages/480p", "JPEGImages") if (root / name).is_dir()), root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of frames {root}")
    return lambda name: open_video(root / name, annotations=None) if (root / name).is_dir() else None


def frames_of(source: LabelSource | None, sequence: str) -> tuple[str, ...]:
    """Frames of a sequence that a source has; none when it lacks the sequence."""
    try:
        return () if source is None else tuple(source.frames(sequence))
    except (KeyError, ValueError, FileNotFoundError):
        return ()


def sequence_pictures(
    sequence: str,
    frame_names: Sequence[str],
    sources: Sources,
    *,
    protocol: EvalProtocol | None,
    method_names: Sequence[str],
    display_side: int,
    max_frames: int,
) -> dict[str, Any] | None:
    """Sprite sheets and timelines of one sequence, at the size shown.

    Args:
        sequence: its name.
        frame_names: all of its frames.
        sources: where pixels come from.
        protocol: how labels are read; None: as they are.
        method_names: one per source of predictions.
        display_side: longer side of a picture, pixels.
        max_frames: pictures, evenly spaced over the frames that have any.

    Returns:
        What score_page.js expects under `pictures`; None when no source has the sequence.
    """
    known = [frames_of(source, sequence) for source in (sources.truth, *sources.predictions)]
    video = sources.frames(sequence) if sources.frames else None
    names = set().union(*known, video.frame_names if video else ())
    usable = [place for place, name in enumerate(frame_names) if name in names]
    if not usable:
        return None
    places = [usable[i] for i in evenly_spaced(len(usable), max_frames)]
    shown = [frame_names[place] for place in places]
    native = _native_size(sequence, shown, sources, video)
    size = fit(native, display_side)
    truth, labelled = _labels(sources.truth, sequence, shown, size)
    truth = _scored_truth(truth, protocol)
    picture_of = _nearest(places, len(frame_names))
    methods: list[dict[str, Any] | None] = []
    for source, name in zip(sources.predictions, method_names, strict=True):
        predicted, present = _labels(source, sequence, shown, size)
        if present.any():
            both = labelled & present
            method = _method(_scored_prediction(predicted, protocol), truth, both, protocol)
            methods.append({"name": name, **_over_all_frames(method, picture_of, frame_names)})
        else:
            methods.append(None)
    return {
        "pictureOf": picture_of,
        "names": shown,
        "size": {"height": size[0], "width": size[1]},
        "native": {"height": native[0], "width": native[1]},
        "frames": None if video is None else _image_sheet(video, shown, size),
        "truth": label_sheet(truth) if labelled.any() else None,
        "objectColors": object_colors(truth),
        "methods": methods,
    }


def error_map(predicted: Tensor, truth: Tensor) -> Tensor:
    """What each pixel is: an index into ERROR_COLORS.

    Args:
        predicted: (..., H, W) uint8 ids, numbered as the truth's.
        truth: (..., H, W) uint8 ids; 255 is not counted.

    Returns:
        (..., H, W) uint8: 0 where both are background, else CORRECT, FALSE_POSITIVE (on background),
        FALSE_NEGATIVE (background where an object is), WRONG_OBJECT or NOT_COUNTED.
    """
    errors = torch.where(predicted == truth, CORRECT, WRONG_OBJECT)
    errors = torch.where((truth == 0) & (predicted != 0), FALSE_POSITIVE, errors)
    errors = torch.where((truth != 0) & (predicted == 0), FALSE_NEGATIVE, errors)
    errors = torch.where((truth == 0) & (predicted == 0), 0, errors)
    return torch.where(truth == VOID, NOT_COUNTED, errors).to(torch.uint8)


def matched_to_truth(predicted: Tensor, truth: Tensor) -> tuple[Tensor, dict[int, int]]:
    """Proposals renamed to the objects that they overlap most, one to one over all frames.

    Args:
        predicted: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids.

    Returns:
        The labels with matched proposals under their object's id and the others above all of these, and
        proposal -> new id.
    """
    segments, objects = object_ids(predicted), object_ids(truth)
    counts = torch.bincount((predicted.long() * 256 + truth.long()).flatten(), minlength=1 << 16)
    table = counts.view(256, 256)
    shared = table[list(segments)][:, list(objects)]  # (Q, N)
    areas = table[list(segments)].sum(dim=1)[:, None] + table[:, list(objects)].sum(dim=0) - shared
    renamed: dict[int, int] = {}
    if segments and objects:
        rows, columns = optimal_assignment(shared / areas.clamp(min=1))
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        renamed = {segments[row]: objects[column] for row, column in pairs if shared[row, column] > 0}
    free = iter(identity for identity in range(max(objects, default=0) + 1, VOID))
    for segment in segments:
        if segment not in renamed:
            renamed[segment] = next(free, VOID - 1)
    lookup = torch.arange(256, dtype=torch.uint8)
    for segment, identity in renamed.items():
        lookup[segment] = identity
    return lookup[predicted.long()], renamed


def _method(predicted: Tensor, truth: Tensor, both: Tensor, protocol: EvalProtocol | None) -> dict[str, Any]:
    """One method's labels, errors and identities over the pictures shown."""
    names: dict[int, str] = {}
    judged = predicted
    if protocol is not None and protocol.task == "unsupervised":
        predicted, renamed = matched_to_truth(predicted, truth)
        names = {new: f"id {old}" for old, new in renamed.items()}
        unmatched = predicted > max(object_ids(truth), default=0)
        judged = torch.where(unmatched, 0, predicted)  # more proposals than objects cost nothing
    errors = torch.where(both[:, None, None], error_map(judged, truth), 0).to(torch.uint8)
    ids, identity = label_identity(predicted, truth if both.any() else None, labelled=both)
    colors = id_colors()
    return {
        "predicted": label_sheet(predicted),
        "errors": indexed_sheet(errors, torch.tensor(ERROR_COLORS, dtype=torch.uint8))
        if both.any()
        else None,
        "identity": identity,
        "names": [names.get(identity, f"id {identity}") for identity in ids],
        "colors": [css_color(colors[identity]) for identity in ids],
        "matched": bool(both.any()),
    }


def _over_all_frames(
    method: dict[str, Any], picture_of: list[int], frame_names: Sequence[str]
) -> dict[str, Any]:
    """The timeline stretched from the pictures to all frames, each of which repeats its picture's."""
    identity, names, colors = method["identity"], method["names"], method["colors"]
    first = {picture: frame for frame, picture in reversed(list(enumerate(picture_of)))}
    stretched = identity._replace(
        areas=identity.areas[picture_of],
        matched=identity.matched[picture_of],
        ious=identity.ious[picture_of],
        switches=[switch._replace(frame=first[switch.frame]) for switch in identity.switches],
    )
    timeline = timeline_payload(stretched, frames=frame_names, names=names, matched=method["matched"])
    return {
        "predicted": method["predicted"],
        "errors": method["errors"],
        "timeline": {**timeline, "names": names, "colors": colors},
    }


def _nearest(places: Sequence[int], length: int) -> list[int]:
    """For each of the frames the last picture at or before it (or the first one)."""
    picture, found = 0, []
    for frame in range(length):
        while picture + 1 < len(places) and places[picture + 1] <= frame:
            picture += 1
        found.append(picture)
    return found


def _native_size(sequence: str, shown: Sequence[str], sources: Sources, video: Video | None) -> Size:
    """(H, W) of the first source that says so; the truth is asked first, everything is scored at its size."""
    for source in (sources.truth, *sources.predictions):
        present = set(frames_of(source, sequence))
        first = next((name for name in shown if name in present), None)
        if source is not None and first is not None:
            height, width = source.labels(sequence, first).shape
            return height, width
    assert video is not None
    return video.size


def _labels(
    source: LabelSource | None, sequence: str, shown: Sequence[str], size: Size
) -> tuple[Tensor, Tensor]:
    """(T, H, W) uint8, background where a frame is missing, and (T,) bool which are there."""
    present = set(frames_of(source, sequence))
    labels = torch.zeros(len(shown), *size, dtype=torch.uint8)
    for place, name in enumerate(shown):
        if name in present:
            assert source is not None
            labels[place] = resize_labels(source.labels(sequence, name), size)
    return labels, torch.tensor([name in present for name in shown])


def _scored_truth(truth: Tensor, protocol: EvalProtocol | None) -> Tensor:
    """The truth as the protocol reads it."""
    if protocol is None:
        return truth
    if protocol.merge_truth:
        return truth.clamp(max=1)
    return truth if protocol.void else torch.where(truth == VOID, 0, truth)


def _scored_prediction(predicted: Tensor, protocol: EvalProtocol | None) -> Tensor:
    if protocol is not None and protocol.merge_predictions:
        return predicted.clamp(max=1)
    return torch.where(predicted == VOID, 0, predicted)  # nothing is ever predicted to be void


def _image_sheet(video: Video, shown: Sequence[str], size: Size) -> dict[str, Any]:
    """The frames of these names; black where the video has no such frame."""
    place_of = {name: place for place, name in enumerate(video.frame_names)}
    found = [(place, place_of[name]) for place, name in enumerate(shown) if name in place_of]
    frames = torch.zeros(len(shown), 3, *size, dtype=torch.uint8)
    if found:
        frames[[place for place, _ in found]] = video.clip([index for _, index in found], size=size).frames
    return image_sheet(frames, quality=JPEG_QUALITY)
