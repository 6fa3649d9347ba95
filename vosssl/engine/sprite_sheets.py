"""Many small pictures compressed as one, for pages: frames, label maps in see-through colours, slot masks."""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.encode import encode_image, encode_indexed
from vosssl.engine.drawing import contours, id_colors
from vosssl.engine.html_page import number
from vosssl.ops.resize import Size, resize_image

SHEET_WIDTH = 4096  # pixels; wider textures are slow or refused on some machines
MASK_SIDE = 32  # pixels of a slot's picture, more would not be seen
MASK_LEVELS = 31  # grey steps of it: a third of the bytes of 255, and no visible difference
REGION_OPACITY, CONTOUR_OPACITY = 130, 255


def fit(size: Size, side: int) -> Size:
    """The size whose longer side is at most `side`, same aspect."""
    longer = max(size)
    if longer <= side:
        return size
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))


def image_sheet(frames: Tensor, *, quality: int = 82) -> dict[str, Any]:
    """Frames (T, 3, H, W) uint8 as one JPEG of a quality from 1 to 100, row by row."""
    sheet, columns = _sheet(frames)
    url = _data_url(encode_image(sheet, image_format="jpeg", quality=quality), "jpeg")
    return {"url": url, "columns": columns, "height": frames.shape[-2], "width": frames.shape[-1]}


def label_sheet(labels: Tensor) -> dict[str, Any]:
    """Labels (T, H, W) uint8 as see-through colours: regions half, contours full, background not at all.

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
    return indexed_sheet(indices, torch.cat(table))


def indexed_sheet(indices: Tensor, colors: Tensor) -> dict[str, Any]:
    """Indices (T, H, W) uint8 as one palette PNG; colors (N, 4) uint8 RGBA."""
    sheet, columns = _sheet(indices[:, None])  # (T, H, W) -> (1, rows * H, columns * W)
    url = _data_url(encode_indexed(sheet[0], colors), "png")
    return {"url": url, "columns": columns, "height": indices.shape[-2], "width": indices.shape[-1]}


def mask_sheet(masks: Tensor) -> dict[str, Any]:
    """Masks (T, K, h, w) as one grey picture, a column per frame and a row per slot; white is the maximum."""
    size = fit((masks.shape[-2], masks.shape[-1]), MASK_SIDE)
    masks = resize_image(masks, size).nan_to_num(0.0).clamp(min=0)
    peak = float(masks.max())
    steps = (masks / max(peak, 1e-12) * MASK_LEVELS).round()
    grey = (steps * (255 / MASK_LEVELS)).round().to(torch.uint8)
    slots, height, width = grey.shape[1:]
    rows = grey.permute(1, 2, 0, 3)  # (T, K, h, w) -> (K, h, T, w)
    sheet = rows.reshape(slots * height, len(grey) * width)
    url = _data_url(encode_image(sheet), "png")
    return {"url": url, "height": height, "width": width, "peak": number(peak)}


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
