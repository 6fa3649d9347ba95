"""The colours of object ids in label files, and ids from colours."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor

from vosssl.clip import VOID


@cache
def davis_palette() -> Tensor:
    """The palette of DAVIS annotations: id -> colour.

    Returns:
        (256, 3) uint8 RGB: 22 distinct colours, then greys; void is white.

    Source: the palette inside DAVIS-2017 PNGs: PASCAL VOC's bit pattern with 191 for 192, greys from 22 on.
    """
    ids = torch.arange(256)
    channels = [
        (128 * (ids >> bit & 1) + 64 * (ids >> (bit + 3) & 1)).clamp(max=191) for bit in range(3)
    ]  # 3 x (256,)
    palette = torch.stack(channels, dim=1)  # (256, 3)
    palette[22:] = ids[22:, None]
    return palette.to(torch.uint8)


def ids_of_colours(pixels: Tensor, palette: Tensor) -> Tensor:
    """Object ids of a picture whose colours stand for them.

    Args:
        pixels: (H, W, 4) uint8, red, green, blue and anything.
        palette: (N, 3) colours of ids 0..N-1; a colour that occurs twice is that of the smaller id, a row
            with a negative number is no id's.

    Returns:
        (H, W) uint8 ids; 255 where a colour is in no row.
    """
    codes = pixels.contiguous().view(torch.int32).squeeze(-1) & 0xFFFFFF  # (H, W, 4) bytes -> (H, W)
    table = _ids_by_code(tuple(map(tuple, palette[:VOID].tolist())))
    return torch.from_numpy(table.numpy().take(codes.numpy()))  # six times faster than table[codes]


@lru_cache(maxsize=2)
def _ids_by_code(palette: tuple[tuple[int, int, int], ...]) -> Tensor:
    """(2**24,) uint8: the id of every colour, 255 for none; the code is red + 256 green + 65536 blue."""
    ids = torch.full((1 << 24,), VOID, dtype=torch.uint8)
    for identity in range(len(palette) - 1, -1, -1):
        if min(palette[identity]) >= 0:
            red, green, blue = palette[identity]
            ids[red | green << 8 | blue << 16] = identity
    return ids


def inferred_palette(image: Tensor, labels: Tensor) -> Tensor:
    """The colours of ids, learned from one picture whose ids are known, such as a first frame.

    Args:
        image: (3, H, W) uint8, the ids as colours.
        labels: (H, W) uint8 ids; void is left out.

    Returns:
        (N, 3) int16 colours of ids 0..N-1; -1 in the rows of ids that do not occur.

    Raises:
        ValueError: sizes differ, or one colour stands for several ids or one id has several colours.
    """
    if tuple(image.shape) != (3, *labels.shape):
        raise ValueError(
            f"picture of colours is {tuple(image.shape)}, labels are {tuple(labels.shape)}; "
            "expected (3, H, W) and (H, W)"
        )
    known = labels != VOID
    pairs = torch.unique(torch.cat([labels[None], image])[:, known], dim=1).T.tolist()  # (4, P) -> P rows
    colours = {identity: (red, green, blue) for identity, red, green, blue in pairs}
    if not len(pairs) == len(colours) == len(set(colours.values())):
        raise ValueError(
            f"{len(colours)} ids and {len({tuple(pair[1:]) for pair in pairs})} colours make {len(pairs)} "
            "pairs, expected one colour for each id; the picture has to show exactly these labels"
        )
    palette = torch.full((max(colours, default=-1) + 1, 3), -1, dtype=torch.int16)
    for identity, colour in colours.items():
        palette[identity] = torch.tensor(colour, dtype=torch.int16)
    return palette
