"""Images and label maps as they come from disk, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vosssl.data.io import (
    image_size,
    read_image,
    read_labels,
    write_image,
    write_labels,
)
from vosssl.data.palette import davis_palette


def smooth_image(height: int, width: int) -> torch.Tensor:
    """(3, H, W) uint8, a different ramp in each channel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows * 255 // height, columns * 255 // width, torch.full_like(rows, 30)]).to(
        torch.uint8
    )


def test_a_png_is_read_as_rgb_planes(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 2, 3)
    assert image.dtype == torch.uint8
    assert image[:, 0, 1].tolist() == [10, 20, 30]


def test_a_grey_image_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 77, np.uint8)).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), torch.full((3, 4, 5), 77, dtype=torch.uint8))


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_a_jpeg_is_decoded_at_reduced_size(tmp_path: Path, reduce: int) -> None:
    image = smooth_image(90, 130)
    write_image(tmp_path / "a.jpg", image)
    small = read_image(tmp_path / "a.jpg", reduce=reduce)  # type: ignore[arg-type]
    assert small.shape == (3, -(-90 // reduce), -(-130 // reduce))
    centre = image[:, 45, 65].float()
    assert (small[:, small.shape[1] // 2, small.shape[2] // 2].float() - centre).abs().max() < 3 * reduce


def test_size_and_pixels_follow_the_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "phone.jpg", exif=exif)
    assert image_size(tmp_path / "phone.jpg") == (40, 20)
    assert tuple(read_image(tmp_path / "phone.jpg").shape[1:]) == (40, 20)


def test_a_truncated_jpeg_is_refused_by_name(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_image(tmp_path / "00003.jpg", noise)
    whole = (tmp_path / "00003.jpg").read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) - 100):
        (tmp_path / "00003.jpg").write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"00003\.jpg .* truncated or damaged"):
            read_image(tmp_path / "00003.jpg")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", smooth_image(32, 32))
    before = read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"camera data" * 20)
    assert torch.equal(read_image(tmp_path / "a.jpg"), before)


def test_a_missing_file_and_a_text_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_labels(tmp_path / "nowhere" / "missing.png")
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"a\.png"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no readable image"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_labels_of_any_depth_give_their_indices(tmp_path: Path, bits: int) -> None:
    ids = np.arange(24, dtype=np.uint8).reshape(3, 8) % min(2**bits, 20)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([value for colour in range(2**bits) for value in (255 - colour, colour, 7)])
    image.save(tmp_path / "a.png", bits=bits)
    assert torch.equal(read_labels(tmp_path / "a.png"), torch.from_numpy(ids))


def test_binary_labels_become_one_object_only_when_asked(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 255], [255, 0]]
    assert read_labels(tmp_path / "a.png", binary=True).tolist() == [[0, 1], [1, 0]]


def test_labels_of_another_size_are_refused_or_stretched(tmp_path: Path) -> None:
    write_labels(tmp_path / "00005.png", torch.ones(4, 5, dtype=torch.uint8))
    with pytest.raises(
        ValueError, match=r"00005\.png are 5 wide and 4 high, their frame is 6 wide and 4 high"
    ):
        read_labels(tmp_path / "00005.png", size=(4, 6))
    stretched = read_labels(tmp_path / "00005.png", size=(4, 6), on_wrong_size="resize")
    assert torch.equal(stretched, torch.ones(4, 6, dtype=torch.uint8))


def test_coloured_and_too_large_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match="mode RGB, expected a palette or grey PNG"):
        read_labels(tmp_path / "rgb.png")
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="from 300 to 300, expected object ids"):
        read_labels(tmp_path / "deep.png")


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    labels = torch.randint(0, 256, (9, 13), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    write_labels(tmp_path / "new" / "a.png", labels)
    assert torch.equal(read_labels(tmp_path / "new" / "a.png"), labels)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == "P"
    with pytest.raises(ValueError, match="not one-hot"):
        write_labels(tmp_path / "b.png", labels[None])


def test_the_palette_is_that_of_davis() -> None:
    palette = davis_palette()
    known = {
        0: [0, 0, 0],
        1: [128, 0, 0],
        2: [0, 128, 0],
        9: [191, 0, 0],
        14: [64, 128, 128],
        21: [128, 64, 128],
    }
    assert {number: palette[number].tolist() for number in known} == known
    assert palette[22].tolist() == [22] * 3
    assert palette[255].tolist() == [255] * 3
