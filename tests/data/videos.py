"""Small videos and datasets on disk, written by the tests that read them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vosssl.data.io import write_image, write_labels
from vosssl.data.video_io import VideoWriter

SIZE = (24, 32)  # pixels (H, W)


def frame_of(number: int, *, size: tuple[int, int] = SIZE) -> Tensor:
    """(3, H, W) uint8: every pixel is the frame's number."""
    return torch.full((3, *size), number, dtype=torch.uint8)


def labels_of(number: int, *, size: tuple[int, int] = SIZE) -> Tensor:
    """(H, W) uint8: object 1 in the upper left quarter, object 2 in the row of the frame's number."""
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[: size[0] // 2, : size[1] // 2] = 1
    labels[number % size[0]] = 2
    return labels


def write_sequence(
    folder: Path,
    *,
    frames: int = 6,
    annotations: Path | None = None,
    labelled: range | None = None,
    first: int = 0,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Frames 00000.png … with the number first + n in every pixel, and their labels."""
    for number in range(frames):
        write_image(folder / f"{number:05d}.png", frame_of(first + number, size=size))
    for number in range(frames) if labelled is None else labelled:
        if annotations is not None:
            write_labels(annotations / f"{number:05d}.png", labels_of(number, size=size))
    return folder


def write_dataset(root: Path, names: dict[str, int], *, quality: str = "480p") -> Path:
    """A dataset in the layout of DAVIS: sequences by name and number of frames."""
    for place, (name, frames) in enumerate(names.items()):
        write_sequence(
            root / "JPEGImages" / quality / name,
            frames=frames,
            annotations=root / "Annotations" / quality / name,
            first=50 * place,
        )
    return root


def write_video(path: Path, *, frames: int = 12, size: tuple[int, int] = (48, 64)) -> Path:
    """A video file whose frame n shows n in binary: eight black or white columns."""
    bits = torch.arange(8).repeat_interleave(size[1] // 8)  # (W,), which bit a column shows
    with VideoWriter(path, fps=25) as writer:
        for number in range(frames):
            writer.write(((number >> bits & 1) * 255).to(torch.uint8).expand(3, *size))
    return path


def number_shown(frame: Tensor | None) -> int:
    """The number that a frame (3, H, W) of `write_video` shows."""
    assert frame is not None
    columns = frame.float().mean((0, 1)).unflatten(0, (8, -1))  # (3, H, W) -> (W,) -> (8, W / 8)
    margin = columns.shape[1] // 4
    bright = columns[:, margin:-margin].mean(1) > 128  # (8,)
    return int((bright.long() << torch.arange(8)).sum())
