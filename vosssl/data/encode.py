"""Tensors to image files in memory, and text to pixels, for reports and contact sheets."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ImageFormat = Literal["jpeg", "png", "webp"]


def encode_image(image: Tensor, *, image_format: ImageFormat = "png", quality: int = 80) -> bytes:
    """Compresses one picture.

    Args:
        image: (3, H, W) RGB uint8 or (H, W) grey uint8.
        image_format: `png` keeps every value, `jpeg` and `webp` do not.
        quality: 1 to 100, of `jpeg` and `webp`.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: when the picture is neither RGB nor grey, or not uint8.
    """
    return _compress(_picture(image), image_format=image_format, quality=quality)


def encode_indexed(indices: Tensor, colors: Tensor) -> bytes:
    """Compresses a map of indices as a palette PNG, each index in its own colour and opacity.

    Args:
        indices: (H, W) uint8.
        colors: (N, 4) uint8 RGBA, N up to 256.

    Returns:
        The bytes of the PNG.

    Raises:
        ValueError: when the map is not (H, W) uint8 or the colours are not (N, 4) uint8.
    """
    if indices.ndim != 2 or indices.dtype != torch.uint8:
        raise ValueError(f"indices are {tuple(indices.shape)} {indices.dtype}, expected (H, W) uint8")
    if colors.ndim != 2 or colors.shape[1] != 4 or len(colors) > 256 or colors.dtype != torch.uint8:
        raise ValueError(
            f"colors are {tuple(colors.shape)} {colors.dtype}, expected up to 256 rows of RGBA in uint8"
        )
    picture = Image.fromarray(indices.cpu().numpy())
    picture.putpalette(colors[:, :3].cpu().numpy().tobytes())  # makes it a palette image, values untouched
    picture.info["transparency"] = colors[:, 3].cpu().numpy().tobytes()
    return _compress(picture, image_format="png", quality=100)


def rasterise_text(text: str, *, size: int = 11) -> Tensor:
    """Draws one line of text with the font that comes with Pillow.

    Args:
        text: characters outside the font become boxes; line breaks become spaces.
        size: height of the letters, pixels.

    Returns:
        (h, w) uint8 coverage, 0 where there is no ink.
    """
    line = " ".join(text.split()) or " "
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(line)
    height = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else size + 4
    canvas = Image.new("L", (max(1, int(right - left) + 1), height))
    ImageDraw.Draw(canvas).text((-left, 0), line, fill=255, font=font)
    return torch.from_numpy(np.array(canvas))


def _picture(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[0] == 3)):
        raise ValueError(
            f"image is {tuple(image.shape)} {image.dtype}, expected (3, H, W) RGB or (H, W) grey, uint8"
        )
    if image.ndim == 2:
        return Image.fromarray(image.cpu().numpy())
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())  # (3, H, W) -> (H, W, 3)


def _compress(picture: Image.Image, *, image_format: ImageFormat, quality: int) -> bytes:
    """Pillow's own call, in one place."""
    file = BytesIO()
    if image_format == "png":
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, image_format.upper(), quality=quality)
    return file.getvalue()
