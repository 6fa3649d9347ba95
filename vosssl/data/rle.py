"""Masks as run lengths, the way COCO, YouTube-VIS and BURST store them in JSON.

A mask is read column by column, top to bottom; its counts are the lengths of runs of equal pixels, the first
of them background (0 where the first pixel is set). Compressed, the counts are characters of five bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vosssl.ops.resize import Size

Counts = str | bytes | Sequence[int]
_FIRST, _LAST = 48, 111  # codes of the characters: 48 + six bits, the highest of which says that more follow
_LONGEST = 7  # characters of one number: 35 bits


def decode_rle(counts: Counts, size: Size) -> Tensor:
    """The mask of run lengths.

    Args:
        counts: compressed (a string) or the run lengths themselves.
        size: (H, W) of the mask.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: characters that are none of these, or runs that do not fill the mask.

    Source: the format of the COCO API (pycocotools, maskApi).
    """
    mask = decode_columns(counts, size).reshape(size[1], size[0])  # (W * H,) -> (W, H)
    return torch.from_numpy(np.ascontiguousarray(mask.T))


def decode_columns(counts: Counts, size: Size) -> np.ndarray:
    """The mask of run lengths as it is stored, column after column: (W * H,) bool; see `decode_rle`."""
    runs = parse_counts(counts) if isinstance(counts, (str, bytes)) else _listed(counts)
    if bool((runs < 0).any()):
        raise ValueError(f"run lengths hold {int(runs.min())}, expected none below 0; the text is damaged")
    total = int(runs.sum())
    if total != size[0] * size[1]:
        raise ValueError(
            f"run lengths add up to {total} pixels, expected {size[0] * size[1]} for a mask {size[1]} wide "
            f"and {size[0]} high; is it another video's mask, or cut off?"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def encode_rle(mask: Tensor) -> str:
    """Compressed run lengths of a mask.

    Args:
        mask: (H, W), set where not 0.

    Returns:
        The characters that pycocotools writes.

    Raises:
        ValueError: a mask of another shape, or without pixels.
    """
    return pack_counts(run_lengths(mask))


def run_lengths(mask: Tensor) -> np.ndarray:
    """Uncompressed run lengths of an (H, W) mask: (R,) int64, background first; see `encode_rle`."""
    if mask.ndim != 2 or mask.numel() == 0:
        raise ValueError(f"mask is {tuple(mask.shape)}, expected (H, W) with H, W above 0")
    pixels = (mask != 0).T.contiguous().flatten().cpu().numpy()  # (H, W) -> (W * H,)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = [0, 0] if pixels[0] else [0]
    return np.diff(np.concatenate([start, changes, [pixels.size]])).astype(np.int64)


def parse_counts(text: str | bytes) -> np.ndarray:
    """Run lengths, (R,) int64, from their characters.

    A number is written five bits a character, the lowest first, the last one with its sign; from the fourth
    on it is the difference to the number two before.

    Raises:
        ValueError: a character that is none of these, or a number that is cut off or too long.
    """
    encoded = text.encode("ascii", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(encoded, np.uint8).astype(np.int64) - _FIRST
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > _LAST - _FIRST or codes[-1] & 0x20:
        raise ValueError(
            f"compressed run lengths {encoded[:20]!r}… are damaged: they hold characters outside "
            f"{chr(_FIRST)}..{chr(_LAST)}, or end within a number"
        )
    ends = np.flatnonzero(codes & 0x20 == 0)  # the last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError(f"compressed run lengths {encoded[:20]!r}… hold a number above 2**35")
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * places), starts)
    numbers -= (codes[ends] >> 4 & 1) << (5 * lengths)  # the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def pack_counts(counts: np.ndarray) -> str:
    """The characters of run lengths, (R,) integers; the opposite of `parse_counts`."""
    numbers = np.array(counts, dtype=np.int64)
    numbers[3:] -= np.asarray(counts, dtype=np.int64)[1:-2]
    shifts = 5 * np.arange(_LONGEST + 1)
    rest = numbers[:, None] >> shifts  # (R,) -> (R, places), with sign
    fives = rest & 0x1F
    after = rest >> 5
    more = np.where(fives & 0x10 != 0, after != -1, after != 0)  # (R, places)
    written = np.concatenate(
        [np.ones((len(numbers), 1), bool), np.logical_and.accumulate(more, 1)[:, :-1]], 1
    )
    characters = (fives + 0x20 * more + _FIRST)[written]
    return characters.astype(np.uint8).tobytes().decode("ascii")


def _listed(counts: Sequence[int]) -> np.ndarray:
    try:
        return np.asarray(counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"run lengths are no list of whole numbers: {error}") from error
