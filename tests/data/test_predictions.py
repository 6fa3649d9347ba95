"""Predictions as other programs write them: every kind of folder, and what is wrong with some."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vosssl.data.io import write_image, write_labels
from vosssl.data.palette import davis_palette, ids_of_colours, inferred_palette
from vosssl.data.prediction_folders import LabelFolders
from vosssl.data.predictions import open_predictions

SIZE = (6, 9)


def labels_with(*ids: int, size: tuple[int, int] = SIZE) -> Tensor:
    """(H, W) uint8, a row for each id, the last row background."""
    labels = torch.zeros(size, dtype=torch.uint8)
    for row, identity in enumerate(ids):
        labels[row] = identity
    return labels


def write_folder(root: Path, names: dict[str, list[str]], *ids: int) -> Path:
    for sequence, frames in names.items():
        for frame in frames:
            write_labels(root / sequence / f"{frame}.png", labels_with(*(ids or (1, 2))))
    return root


def test_frames_are_found_by_name_and_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    predictions = open_predictions(write_folder(tmp_path, {"dog": ["10", "2", "1"], "cat": ["00000"]}))
    assert predictions.sequences == ("cat", "dog")
    assert predictions.frames("dog") == ("1", "2", "10")
    assert torch.equal(predictions.labels("dog", "2", size=SIZE), labels_with(1, 2))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_indices_of_any_depth_are_ids(tmp_path: Path, mode: str, bits: int) -> None:
    labels = labels_with(1, *([2, 3] if bits > 1 else []))
    (tmp_path / "dog").mkdir()
    if mode == "P":
        image = Image.fromarray(labels.numpy(), mode="P")
        image.putpalette(davis_palette()[: 2**bits].flatten().tolist())
        image.save(tmp_path / "dog" / "0.png", bits=bits)
    else:
        write_grey(tmp_path / "dog" / "0.png", labels, bits=bits)
    assert torch.equal(open_predictions(tmp_path).labels("dog", "0"), labels)


def write_grey(path: Path, labels: Tensor, *, bits: int) -> None:
    """A grey PNG of 1, 2, 4 or 8 bits, whose values are the ids; Pillow writes 8 only."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width = labels.shape
    places = torch.arange(bits - 1, -1, -1)
    rows = (labels[:, :, None] >> places & 1).flatten(1).numpy().astype(np.uint8)  # (H, W * bits)
    packed = np.packbits(rows, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_sixteen_bit_ids_are_read_and_those_above_254_refused(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    Image.fromarray(labels_with(7).numpy().astype(np.uint16)).save(tmp_path / "dog" / "0.png")
    Image.fromarray(labels_with(7).numpy().astype(np.uint16) * 100).save(tmp_path / "dog" / "1.png")
    predictions = open_predictions(tmp_path)
    assert torch.equal(predictions.labels("dog", "0"), labels_with(7))
    with pytest.raises(ValueError, match=r"1\.png hold values from 0 to 700"):
        predictions.labels("dog", "1")


def test_binary_masks_are_read_as_one_object_only_when_told(tmp_path: Path) -> None:
    write_folder(tmp_path, {"dog": ["0"]}, 255)
    assert torch.equal(open_predictions(tmp_path, kind="binary").labels("dog", "0"), labels_with(1))
    with pytest.raises(ValueError, match=r"0\.png holds the value 255.*kind='binary'.*swapped"):
        open_predictions(tmp_path).labels("dog", "0")


def test_colours_of_davis_are_ids(tmp_path: Path) -> None:
    labels = labels_with(1, 2, 7, 21)
    write_image(tmp_path / "dog" / "0.png", davis_palette()[labels.long()].permute(2, 0, 1))
    assert torch.equal(open_predictions(tmp_path).labels("dog", "0"), labels)
    assert torch.equal(open_predictions(tmp_path, kind="colours").labels("dog", "0"), labels)


def test_colours_of_the_truth_are_ids_whatever_the_indices(tmp_path: Path) -> None:
    colours = torch.tensor([[0, 0, 0], [236, 95, 103], [249, 145, 87]], dtype=torch.uint8)
    write_labels(tmp_path / "truth" / "dog" / "0.png", labels_with(1, 2), palette=padded(colours))
    write_labels(tmp_path / "pred" / "dog" / "0.png", labels_with(2, 1), palette=padded(colours[[0, 2, 1]]))
    predictions = open_predictions(tmp_path / "pred", kind="colours", palette=tmp_path / "truth")
    assert torch.equal(predictions.labels("dog", "0"), labels_with(1, 2))


def padded(colours: Tensor) -> Tensor:
    return torch.cat([colours, torch.full((256 - len(colours), 3), 9, dtype=torch.uint8)])


def test_an_unknown_colour_is_named(tmp_path: Path) -> None:
    image = davis_palette()[labels_with(1).long()].permute(2, 0, 1).clone()
    image[:, 3, 4] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    write_image(tmp_path / "dog" / "0.png", image)
    with pytest.raises(ValueError, match=r"0\.png have the colour \(1, 2, 3\) at row 3, column 4"):
        open_predictions(tmp_path).labels("dog", "0")


def test_colours_are_learned_from_a_first_frame() -> None:
    labels = labels_with(1, 4)
    image = torch.stack([labels * 20, labels * 3, labels + 9])
    palette = inferred_palette(image, labels)
    assert palette[4].tolist() == [80, 12, 13]
    assert palette[2].tolist() == [-1, -1, -1]
    pixels = torch.cat([image, image[:1]]).permute(1, 2, 0)
    assert torch.equal(ids_of_colours(pixels, palette), labels)
    image[0, 0, 0] = 77
    with pytest.raises(ValueError, match="one colour for each id"):
        inferred_palette(image, labels)


def write_objects(root: Path, masks: dict[str, dict[str, Tensor]], sequence: str = "sav_1") -> Path:
    for number, frames in masks.items():
        for frame, mask in frames.items():
            write_labels(root / sequence / number / f"{frame}.png", mask.to(torch.uint8) * 255)
    return root


def test_one_binary_image_per_object_keeps_overlaps_as_masks(tmp_path: Path) -> None:
    low, high = labels_with(1, 1), labels_with(0, 1, 1)
    write_objects(tmp_path, {"000": {"00000": low, "00004": low}, "001": {"00000": high}})
    predictions = open_predictions(tmp_path)
    assert predictions.frames("sav_1") == ("00000", "00004")
    assert torch.equal(predictions.labels("sav_1", "00000"), labels_with(1, 2, 2))
    ids, masks = predictions.masks("sav_1", "00000")
    assert ids == (1, 2)
    assert torch.equal(masks, torch.stack([low, high]).bool())
    assert torch.equal(predictions.labels("sav_1", "00004"), low)


def test_object_folders_without_a_zero_keep_their_numbers(tmp_path: Path) -> None:
    write_objects(tmp_path, {"1": {"0": labels_with(1)}, "3": {"0": labels_with(0, 1)}})
    assert open_predictions(tmp_path).masks("sav_1", "0").ids == (1, 3)
    assert open_predictions(tmp_path, first_object=0).masks("sav_1", "0").ids == (2, 4)


def test_another_size_is_an_error_unless_stretched(tmp_path: Path) -> None:
    predictions = open_predictions(write_folder(tmp_path, {"dog": ["0"]}))
    with pytest.raises(ValueError, match=r"0\.png is 9 wide and 6 high, its truth is 18 wide and 12 high"):
        predictions.labels("dog", "0", size=(12, 18))
    doubled = labels_with(1, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(predictions.labels("dog", "0", size=(12, 18), resize=True), doubled)
    assert torch.equal(predictions.masks("dog", "0", size=(12, 18), resize=True).masks[1], doubled == 2)


def test_missing_and_further_frames_are_named(tmp_path: Path) -> None:
    predictions = open_predictions(write_folder(tmp_path, {"dog": ["00001", "00002"]}))
    predictions.require_frames("dog", ["00001"])
    with pytest.raises(ValueError, match="1 frames that are not in the truth: 00002"):
        predictions.require_frames("dog", ["00001"], extra="error")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 frames of dog .* 00003"):
        predictions.require_frames("dog", ["00001", "00003"])
    with pytest.raises(FileNotFoundError, match=r"frame 2 of dog .* there is 00002: .* exact names"):
        predictions.labels("dog", "2")
    with pytest.raises(FileNotFoundError, match=r"no sequence dogs .* did you mean dog"):
        predictions.frames("dogs")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"dog": ["0"]})
    file = tmp_path / "dog" / "0.png"
    noise = torch.randint(0, 200, (64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_labels(file, noise)
    whole = file.read_bytes()
    for keep in (0, 20, 500, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"0\.png"):
            open_predictions(tmp_path).labels("dog", "0")


def test_two_files_for_one_frame_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"dog": ["0", "1"]})
    Image.fromarray(labels_with(1).numpy()).save(tmp_path / "dog" / "1.bmp")
    with pytest.raises(ValueError, match=r"two files for one frame in .*dog: 1\.bmp and 1\.png"):
        open_predictions(tmp_path).frames("dog")


@pytest.mark.parametrize("names", [("dog", "Dog"), ("a/dog", "b/dog")])
def test_two_sequences_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    write_folder(tmp_path, {name: ["0"] for name in names})
    with pytest.raises(ValueError, match="two sequences of the same name"):
        open_predictions(tmp_path)


def test_sequences_are_found_below_other_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "Annotations", {"LaSOT/v1": ["0"], "AVA/v2": ["0"]})
    predictions = open_predictions(tmp_path)
    assert predictions.sequences == ("v2", "v1")
    assert predictions.labels("v1", "0").max() == 2


def test_what_holds_no_predictions_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder of label PNGs per sequence, but it is empty"):
        open_predictions(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no predictions .*nowhere"):
        open_predictions(tmp_path / "nowhere")
    write_image(tmp_path / "dog" / "0.jpg", torch.zeros(3, *SIZE, dtype=torch.uint8))
    with pytest.raises(ValueError, match="compression changes ids, write PNGs"):
        open_predictions(tmp_path)
    write_folder(tmp_path, {"dog": ["0"]})
    with pytest.raises(ValueError, match=r"its images are one sequence: pass"):
        open_predictions(tmp_path / "dog")
    with pytest.raises(ValueError, match="kind of predictions 'png', expected one of auto"):
        open_predictions(tmp_path, kind="png")  # type: ignore[arg-type]


def test_predictions_travel_to_other_processes_without_their_listings(tmp_path: Path) -> None:
    write_folder(tmp_path, {"dog": [f"{number:05d}" for number in range(50)]})
    predictions = open_predictions(tmp_path)
    small = len(pickle.dumps(predictions))
    predictions.frames("dog")
    assert len(pickle.dumps(predictions)) == small < 4000
    assert pickle.loads(pickle.dumps(predictions)).frames("dog") == predictions.frames("dog")


def test_the_files_and_frames_of_each_object_are_listed(tmp_path: Path) -> None:
    mask = torch.ones(4, 4, dtype=torch.uint8)
    for name in ("000/00000", "000/00004", "003/00004"):
        write_labels(tmp_path / f"sav/a/{name}.png", mask)
    write_labels(tmp_path / "flat/a/00000.png", mask)
    whole, flat = open_predictions(tmp_path / "sav"), open_predictions(tmp_path / "flat")
    assert whole.object_frames("a") == {1: ("00000", "00004"), 4: ("00004",)}
    assert flat.object_frames("a") is None
    assert set(whole.sources("a")) == set((tmp_path / "sav/a").glob("*/*.png"))
    assert list(flat.sources("a")) == [tmp_path / "flat/a/00000.png"]
    assert isinstance(flat, LabelFolders)
    assert dict(flat.folders) == {"a": "a"}
    assert flat.file("a", "00000") == tmp_path / "flat/a/00000.png"
    with pytest.raises(FileNotFoundError, match="no prediction for frame 7"):
        flat.file("a", "7")
