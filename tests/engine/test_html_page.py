"""Pages: what is embedded stays data, and pictures on a sheet stay where the page looks for them."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from vosssl.engine import sprite_sheets
from vosssl.engine.html_page import css_color, embedded_json, number
from vosssl.engine.sprite_sheets import fit, indexed_sheet, label_sheet


def picture(sheet: dict) -> np.ndarray:
    return np.array(Image.open(BytesIO(base64.b64decode(sheet["url"].split(",")[1]))).convert("RGBA"))


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded_json({"</script><!--": "&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script><!--": "&\u2028"}


def test_numbers_and_colours_are_what_a_page_can_read() -> None:
    assert [number(value) for value in (0.123456, float("nan"), float("inf"))] == [0.1235, None, None]
    assert css_color(torch.tensor([255, 0, 16], dtype=torch.uint8)) == "#ff0010"
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


def test_a_size_fits_by_its_longer_side() -> None:
    assert fit((480, 854), 320) == (180, 320)
    assert fit((100, 50), 320) == (100, 50)


def test_frames_lie_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprite_sheets, "SHEET_WIDTH", 10)
    indices = torch.arange(3, dtype=torch.uint8)[:, None, None].expand(3, 2, 4)
    colors = torch.tensor([[10, 0, 0, 255], [20, 0, 0, 255], [30, 0, 0, 0]], dtype=torch.uint8)
    sheet = indexed_sheet(indices, colors)
    assert (sheet["columns"], sheet["height"], sheet["width"]) == (2, 2, 4)
    assert picture(sheet)[::2, ::4, 0].tolist() == [[10, 20], [30, 10]]  # the last place is filled up
    assert picture(sheet)[2, 0, 3] == 0


def test_background_is_see_through_and_contours_are_not() -> None:
    labels = torch.zeros(1, 7, 7, dtype=torch.uint8)
    labels[0, 1:6, 1:6] = 3
    alpha = picture(label_sheet(labels))[..., 3]
    assert (alpha[0, 0], alpha[1, 1], alpha[3, 3]) == (0, 255, sprite_sheets.REGION_OPACITY)
