"""What the window of `click_session` shows: the frame with its objects, a timeline, a line of facts, help."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.data.encode import rasterise_text
from vosssl.engine.drawing import contours, id_colors, overlay
from vosssl.ops.resize import Size, resize_image, resize_labels
from vosssl.propagation.mask_drafts import Draft

BAR = (24, 26, 30)  # behind text
LIGHT, DIM = (240, 240, 240), (150, 154, 160)
GREEN, RED, AMBER = (60, 200, 90), (240, 80, 70), (250, 190, 60)
TEXT = 16  # pixels, height of letters
LINE = 26  # from one line to the next
TIMELINE = 14  # height
MARGIN = 12

HELP = (
    ("left click", "on the object"),
    ("right click", "not on the object"),
    ("drag", "a box around the object"),
    ("Enter", "accept the mask"),
    ("Space", "accept, then track or pause"),
    ("b", "track backwards from here"),
    ("t", "track from here once more"),
    ("Left  Right", "one frame back, forward (also , .)"),
    ("Home  End", "first frame, last one with masks"),
    ("n", "accept, then a new object"),
    ("Tab  1 to 9", "choose an object to correct"),
    ("a", "the object is absent in this frame"),
    ("r", "remove the object"),
    ("u", "undo"),
    ("Esc", "discard the clicks"),
    ("e", "export"),
    ("h", "this help"),
    ("q", "quit"),
)


class Fact(NamedTuple):
    """A piece of the line of facts.

    Attributes:
        text: to write.
        color: RGB of the text.
        swatch: RGB of a square in front of it; None: no square.
    """

    text: str
    color: tuple[int, int, int] = LIGHT
    swatch: tuple[int, int, int] | None = None


def view_size(frame: Size, largest: Size) -> Size:
    """(H, W) at which frames are shown: as they are, smaller to fit, or a multiple that fits."""
    scale = min(largest[0] / frame[0], largest[1] / frame[1])
    scale = int(scale) if scale >= 1 else scale
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


def frame_picture(image: Tensor, labels: Tensor | None, draft: Draft | None, size: Size) -> Tensor:
    """(3, H, W) uint8 RGB: a frame with its objects tinted, and the draft instead of its object.

    Args:
        image: (3, h, w) uint8.
        labels: (h, w) uint8 ids, or None.
        draft: a mask that is not accepted, with its clicks and box; or None.
        size: (H, W) of the picture.
    """
    picture = resize_image(image, size)
    shown = torch.zeros(image.shape[-2:], dtype=torch.uint8) if labels is None else labels.clone()
    if draft is not None:
        shown[shown == draft.identity] = 0
        shown[draft.mask] = draft.identity
    shown = resize_labels(shown, size)
    picture = overlay(picture, shown, alpha=0.45)
    if draft is not None:
        own = (shown == draft.identity).byte()
        dashed = (torch.arange(size[0])[:, None] + torch.arange(size[1])) // 4 % 2 == 0
        picture[:, contours(own).bool() & dashed] = 255  # not accepted yet
        scale = (size[1] / image.shape[-1], size[0] / image.shape[-2])
        if draft.box is not None:
            box = draft.box
            corners = (box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1])
            rectangle(picture, corners, AMBER)
        for x, y, positive in draft.points:
            dot(picture, x * scale[0], y * scale[1], GREEN if positive else RED)
    return picture


def dot(picture: Tensor, x: float, y: float, color: tuple[int, int, int]) -> None:
    """Draws a click: a filled circle in a white ring."""
    top, left = max(int(y) - 9, 0), max(int(x) - 9, 0)
    part = picture[:, top : int(y) + 10, left : int(x) + 10]
    rows = torch.arange(top, top + part.shape[1])[:, None] + 0.5 - y
    columns = torch.arange(left, left + part.shape[2]) + 0.5 - x
    distance = (rows**2 + columns**2).sqrt()
    for radius, paint in ((8, (20, 20, 20)), (7, (255, 255, 255)), (5, color)):
        part[:, distance <= radius] = torch.tensor(paint, dtype=torch.uint8)[:, None]


def rectangle(picture: Tensor, corners: Sequence[float], color: tuple[int, int, int]) -> None:
    """Draws the outline of left, top, right, bottom, two pixels wide."""
    height, width = picture.shape[1:]
    left, right = sorted(min(max(round(corners[k]), 0), width - 1) for k in (0, 2))
    top, bottom = sorted(min(max(round(corners[k]), 0), height - 1) for k in (1, 3))
    paint = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    for rows, columns in (
        (slice(top, top + 2), slice(left, right + 1)),
        (slice(max(bottom - 1, 0), bottom + 1), slice(left, right + 1)),
        (slice(top, bottom + 1), slice(left, left + 2)),
        (slice(top, bottom + 1), slice(max(right - 1, 0), right + 1)),
    ):
        picture[:, rows, columns] = paint


def timeline(width: int, length: int, *, known: Sequence[int], said: Sequence[int], now: int) -> Tensor:
    """(3, TIMELINE, width) uint8: grey where there are labels, ticks where a person spoke, a bar for now."""
    strip = torch.tensor(BAR, dtype=torch.uint8)[:, None, None].repeat(1, TIMELINE, width)
    places = torch.arange(width) * max(length, 1) // width  # the frame under each column
    flags = torch.zeros(max(length, 1), dtype=torch.bool)
    flags[list(known)] = True
    strip[:, 3:-3] = torch.where(flags[places], 110, 52).to(torch.uint8)
    for frame in said:
        left, right = _columns(frame, length, width, least=3)
        strip[:, 2:-2, left:right] = torch.tensor(AMBER, dtype=torch.uint8)[:, None, None]
    left, right = _columns(now, length, width, least=4)
    strip[:, :, left:right] = 255
    return strip


def frame_at(x: float, length: int, width: int) -> int:
    """The frame under a place on the timeline."""
    return min(max(int(x * max(length, 1) / width), 0), max(length - 1, 0))


def _columns(frame: int, length: int, width: int, *, least: int) -> tuple[int, int]:
    left = min(frame * width // max(length, 1), width - least)
    return left, max(left + least, min((frame + 1) * width // max(length, 1), width))


def facts_bar(facts: Sequence[Fact], message: Fact, width: int) -> Tensor:
    """(3, h, width) uint8: a line of facts side by side, and a message below."""
    bar = torch.tensor(BAR, dtype=torch.uint8)[:, None, None].repeat(1, 2 * LINE + 6, width)
    x = MARGIN
    for fact in facts:
        if fact.swatch is not None:
            bar[:, 8:22, x : x + 14] = torch.tensor(fact.swatch, dtype=torch.uint8)[:, None, None]
            x += 20
        x += write(bar, fact.text, x, 5, fact.color) + 22
    write(bar, message.text, MARGIN, LINE + 5, message.color)
    return bar


def help_panel(picture: Tensor) -> Tensor:
    """The picture, darker, with the keys on it; letters shrink where the picture is small."""
    size = max(9, min(TEXT + 2, (picture.shape[1] - 40) // (len(HELP) + 2) * 2 // 3))
    line = round(size * 1.55)
    dark = (picture.float() * 0.18).byte()
    left = max(6, picture.shape[2] // 2 - 14 * size)
    top = max(4, (picture.shape[1] - line * (len(HELP) + 1)) // 2)
    write(dark, "Click and track", left, top, AMBER, size=size)
    for row, (key, meaning) in enumerate(HELP, start=1):
        write(dark, key, left, top + row * line, LIGHT, size=size)
        write(dark, meaning, left + 9 * size, top + row * line, (205, 208, 212), size=size)
    return dark


def write(
    picture: Tensor, text: str, x: int, y: int, color: tuple[int, int, int], *, size: int = TEXT
) -> int:
    """Draws one line of text, cut at the picture's edges; returns its width in pixels."""
    ink = _ink(text, size)
    part = picture[:, max(y, 0) : y + ink.shape[0], x : x + ink.shape[1]]
    seen = ink[: part.shape[1], : part.shape[2]]
    paint = torch.tensor(color, dtype=torch.float32)[:, None, None]
    part.copy_((part.float() + (paint - part.float()) * seen).round().byte())
    return ink.shape[1]


@lru_cache(maxsize=256)
def _ink(text: str, size: int) -> Tensor:
    return rasterise_text(text, size=size).float() / 255


def color_of(identity: int) -> tuple[int, int, int]:
    """RGB of an object."""
    red, green, blue = id_colors()[identity].tolist()
    return red, green, blue
