"""Run lengths as COCO stores them: by hand, and there and back."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from vosssl.data.rle import decode_rle, encode_rle, pack_counts, parse_counts, run_lengths

HAND = torch.tensor([[0, 1, 1], [0, 1, 0]], dtype=torch.bool)  # columns 00, 11, 10


def test_runs_go_down_the_columns_and_begin_with_background() -> None:
    assert run_lengths(HAND).tolist() == [2, 3, 1]
    assert run_lengths(~HAND).tolist() == [0, 2, 3, 1]
    assert torch.equal(decode_rle([2, 3, 1], (2, 3)), HAND)
    assert torch.equal(decode_rle([0, 2, 3, 1], (2, 3)), ~HAND)


def test_small_numbers_are_one_character_and_differences_begin_with_the_fourth() -> None:
    # 2, 3, 1 are written as they are: 48 + n
    assert encode_rle(HAND) == "231"
    # 0, 2, 3, then 1 - 2 = -1: five bits 11111 without a follower, 48 + 31 = "O"
    assert encode_rle(~HAND) == "023O"
    assert parse_counts("023O").tolist() == [0, 2, 3, 1]


def test_numbers_from_sixteen_on_take_a_second_character() -> None:
    # 16 = 10000: the sign bit is taken, so 48 + 32 + 16 = "`", then "0"; 15 = 01111 is "?"
    assert pack_counts(np.array([15, 16])) == "?`0"
    # 854 * 480 = 409920 = 12 | 10000 | 01010 | 00000 in fives, lowest first 0, 10, 16, 12
    assert parse_counts(pack_counts(np.array([409920]))).tolist() == [409920]
    assert pack_counts(np.array([409920])) == "PZ`<"


@pytest.mark.parametrize("seed", range(20))
def test_any_mask_comes_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 70, (2,), generator=generator).tolist()
    mask = torch.rand(height, width, generator=generator) < seed / 19
    text = encode_rle(mask)
    assert torch.equal(decode_rle(text, (height, width)), mask)
    assert torch.equal(decode_rle(text.encode(), (height, width)), mask)
    assert torch.equal(decode_rle(run_lengths(mask).tolist(), (height, width)), mask)
    assert pack_counts(parse_counts(text)) == text


@pytest.mark.parametrize("seed", range(5))
def test_any_numbers_come_back(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 2 ** (6 * seed + 1), 200)
    assert parse_counts(pack_counts(counts)).tolist() == counts.tolist()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 6 pixels, expected 8 for"):
        decode_rle("231", (2, 4))
    with pytest.raises(ValueError, match="run lengths hold -1"):
        decode_rle([2, 5, -1], (2, 3))
    with pytest.raises(ValueError, match="damaged"):
        decode_rle("23 1", (2, 3))
    with pytest.raises(ValueError, match="end within a number"):
        decode_rle("23`", (2, 3))
    with pytest.raises(ValueError, match=r"above 2\*\*35"):
        decode_rle("o" * 9 + "0", (2, 3))
    with pytest.raises(ValueError, match="no list of whole numbers"):
        decode_rle([2, "three"], (2, 3))  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"\(2, 3, 1\), expected \(H, W\)"):
        encode_rle(HAND[..., None])


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
@pytest.mark.parametrize("seed", range(20))
def test_pycocotools_agrees(seed: int) -> None:
    from pycocotools import mask as coco

    generator = torch.Generator().manual_seed(seed)
    mask = (
        torch.nn.functional.interpolate(torch.rand(1, 1, 6, 9, generator=generator), (120, 214))[0, 0] > 0.6
    )
    theirs = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    assert theirs["counts"].decode() == encode_rle(mask)
    assert torch.equal(torch.from_numpy(coco.decode(theirs)).bool(), decode_rle(theirs["counts"], (120, 214)))
