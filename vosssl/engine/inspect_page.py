"""The report of a run as one HTML file that needs nothing else: no server, no network, no other file.

Python computes what is shown and compresses pictures into sprite sheets; `inspect_page.js` beside this file
draws and moves them. A content security policy forbids the page every request and every script but that one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.encode import encode_image, encode_indexed
from vosssl.engine.drawing import as_bytes, contours, evenly_spaced, id_colors, slot_labels
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.engine.slot_identity import SlotIdentity, Switch, slot_identity
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import Size, resize_image, resize_labels

__all__ = ["InspectedClip", "SummaryRow", "write_inspect_page"]

SummaryRow = tuple[str, Mapping[str, float]]  # who, and its values by the metric's name

SHEET_WIDTH = 4096  # pixels; wider textures are slow or refused on some machines
MASK_SIDE = 32  # pixels of a slot's picture, more would not be seen
MASK_LEVELS = 31  # grey steps of it: a third of the bytes of 255, and no visible difference
REGION_OPACITY, CONTOUR_OPACITY = 130, 255


def write_inspect_page(
    path: str | Path,
    clips: Iterable[InspectedClip],
    *,
    title: str,
    summary_rows: Sequence[SummaryRow] = (),
    alarms: Sequence[str] = (),
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
        alarms: sentences about collapsed slots; none is said as well.
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
    script = _asset("inspect_page.js")
    fingerprint = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": escape(title),
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'",
        "style": _asset("inspect_page.css"),
        "script": script,
        "summary": _summary_html(summary_rows),
        "alarms": _alarms_html(alarms),
        "config": escape(config_text) or "No configuration was given.",
        "report": _json({"clips": payload}),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("inspect_page.html"))
    return _write_at_once(Path(path), page)


def _asset(name: str) -> str:
    return resources.files("vosssl.engine").joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that is safe inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write_at_once(path: Path, page: str) -> Path:
    """Writes beside the target and renames, so that a reader never meets half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # errors: names of files may hold bytes that are no characters
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(page)
        os.chmod(partial, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def _number(value: float) -> float | None:
    """A value for JSON, which knows no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


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


def _alarms_html(alarms: Sequence[str]) -> str:
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
        "frames": _image_sheet(shown.frames),
        "predicted": _label_sheet(shown.predicted),
        "truth": None if shown.truth is None else _label_sheet(shown.truth),
        "labelled": None if shown.labelled is None else shown.labelled.tolist(),
        "masks": None if shown.masks is None else _mask_sheet(shown.masks),
        "attention": None if shown.attention is None else _mask_sheet(shown.attention),
        "slotColors": [_css_color(colors[i]) for i in _track_ids(shown)],
        "slotNames": _track_names(shown),
        "objectColors": {} if shown.truth is None else _object_colors(shown.truth),
        "areas": [[_number(value) for value in row] for row in identity.areas.T.tolist()],
        "matched": None if shown.truth is None else identity.matched.T.tolist(),
        "ious": [[_number(value) for value in row] for row in identity.ious.T.tolist()],
        "switches": [_switch_payload(switch, indices, _track_names(shown)) for switch in identity.switches],
        "frameMetrics": {k: [_number(value) for value in v] for k, v in shown.frame_metrics.items()},
        "metrics": {name: _number(value) for name, value in clip.metrics.items()},
    }


def _shown(clip: InspectedClip, indices: list[int], *, display_side: int) -> InspectedClip:
    """The clip as it is drawn: fewer frames, smaller frames, smaller masks."""
    size = _fit((clip.frames.shape[-2], clip.frames.shape[-1]), display_side)
    # a frame at a time: a whole clip as float takes twelve times its bytes
    frames = [as_bytes(resize_image(clip.frames[i].float() / 255, size)) for i in indices]
    return replace(
        clip,
        frames=torch.stack(frames),
        predicted=resize_labels(clip.predicted[indices], size),
        truth=None if clip.truth is None else resize_labels(clip.truth[indices], size),
        masks=None if clip.masks is None else clip.masks[indices].float(),
        attention=None if clip.attention is None else clip.attention[indices].float(),
        labelled=None if clip.labelled is None else clip.labelled[indices],
        frame_metrics={name: [values[i] for i in indices] for name, values in clip.frame_metrics.items()},
    )


def _fit(size: Size, side: int) -> Size:
    """The size whose longer side is at most `side`, same aspect."""
    longer = max(size)
    if longer <= side:
        return size
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))


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
    return [f"slot {k + 1}" for k in range(len(clip.slot_ids))]


def _identity(clip: InspectedClip) -> SlotIdentity:
    """Slots (or, without slots, predicted ids) against the truth."""
    size: Size = (clip.frames.shape[-2], clip.frames.shape[-1])
    if clip.masks is not None:
        tracks = torch.stack([slot_labels(mask, size) for mask in clip.masks]).long() - 1  # (T, H, W)
        count = clip.masks.shape[1]
    else:
        ids = object_ids(clip.predicted)
        count = len(ids)
        place = torch.full((VOID + 1,), -1)
        place[list(ids)] = torch.arange(count)
        tracks = place[clip.predicted.long()]
    return slot_identity(tracks, clip.truth, num_slots=count, labelled=clip.labelled)


def _switch_payload(switch: Switch, indices: list[int], names: list[str]) -> dict[str, Any]:
    past = []
    if switch.object_before is not None:
        past.append(f"it held object {switch.object_before} before")
    if switch.slot_before is not None:
        past.append(f"{names[switch.slot_before]} held it before")
    text = f"{names[switch.slot]} takes object {switch.object} ({'; '.join(past)})"
    return {"frame": switch.frame, "slot": switch.slot, "text": f"frame {indices[switch.frame]}: {text}"}


def _css_color(color: Tensor) -> str:
    red, green, blue = color.tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _object_colors(truth: Tensor) -> dict[int, str]:
    colors = id_colors()
    return {identity: _css_color(colors[identity]) for identity in (0, *object_ids(truth))}


def _data_url(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def _sheet(pictures: Tensor) -> tuple[Tensor, int]:
    """Pictures (T, C, H, W) as one, row by row: (C, rows * H, columns * W), and the number of columns."""
    length, channels, height, width = pictures.shape
    columns = min(length, max(1, SHEET_WIDTH // width))
    rows = math.ceil(length / columns)
    sheet = pictures.new_zeros(rows * columns, channels, height, width)
    sheet[:length] = pictures
    sheet = sheet.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)  # -> (C, rows, H, columns, W)
    return sheet.reshape(channels, rows * height, columns * width), columns


def _image_sheet(frames: Tensor) -> dict[str, Any]:
    sheet, columns = _sheet(frames)
    url = _data_url(encode_image(sheet, image_format="jpeg", quality=82), "jpeg")
    return {"url": url, "columns": columns, "height": frames.shape[-2], "width": frames.shape[-1]}


def _label_sheet(labels: Tensor) -> dict[str, Any]:
    """Labels (T, H, W) as see-through colours: regions half, contours full, background not at all.

    Index i of the palette is the i-th id that occurs, n + i its contour. Above 127 ids contours
    are left out: a palette has 256 entries.
    """
    ids = torch.unique(labels)
    place = torch.zeros(VOID + 1, dtype=torch.uint8)
    place[ids.long()] = torch.arange(len(ids), dtype=torch.uint8)
    indices = place[labels.long()]
    color = id_colors()[ids.long()]  # (n, 3)
    region = torch.where(ids == 0, 0, REGION_OPACITY).to(torch.uint8)
    contour = torch.where((ids == 0) | (ids == VOID), region.long(), CONTOUR_OPACITY).to(torch.uint8)
    table = [torch.cat([color, region[:, None]], dim=1)]
    if len(ids) <= 127:
        indices = torch.where(contours(labels), indices + len(ids), indices)
        table.append(torch.cat([color, contour[:, None]], dim=1))
    sheet, columns = _sheet(indices[:, None])  # (T, H, W) -> (1, rows * H, columns * W)
    url = _data_url(encode_indexed(sheet[0], torch.cat(table)), "png")
    return {"url": url, "columns": columns, "height": labels.shape[-2], "width": labels.shape[-1]}


def _mask_sheet(masks: Tensor) -> dict[str, Any]:
    """Masks (T, K, h, w) as one grey picture, a column per frame and a row per slot; white is the maximum."""
    masks = (
        resize_image(masks, _fit((masks.shape[-2], masks.shape[-1]), MASK_SIDE)).nan_to_num(0.0).clamp(min=0)
    )
    peak = float(masks.max())
    steps = (masks / max(peak, 1e-12) * MASK_LEVELS).round()
    grey = (steps * (255 / MASK_LEVELS)).round().to(torch.uint8)
    slots, height, width = grey.shape[1:]
    sheet = grey.permute(1, 2, 0, 3).reshape(
        slots * height, len(grey) * width
    )  # -> (K, h, T, w) -> (K h, T w)
    url = _data_url(encode_image(sheet), "png")
    return {"url": url, "height": height, "width": width, "peak": _number(peak)}
