"""Predictions in one file for all frames: run lengths in JSON, arrays in NPZ."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.test_predictions import labels_with
from vosssl.data.predictions import open_predictions
from vosssl.data.rle import encode_rle, run_lengths

SIZE = (6, 9)
LOW, HIGH = labels_with(1, 1) > 0, labels_with(0, 1, 1) > 0  # they share the second row


def runs(mask: Tensor) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": encode_rle(mask)}


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def videos(*names: str, frames: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "height": SIZE[0],
            "width": SIZE[1],
            "file_names": [f"{name}/{5 * frame:05d}.jpg" for frame in range(frames)],
        }
        for number, name in enumerate(names, 1)
    ]


def result(video: int, score: float, *masks: Tensor | None) -> dict[str, Any]:
    segmentations = [None if mask is None else runs(mask) for mask in masks]
    return {"video_id": video, "score": score, "category_id": 3, "segmentations": segmentations}


def test_results_are_ranked_by_score_and_the_best_lies_on_top(tmp_path: Path) -> None:
    content = [result(1, 0.2, LOW, None), result(2, 0.5, None, HIGH), result(1, 0.9, HIGH, HIGH)]
    path = write_json(tmp_path / "results.json", content)
    listed = write_json(tmp_path / "valid.json", {"videos": videos("a", "b", "c"), "annotations": []})
    predictions = open_predictions(path, videos=listed)
    assert predictions.sequences == ("a", "b", "c")
    assert predictions.frames("a") == ("00000", "00005")
    assert torch.equal(predictions.labels("a", "00000", size=SIZE), labels_with(2, 1, 1))
    ids, masks = predictions.masks("a", "00000")
    assert ids == (1, 2)
    assert torch.equal(masks, torch.stack([HIGH, LOW]))
    assert torch.equal(predictions.labels("b", "00000"), labels_with())
    assert torch.equal(predictions.labels("c", "00005"), labels_with())


def test_results_alone_call_videos_by_their_numbers(tmp_path: Path) -> None:
    path = write_json(tmp_path / "results.json", [result(7, 0.5, None, LOW)])
    predictions = open_predictions(path)
    assert predictions.sequences == ("7",)
    assert predictions.frames("7") == ("00000", "00001")
    assert torch.equal(predictions.labels("7", "00000"), labels_with())
    assert torch.equal(predictions.labels("7", "00001"), LOW.to(torch.uint8))


def test_annotations_list_their_own_videos_and_may_be_uncompressed(tmp_path: Path) -> None:
    plain = {"size": list(SIZE), "counts": run_lengths(LOW).tolist()}
    entry = {"id": 1, "video_id": 1, "segmentations": [plain, None], "iscrowd": 0}
    content = {"info": {"videos": [1]}, "videos": videos("a"), "annotations": [entry]}
    predictions = open_predictions(write_json(tmp_path / "train.json", content))
    assert torch.equal(predictions.labels("a", "00000"), LOW.to(torch.uint8))


def burst(name: str = "v1", tracks: dict[str, Tensor] | None = None) -> dict[str, Any]:
    found = {"4": LOW, "2": HIGH} if tracks is None else tracks
    return {
        "seq_name": name,
        "dataset": "LaSOT",
        "height": SIZE[0],
        "width": SIZE[1],
        "all_image_paths": ["00001.jpg", "00002.jpg", "00003.jpg"],
        "annotated_image_paths": ["00001.jpg", "00003.jpg"],
        "segmentations": [
            {number: {"rle": encode_rle(mask), "is_gt": True} for number, mask in found.items()},
            {},
        ],
    }


def test_burst_tracks_are_ids(tmp_path: Path) -> None:
    content = {"split": "val", "categories": [{"id": 1}], "sequences": [burst(), burst("v2", {})]}
    predictions = open_predictions(write_json(tmp_path / "all_classes.json", content))
    assert predictions.sequences == ("v1", "v2")
    assert predictions.frames("v1") == ("00001", "00003")
    assert torch.equal(predictions.labels("v1", "00001", size=SIZE), labels_with(4, 4, 2))
    assert torch.equal(predictions.labels("v1", "00003"), labels_with())
    assert predictions.masks("v1", "00001").ids == (2, 4)


def test_strings_with_brackets_and_quotes_do_not_mislead(tmp_path: Path) -> None:
    entry = result(1, 0.5, LOW) | {"note": 'a "[{" \\', "more": {"deep": [[{}], "]"]}}
    path = write_json(tmp_path / "results.json", [entry, result(1, 0.4, HIGH)])
    assert torch.equal(open_predictions(path).labels("1", "00000"), labels_with(1, 1, 2))


def test_only_the_sequence_read_last_is_kept_and_none_is_sent(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(60, 90, generator=generator) > 0.5 for _ in range(6)]
    path = write_json(tmp_path / "results.json", [result(number, 0.5, *noise) for number in (1, 2, 3)])
    predictions = open_predictions(path)
    empty = len(pickle.dumps(predictions))
    predictions.labels("1", "00000")
    assert len(pickle.dumps(predictions)) == empty < path.stat().st_size / 10
    again = pickle.loads(pickle.dumps(predictions))
    assert torch.equal(again.labels("3", "00004"), noise[4].to(torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it lists no objects"),
        ({"pictures": []}, "has no videos, found pictures"),
        ([{"video_id": 1}], r"entry at byte 1: no 'segmentations'"),
        ([result(9, 0.5, LOW, LOW)], r"2 frames of video 9, .*valid\.json lists no such video"),
        ([result(1, 0.5, LOW)], r"1 frames of video 1, .* lists 2 frames"),
        ([result(1, 0.5, LOW, LOW[:3])], r"frame 00005 of a has masks of \[\(3, 9\)\]"),
        ([result(1, 0.1, LOW, LOW)] * 255, "255 objects in video 1, expected at most 254"),
    ],
)
def test_results_that_do_not_fit_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = write_json(tmp_path / "results.json", content)
    listed = write_json(tmp_path / "valid.json", {"videos": videos("a")})
    with pytest.raises(ValueError, match=message):
        open_predictions(path, videos=listed if isinstance(content, list) and content else None).labels(
            "a", "00005"
        )


def test_damaged_json_is_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "results.json", [result(1, 0.5, LOW), result(1, 0.4, HIGH)])
    whole = path.read_text()
    for keep in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_text(whole[:keep])
        with pytest.raises(ValueError, match=r"results\.json"):
            open_predictions(path)
    path.write_text(whole.replace('"score": 0.5', '"score": oops'))
    with pytest.raises(ValueError, match=r"results\.json, entry at byte 1, is damaged"):
        open_predictions(path)
    path.write_text(whole.replace(encode_rle(LOW), encode_rle(LOW)[:-1]))
    with pytest.raises(ValueError, match=r"frame 00000 of 1: run lengths add up"):
        open_predictions(path).labels("1", "00000")


def test_burst_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "burst.json"
    write_json(path, {"sequences": [burst("v1"), burst("V1")]})
    with pytest.raises(ValueError, match="two sequences of the same name"):
        open_predictions(path)
    write_json(path, {"sequences": [burst("v1", {"300": LOW})]})
    with pytest.raises(ValueError, match=r"track 300, expected tracks numbered 1\.\.254"):
        open_predictions(path).labels("v1", "00001")


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_of_labels_are_read_frame_by_frame_in_any_order(tmp_path: Path, compressed: bool) -> None:
    labels = torch.stack([labels_with(number, 3) for number in range(5)]).numpy()
    save = np.savez_compressed if compressed else np.savez
    names = np.array([f"{number:05d}.png" for number in range(0, 10, 2)])
    save(tmp_path / "dog.npz", labels=labels.astype(np.int64), frames=names)
    save(tmp_path / "cat.npz", labels=labels)
    predictions = open_predictions(tmp_path)
    assert predictions.sequences == ("cat", "dog")
    assert predictions.frames("dog") == ("00000", "00002", "00004", "00006", "00008")
    assert predictions.frames("cat")[-1] == "00004"
    for frame in ("00004", "00000", "00008"):
        assert torch.equal(predictions.labels("dog", frame, size=SIZE), labels_with(int(frame) // 2, 3))
    assert torch.equal(pickle.loads(pickle.dumps(predictions)).labels("cat", "00001"), labels_with(1, 3))
    assert torch.equal(open_predictions(tmp_path / "dog.npz").labels("dog", "00002"), labels_with(1, 3))


def test_arrays_of_masks_keep_overlaps(tmp_path: Path) -> None:
    np.savez(tmp_path / "dog.npz", masks=torch.stack([LOW, HIGH])[None].numpy())
    predictions = open_predictions(tmp_path)
    assert torch.equal(predictions.labels("dog", "00000"), labels_with(1, 2, 2))
    assert torch.equal(predictions.masks("dog", "00000").masks, torch.stack([LOW, HIGH]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "holds other, expected labels"),
        ({"labels": np.zeros((2, 4, 4))}, "float64, expected labels"),
        ({"labels": np.zeros((4, 4), np.uint8)}, "expected labels"),
        ({"labels": np.full((1, 4, 4), 300)}, r"values from 300 to 300, expected 0\.\.254"),
        ({"labels": np.full((1, 4, 4), 255, np.uint8)}, r"to 255, expected 0\.\.254"),
        ({"masks": np.full((1, 2, 4, 4), 2, np.uint8)}, r"to 2, expected 0\.\.1"),
        ({"masks": np.zeros((1, 300, 4, 4), bool)}, "300 masks a frame, expected at most 254"),
        ({"labels": np.zeros((2, 4, 4), np.uint8), "frames": np.array(["a"])}, "1 different names"),
        ({"labels": np.zeros((2, 4, 4), np.uint8), "frames": np.array(["a", "a"])}, "1 different names"),
        ({"labels": np.zeros((1, 4, 4), np.uint8), "frames": np.array([7])}, "names of frames as text"),
        ({"labels": np.zeros((1, 4, 4), np.uint8), "frames": np.array(["a"], object)}, "as text"),
        ({"labels": np.asfortranarray(np.zeros((2, 4, 4), np.uint8))}, "Fortran order"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "dog.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_predictions(tmp_path).labels("dog", "00000")


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (3, 40, 40), dtype=np.uint8)
    np.savez_compressed(tmp_path / "dog.npz", labels=noise)
    whole = bytearray((tmp_path / "dog.npz").read_bytes())
    (tmp_path / "dog.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"dog\.npz is truncated"):
        open_predictions(tmp_path).labels("dog", "00000")
    whole[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    (tmp_path / "dog.npz").write_bytes(whole)
    with pytest.raises(ValueError, match=r"dog\.npz.*(damaged|values)"):
        open_predictions(tmp_path).labels("dog", "00002")


def test_images_beside_arrays_are_not_passed_over(tmp_path: Path) -> None:
    from vosssl.data.io import write_labels

    np.savez(tmp_path / "dog.npz", labels=np.zeros((1, 4, 4), np.uint8))
    write_labels(tmp_path / "cat" / "0.png", labels_with(1))
    with pytest.raises(ValueError, match="NPZ files and the images of cat"):
        open_predictions(tmp_path)


def test_other_files_say_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "pred.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="unpack archives first"):
        open_predictions(tmp_path / "pred.zip")
