"""The report of a run as one HTML file that needs nothing else: no server, no network, no other file.

Python computes what is shown and compresses pictures into sprite sheets; `inspect_page.js` beside this file
draws and moves them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import torch

from vosssl.clip import VOID
from vosssl.engine.drawing import as_bytes, evenly_spaced, id_colors, slot_labels
from vosssl.engine.html_page import css_color, number, write_html_page
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.engine.page_timeline import label_identity, object_colors, timeline_payload
from vosssl.engine.slot_identity import SlotIdentity, slot_identity
from vosssl.engine.sprite_sheets import fit, image_sheet, label_sheet, mask_sheet
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import Size, resize_image, resize_labels

__all__ = ["InspectedClip", "SummaryRow", "write_inspect_page"]

SummaryRow = tuple[str, Mapping[str, float]]  # who, and its values by the metric's name


def write_inspect_page(
    path: str | Path,
    clips: Iterable[InspectedClip],
    *,
    title: str,
    summary_rows: Sequence[SummaryRow] = (),
    alarms: Sequence[str] | None = (),
    config_text: str = "",
    display_side: int = 320,
    max_frames: int = 120,
) -> Path:
    """Writes the report of a run.

    Frames larger than `display_side` are shown smaller, and of longer clips only `max_frames` frames,
    evenly spaced; the page says so. Metrics are the caller's and are not recomputed; matches of slots with
    objects are made at the size shown. Clips are read one at a time, so a generator keeps memory small.

    Args:
        path: the HTML file, replaced at once when the page is complete. Its folder is made.
        clips: what to show, in any order; the page sorts. May be empty.
        title: headline and window title.
        summary_rows: the model first, then what it is compared with; values in [0, 1], higher is better.
        alarms: sentences about collapsed slots; none is said as well. None: the model has no slots.
        config_text: shown folded away at the end.
        display_side: longer side of a frame in the page, pixels.
        max_frames: frames per clip in the page.

    Returns:
        The path.

    Raises:
        ValueError: when display_side or max_frames is not positive.
    """
    if display_side < 1 or max_frames < 1:
        raise ValueError(
            f"display_side is {display_side} and max_frames is {max_frames}, expected positive numbers"
        )
    payload = [_clip_payload(clip, display_side=display_side, max_frames=max_frames) for clip in clips]
    parts = {
        "title": escape(title),
        "summary": _summary_html(summary_rows),
        "alarms": _alarms_html(alarms),
        "config": escape(config_text) or "No configuration was given.",
    }
    return write_html_page(path, "inspect_page", parts=parts, report={"clips": payload})


def _summary_html(rows: Sequence[SummaryRow]) -> str:
    """The table of the run; the best value of each column is marked."""
    if not rows:
        return "<p>No summary was given.</p>"
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    best = {
        name: max((values[name] for _, values in rows if _finite(values.get(name))), default=math.nan)
        for name in columns
    }
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = []
    for place, (who, values) in enumerate(rows):
        cells = "".join(_summary_cell(values.get(name), best=best[name]) for name in columns)
        kind = ' class="model"' if place == 0 else ""
        body.append(f'<tr{kind}><th scope="row">{escape(who)}</th>{cells}</tr>')
    return (
        '<div class="scroll" role="region" aria-label="Summary" tabindex="0"><table class="summary">'
        f'<thead><tr><th scope="col">model</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _summary_cell(value: float | None, *, best: float) -> str:
    if value is None or not math.isfinite(value):
        return "<td>-</td>"
    share = min(max(value, 0.0), 1.0) * 100
    kind = ' class="best"' if value == best else ""
    return f'<td{kind}><span class="bar" style="--share:{share:.1f}%">{value:.3f}</span></td>'


def _alarms_html(alarms: Sequence[str] | None) -> str:
    if alarms is None:
        return '<p class="calm">Slots alone are watched for collapse; this model has none.</p>'
    if not alarms:
        return '<p class="calm">No collapse alarm.</p>'
    items = "".join(f"<li>{escape(alarm)}</li>" for alarm in alarms)
    return f'<ul class="alarms" role="alert">{items}</ul>'


def _clip_payload(clip: InspectedClip, *, display_side: int, max_frames: int) -> dict[str, Any]:
    """All that the page knows about one clip."""
    indices = evenly_spaced(len(clip), max_frames)
    shown = _shown(clip, indices, display_side=display_side)
    identity = _identity(shown)
    colors = id_colors()
    return {
        "name": clip.name,
        "frameNumbers": indices,
        "note": _note(clip, shown),
        "frames": image_sheet(shown.frames),
        "predicted": label_sheet(shown.predicted),
        "truth": None if shown.truth is None else label_sheet(shown.truth),
        "labelled": None if shown.labelled is None else shown.labelled.tolist(),
        "masks": None if shown.masks is None else mask_sheet(shown.masks),
        "attention": None if shown.attention is None else mask_sheet(shown.attention),
        "features": None if shown.features is None else image_sheet(shown.features),
        "maskTitle": "Probability of each" if shown.slot_names else "Decoder mask of each slot",
        "slotColors": [css_color(colors[i]) for i in _track_ids(shown)],
        "slotNames": _track_names(shown),
        "objectColors": {} if shown.truth is None else object_colors(shown.truth),
        "frameMetrics": {k: [number(value) for value in v] for k, v in shown.frame_metrics.items()},
        "metrics": {name: number(value) for name, value in clip.metrics.items()},
        **timeline_payload(
            identity, frames=indices, names=_track_names(shown), matched=shown.truth is not None
        ),
    }


def _shown(clip: InspectedClip, indices: list[int], *, display_side: int) -> InspectedClip:
    """The clip as it is drawn: fewer frames, smaller frames, smaller masks."""
    size = fit((clip.frames.shape[-2], clip.frames.shape[-1]), display_side)
    # a frame at a time: a whole clip as float takes twelve times its bytes
    frames = [as_bytes(resize_image(clip.frames[i].float() / 255, size)) for i in indices]
    return replace(
        clip,
        frames=torch.stack(frames),
        predicted=resize_labels(clip.predicted[indices], size),
        truth=None if clip.truth is None else resize_labels(clip.truth[indices], size),
        masks=None if clip.masks is None else clip.masks[indices].float(),
        attention=None if clip.attention is None else clip.attention[indices].float(),
        features=None if clip.features is None else clip.features[indices],
        labelled=None if clip.labelled is None else clip.labelled[indices],
        frame_metrics={name: [values[i] for i in indices] for name, values in clip.frame_metrics.items()},
    )


def _note(clip: InspectedClip, shown: InspectedClip) -> str:
    """What was left out of the page, said in the page."""
    (height, width), (h, w) = clip.frames.shape[-2:], shown.frames.shape[-2:]
    size = f"{width} x {height} pixels" + (f", shown at {w} x {h}" if (h, w) != (height, width) else "")
    frames = f"{len(clip)} frame{'s' if len(clip) > 1 else ''}"
    if len(shown) < len(clip):
        frames += f" ({len(shown)} of them shown, evenly spaced)"
    return f"{frames} of {size}."


def _track_ids(clip: InspectedClip) -> list[int]:
    """What the rows of the timeline stand for: the slots' ids where there are slots, else the predicted."""
    return list(clip.slot_ids) if clip.masks is not None else list(object_ids(clip.predicted))


def _track_names(clip: InspectedClip) -> list[str]:
    if clip.masks is None:
        return [f"id {identity}" for identity in object_ids(clip.predicted)]
    return list(clip.slot_names) or [f"slot {k + 1}" for k in range(len(clip.slot_ids))]


def _identity(clip: InspectedClip) -> SlotIdentity:
    """Slots (or, without slots, predicted ids) against the truth."""
    if clip.masks is None:
        return label_identity(clip.predicted, clip.truth, labelled=clip.labelled)[1]
    if clip.slot_names:
        place = torch.full((VOID + 1,), -1)
        place[list(clip.slot_ids)] = torch.arange(len(clip.slot_ids))
        tracks = place[clip.predicted.long()]  # (T, H, W)
        return slot_identity(tracks, clip.truth, num_slots=len(clip.slot_ids), labelled=clip.labelled)
    size: Size = (clip.frames.shape[-2], clip.frames.shape[-1])
    tracks = torch.stack([slot_labels(mask, size) for mask in clip.masks]).long() - 1  # (T, H, W)
    return slot_identity(tracks, clip.truth, num_slots=clip.masks.shape[1], labelled=clip.labelled)
