"""Videos that the page sends: kept in one folder, and only files that hold their frames themselves."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from vosssl.data.files import path_inside

HEAD = 512  # bytes that are looked at
CONTAINERS = (  # how files begin: Matroska and WebM, Ogg, ASF, Flash, GIF, MPEG program and transport streams
    rb"\x1a\x45\xdf\xa3",
    rb"OggS",
    rb"\x30\x26\xb2\x75",
    rb"FLV\x01",
    rb"GIF8[79]a",
    rb"\x00\x00\x01[\xb3\xba]",
    rb"\x47.{187}\x47",
    rb"RIFF.{4}AVI ",
    rb".{4}(?:ftyp|moov|mdat|wide|free|skip)",  # MP4, MOV
)
_BEGIN = re.compile(rb"|".join(CONTAINERS), re.DOTALL)


def receive(name: str, body: Iterable[bytes], folder: Path) -> Path:
    """Keeps a video that was sent.

    A playlist (HLS, ffconcat, DASH, SDP) is refused: FFmpeg would read the files and addresses that it names.

    Args:
        name: of the file, as its sender calls it; folders and unusual letters in it count for nothing.
        body: its bytes, in parts.
        folder: gets it, under a name that is not there yet.

    Returns:
        Its path.

    Raises:
        ValueError: it does not begin as a video file does; nothing is kept.
    """
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).lstrip(".")
    path = path_inside(folder, plain or "video")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{threading.get_ident()}.partial{path.suffix}")
    try:
        with partial.open("wb") as file:
            for part in body:
                file.write(part)
        with partial.open("rb") as file:
            if not _BEGIN.match(file.read(HEAD)):
                raise ValueError(
                    f"{name} is no video file; expected MP4, MOV, MKV, WebM, AVI, MPEG, OGV, WMV, FLV or GIF"
                )
        number = 1
        while path.exists():
            number, path = number + 1, path.with_name(f"{Path(plain).stem}-{number}{path.suffix}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
