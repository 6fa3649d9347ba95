"""Pictures of what a dataset gives: ids on their objects, flow as colours, rows of a contact sheet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosssl.data.encode import rasterise_text
from vosssl.engine.drawing import PAPER, as_bytes, evenly_spaced, overlay, tile
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import resize_image, resize_labels

ID_HEIGHT = 11  # pixels of an id's digits on a contact sheet


def flow_colors(flow: Tensor, peak: float) -> Tensor:
    """Flow as colours: the hue is the direction (red to the right), full colour the peak, white no motion.

    Args:
        flow: (..., 2, H, W) float, pixels (x, y); what is not finite is black.
        peak: length in pixels that gets full colour; longer vectors get it too.

    Returns:
        (..., 3, H, W) uint8 RGB.
    """
    known = flow.isfinite().all(dim=-3)
    x, y = flow.nan_to_num(0.0, posinf=0.0, neginf=0.0).unbind(dim=-3)
    strength = (torch.hypot(x, y) / max(peak, 1e-6)).clamp(max=1)  # (..., H, W)
    hue = torch.atan2(y, x) * (3 / math.pi)  # in sixths of the circle
    corners = torch.tensor([0.0, 2.0, 4.0], device=flow.device)  # where red, green and blue are full
    away = (hue.unsqueeze(-1) - corners).remainder(6)  # (..., H, W, 3)
    full = (2 - torch.minimum(away, 6 - away)).clamp(0, 1)
    color = 1 - strength.unsqueeze(-1) * (1 - full)
    return as_bytes(torch.where(known.unsqueeze(-1), color, 0.0)).movedim(-1, -3)


def flow_peak(flow: Tensor) -> float:
    """Length of the longest vector of flow (..., 2, H, W), pixels; 0 where none is finite."""
    lengths = flow.norm(dim=-3)
    lengths = lengths[lengths.isfinite()]
    return float(lengths.max()) if lengths.numel() else 0.0


def id_anchors(labels: Tensor) -> list[tuple[int, int, int]]:
    """Where to write the ids of a label map.

    Args:
        labels: (H, W) uint8 ids.

    Returns:
        (id, x, y) of every object: its pixel nearest to its centre of mass, on it whatever its shape.
    """
    anchors = []
    for identity in object_ids(labels):
        places = (labels == identity).nonzero()  # (P, 2) rows and columns
        nearest = (places - places.float().mean(dim=0)).square().sum(dim=1).argmin()
        y, x = places[nearest].tolist()
        anchors.append((identity, x, y))
    return anchors


def numbered_overlay(frame: Tensor, labels: Tensor) -> Tensor:
    """A frame tinted with its labels, outlined, each object's id on it.

    Args:
        frame: (3, H, W) uint8.
        labels: (H, W) uint8 ids.

    Returns:
        (3, H, W) uint8.
    """
    picture = overlay(frame, labels)
    for identity, x, y in id_anchors(labels):
        _write(picture, str(identity), x=x, y=y)
    return picture


def sample_grid(
    frames: Tensor,
    *,
    labels: Tensor | None = None,
    flow: Tensor | None = None,
    least: int = 4,
    columns: int = 8,
    width: int = 96,
) -> Tensor:
    """Rows of frames, of the same frames with their labels, and of flow, where there are any.

    Args:
        frames: (T, 3, H, W) uint8.
        labels: (T, H, W) uint8 ids; background where a frame is not labelled.
        flow: (T, 2, H, W) float pixels.
        least: pictures that the result is wide at least, so that there is room for a title.
        columns: frames shown at most, evenly spaced.
        width: of each picture, pixels.

    Returns:
        (3, H', W') uint8.
    """
    shown = evenly_spaced(len(frames), columns)
    size = (max(1, round(width * frames.shape[-2] / frames.shape[-1])), width)
    small = as_bytes(resize_image(frames[shown].float() / 255, size))
    blank = torch.tensor(PAPER, dtype=torch.uint8)[:, None, None].expand(3, *size)
    rows = [[*small, *[blank] * (least - len(shown))]]
    if labels is not None:
        tinted = zip(small, resize_labels(labels[shown], size), strict=True)
        rows.append([numbered_overlay(frame, ids) for frame, ids in tinted])
    if flow is not None:
        rows.append(list(resize_labels(flow_colors(flow[shown], flow_peak(flow)), size)))
    return tile(rows)


def _write(picture: Tensor, text: str, *, x: int, y: int) -> None:
    """Writes white digits with a dark rim into (3, H, W) uint8, centred at a pixel, inside the picture."""
    height, width = picture.shape[-2:]
    ink = torch.nn.functional.pad(rasterise_text(text, size=ID_HEIGHT).float() / 255, (1, 1, 0, 0))
    rim = torch.nn.functional.max_pool2d(ink[None], 3, stride=1, padding=1)[0]
    top = max(0, min(y - ink.shape[0] // 2, height - ink.shape[0]))
    left = max(0, min(x - ink.shape[1] // 2, width - ink.shape[1]))
    window = picture[:, top : top + ink.shape[0], left : left + ink.shape[1]]
    ink, rim = ink[: window.shape[1], : window.shape[2]], rim[: window.shape[1], : window.shape[2]]
    window.copy_((window.float() * (1 - rim) + 255 * ink).clamp(max=255).round().to(torch.uint8))
