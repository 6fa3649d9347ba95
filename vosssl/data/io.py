"""Images and label maps to tensors and back: beside video_io the only file that knows Pillow and OpenCV.

Frames are (3, H, W) uint8 RGB, label maps (H, W) uint8 ids, everywhere.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.files import atomic_write
from vosssl.data.label_fit import fit_labels
from vosssl.data.palette import davis_palette, ids_of_colours
from vosssl.data.png import unfiltered_indices

cv2.setNumThreads(0)  # its threads do not survive a fork: workers would wait for them for ever

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_SPREAD = {"L;2": 85, "L;4": 17}  # Pillow spreads grey values of few bits over 0..255
_ROTATED = (5, 6, 7, 8)  # EXIF orientations whose stored width is the height that is seen


def read_image(path: str | Path, *, reduce: Literal[1, 2, 4, 8] = 1) -> Tensor:
    """Reads a JPEG, PNG, WebP, BMP or TIFF file as RGB, the way it is meant to be seen (EXIF orientation).

    Args:
        path: the file.
        reduce: decode at 1 / reduce of the size; JPEGs do so while decoding, which is faster than decoding it
            all.

    Returns:
        (3, H, W) uint8 RGB; (3, ceil(H / reduce), ceil(W / reduce)) when reduced.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated or is no image; names it.
    """
    return rgb_planes(read_pixels(path, reduce=reduce))


def read_pixels(path: str | Path, *, reduce: Literal[1, 2, 4, 8] = 1) -> Tensor:
    """As `read_image`, in the layout of the decoder: (H, W, 3) uint8 in the order blue, green, red."""
    path = Path(path)
    encoded = np.frombuffer(_bytes_of(path), np.uint8)
    decoded = cv2.imdecode(encoded, _REDUCED[reduce]) if encoded.size else None  # (H, W, 3) BGR
    if decoded is None or not _complete(path, encoded):
        raise ValueError(
            f"image {path} ({encoded.size} bytes) is truncated or damaged: it cannot be decoded as "
            f"{path.suffix.lower().lstrip('.') or 'an image'}; get the file again, or remove the frame"
        )
    return torch.from_numpy(decoded)


def rgb_planes(pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 BGR of the decoder as (3, H, W) RGB; seven times as fast as torch's copy."""
    return torch.from_numpy(_planes(pixels.numpy()))


def decode_planes(encoded: bytes | memoryview, name: str) -> np.ndarray:
    """The values of an image in memory as they are stored, with 8 or 16 bits.

    Args:
        encoded: a whole PNG, or another image that OpenCV reads.
        name: what it is, for messages.

    Returns:
        (C, H, W) uint8 or uint16, C 1 or 3 (RGB).

    Raises:
        ValueError: truncated, damaged or no image; names it.
    """
    octets = np.frombuffer(encoded, np.uint8)
    decoded = cv2.imdecode(octets, cv2.IMREAD_UNCHANGED) if octets.size else None
    if decoded is None or (decoded.ndim == 3 and decoded.shape[2] not in (1, 3)):
        found = "is truncated or damaged" if decoded is None else f"has {decoded.shape[2]} channels"
        raise ValueError(f"{name} ({octets.size} bytes) {found}, expected an image of 1 or 3 channels")
    return decoded[None] if decoded.ndim == 2 else _planes(decoded)


def _planes(decoded: np.ndarray) -> np.ndarray:
    """(H, W, 3) BGR -> (3, H, W) RGB."""
    planes = np.empty((3, *decoded.shape[:2]), decoded.dtype)
    cv2.split(decoded, [planes[2], planes[1], planes[0]])
    return planes


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        near = path.parent
        where = (
            f"{near} exists, but holds no such file" if near.is_dir() else f"there is no folder {near} either"
        )
        raise FileNotFoundError(f"no file {path}: {where}")
    return path.read_bytes()


def _complete(path: Path, encoded: np.ndarray) -> bool:
    """Whether a JPEG goes on to its end; older OpenCV fills what is missing with grey and says nothing."""
    jpeg = bytes(encoded[:2]) == b"\xff\xd8"
    if not jpeg or bytes(encoded[-64:]).rstrip(b"\x00\r\n ").endswith(b"\xff\xd9"):
        return True
    try:  # no marker at the very end: some cameras append their own data, so decode it strictly once more
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as `read_image` returns it, from its header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image; names it.
    """
    path = Path(path)
    with _opened(path) as image:
        turned = image.format in ("JPEG", "TIFF", "WEBP") and image.getexif().get(0x0112) in _ROTATED
        width, height = image.size
    return (width, height) if turned else (height, width)


def _opened(path: str | Path, encoded: bytes | None = None) -> Image.Image:
    if encoded is None and not Path(path).is_file():
        _bytes_of(Path(path))
    try:
        return Image.open(path if encoded is None else BytesIO(encoded))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        length = len(encoded) if encoded is not None else Path(path).stat().st_size
        raise ValueError(
            f"{path} ({length} bytes) is no readable image file, or truncated: {error}; get it again"
        ) from error


def read_labels(
    path: str | Path,
    *,
    binary: bool = False,
    palette: Tensor | None = None,
    size: tuple[int, int] | None = None,
    on_wrong_size: Literal["error", "resize"] = "error",
) -> Tensor:
    """Reads a label map: a palette image's indices or a grey image's values (1 to 16 bits) are the ids.

    Args:
        path: a PNG (or any lossless format).
        binary: the values are 0 and 255 (DAVIS 2016): everything above 0 becomes object 1. Never guessed: in
            a label map of ids 255 means void.
        palette: (N, 3) colours of ids 0..N-1 by which an RGB image is read; None refuses it.
        size: (H, W) that the labels have to have, that of their frame.
        on_wrong_size: what to do with labels of another size; "resize" takes the nearest pixels.

    Returns:
        (H, W) uint8 ids: 0 background, 1..254 objects, 255 void.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, in unknown colours, with ids above 255, or of the wrong size; names it.
    """
    path = path if isinstance(path, Path) else Path(path)  # parsing it again would take as long as reading
    ids = decode_labels(_bytes_of(path), path, binary=binary, palette=palette)
    return ids if size is None else fit_labels(ids, size, where=path, on_wrong_size=on_wrong_size)


def decode_labels(
    encoded: bytes, path: str | Path, *, binary: bool = False, palette: Tensor | None = None
) -> Tensor:
    """(H, W) uint8 ids of the bytes of a label file; see `read_labels`. The path is for messages."""
    labels = unfiltered_indices(encoded)
    if labels is None:
        with _opened(path, encoded) as image:
            try:
                if palette is not None and not binary and image.mode in ("RGB", "RGBA"):
                    return _ids_by_colour(image, path, palette)
                labels = _ids_of(image, path, binary=binary)
            except (OSError, SyntaxError) as error:
                raise ValueError(
                    f"label file {path} is truncated or damaged: {error}; get it again"
                ) from error
        labels = np.array(labels > 0 if binary else labels, dtype=np.uint8)  # Pillow's memory is read-only
    ids = torch.from_numpy(labels)
    return ids.clamp_(max=1) if binary else ids


def read_colour_labels(path: str | Path, palette: Tensor) -> Tensor:
    """Reads a label map whose colours stand for ids, whatever the indices of its own palette are.

    Args:
        path: a PNG (or any lossless format).
        palette: (N, 3) colours of ids 0..N-1.

    Returns:
        (H, W) uint8 ids.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or a colour that is no id's; names it.
    """
    path = Path(path)
    with _opened(path) as image:
        try:
            return _ids_by_colour(image, path, palette)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"label file {path} is truncated or damaged: {error}; get it again") from error


def _ids_by_colour(image: Image.Image, path: str | Path, palette: Tensor) -> Tensor:
    pixels = torch.from_numpy(np.array(image.convert("RGBA")))  # (H, W, 4)
    ids = ids_of_colours(pixels, palette)
    unknown = (ids == VOID).nonzero()
    if len(unknown):
        row, column = unknown[0].tolist()
        raise ValueError(
            f"labels {path} have the colour {tuple(pixels[row, column, :3].tolist())} at row {row}, column "
            f"{column}, which is no object's ({len(unknown)} such pixels); pass the palette they were "
            "written with, or write ids"
        )
    return ids


def embedded_palette(path: str | Path) -> Tensor:
    """(N, 3) uint8 RGB, the palette inside a palette image: the colours of its ids.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no image, or one without a palette; names it.
    """
    path = Path(path)
    with _opened(path) as image:
        colours = image.getpalette()
    if colours is None:
        raise ValueError(f"{path} has no palette, expected a palette image such as a label map of DAVIS")
    return torch.tensor(colours, dtype=torch.uint8).reshape(-1, 3)


def _ids_of(image: Image.Image, path: str | Path, *, binary: bool) -> np.ndarray:
    """(H, W) ids of any integer type."""
    if image.mode in ("P", "L", "1"):
        tile = image.tile if isinstance(image, ImageFile) else []
        spread = _SPREAD.get(str(tile[0].args), 1) if tile else 1
        return np.asarray(image) // spread if spread > 1 else np.asarray(image)
    if image.mode.startswith("I"):  # 16- or 32-bit grey
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 255) and not binary:
            raise ValueError(
                f"labels {path} hold values from {values.min()} to {values.max()}, expected object ids "
                "0..255; number the objects of each video from 1"
            )
        return values
    colours = np.asarray(image)
    if binary and colours.ndim == 3:
        return colours[..., :3].max(-1)
    raise ValueError(
        f"labels {path} are an image of mode {image.mode}, expected a palette or grey PNG whose values are "
        "object ids; convert colours to ids, or pass binary=true (++data.val.binary=true) if all that is "
        "coloured is the one object"
    )


def write_labels(path: str | Path, labels: Tensor, *, palette: Tensor | None = None) -> None:
    """Writes a label map as an 8-bit palette PNG whose indices are the ids, atomically.

    Args:
        path: a file ending in .png; its folder is made.
        labels: (H, W) uint8 ids.
        palette: (256, 3) uint8 colours of the ids; None: those of DAVIS.

    Raises:
        ValueError: labels of another shape or type.
    """
    if labels.ndim != 2 or labels.dtype != torch.uint8:
        raise ValueError(
            f"labels for {path} are {tuple(labels.shape)} {labels.dtype}, expected (H, W) uint8 ids; pass "
            "ids, not one-hot"
        )
    with atomic_write(path, durable=False) as temporary:
        temporary.write_bytes(encode_labels(labels, palette=palette))


def encode_labels(labels: Tensor, *, palette: Tensor | None = None) -> bytes:
    """The bytes of an 8-bit palette PNG; see `write_labels`."""
    image = Image.fromarray(labels.cpu().numpy(), mode="P")
    image.putpalette((davis_palette() if palette is None else palette).flatten().tolist())
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_image(path: str | Path, image: Tensor) -> None:
    """Writes a picture, atomically; the suffix chooses the format.

    Args:
        path: a file ending in .png, .jpg, .webp, …; its folder is made.
        image: (3, H, W) RGB, uint8, or float in [0, 1].

    Raises:
        ValueError: an image of another shape.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image for {path} is {tuple(image.shape)}, expected (3, H, W) RGB")
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()  # (3, H, W) -> (H, W, 3)
    with atomic_write(path, durable=False) as temporary:
        Image.fromarray(pixels).save(temporary, quality=95)
