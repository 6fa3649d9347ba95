"""Protocols that score objects one by one: SA-V, whose masks overlap, and LVOS, which lists their frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vosssl.data.io import write_labels
from vosssl.engine import file_scoring
from vosssl.engine.file_scoring import evaluate
from vosssl.engine.protocol import load_protocol
from vosssl.engine.report import Report
from vosssl.engine.scoring import JFScorer


def write_object(folder: Path, masks: Tensor, *, first: int = 0) -> None:
    """Binary images of one object, (T, H, W), of every fourth frame from the `first` on."""
    for place, mask in enumerate(masks):
        write_labels(folder / f"{4 * (first + place):05d}.png", mask.to(torch.uint8))


def block(rows: slice, columns: slice, *, frames: int = 6) -> Tensor:
    """(T, 40, 60) bool: one block that does not move."""
    masks = torch.zeros(frames, 40, 60, dtype=torch.bool)
    masks[:, rows, columns] = True
    return masks


def curves(report: Report) -> dict[int, dict[str, float]]:
    """J by object and frame."""
    return {
        one.object: dict(zip(one.frames, one.values, strict=True))
        for one in report.curves
        if one.metric == "J"
    }


@pytest.fixture
def overlapping(tmp_path: Path) -> tuple[Path, Path]:
    """A person and its hand, which lies on it; both predicted, the person a quarter too small in frame 4."""
    person, hand = block(slice(5, 35), slice(10, 50)), block(slice(15, 25), slice(20, 40))
    found = person.clone()
    found[1, 5:35, 40:50] = False
    for side, masks in (("gt", person), ("pred", found)):
        write_object(tmp_path / side / "video/000", masks)
        write_object(tmp_path / side / "video/001", hand)
    return tmp_path / "pred", tmp_path / "gt"


def test_overlapping_masks_are_scored_whole(overlapping: tuple[Path, Path]) -> None:
    found = curves(evaluate(*overlapping, "sav-val"))
    assert found[1] == {"00004": 0.75, "00008": 1.0, "00012": 1.0, "00016": 1.0}
    assert found[2] == dict.fromkeys(found[1], 1.0)
    flat = curves(evaluate(*overlapping, "vos-benchmark"))
    assert flat[1]["00004"] == (30 * 30 - 10 * 20) / (30 * 40 - 10 * 20)  # the hand is cut out of the person


def test_a_prediction_without_the_overlap_loses_it(overlapping: tuple[Path, Path], tmp_path: Path) -> None:
    """The person without its hand: right for a label map, 1000 of 1200 pixels for whole masks."""
    cut = block(slice(5, 35), slice(10, 50)) & ~block(slice(15, 25), slice(20, 40))
    write_object(tmp_path / "pred/video/000", cut)
    assert curves(evaluate(*overlapping, "sav-val"))[1]["00008"] == 1000 / 1200
    assert curves(evaluate(*overlapping, "vos-benchmark"))[1]["00008"] == 1.0


def test_the_first_and_the_last_file_of_each_object_are_not_scored(
    overlapping: tuple[Path, Path], tmp_path: Path
) -> None:
    late = block(slice(0, 4), slice(0, 4), frames=4)
    for side in ("gt", "pred"):
        write_object(tmp_path / side / "video/002", late, first=1)
    found = curves(evaluate(*overlapping, "sav-val"))
    assert tuple(found[3]) == ("00008", "00012")
    assert tuple(found[1]) == ("00004", "00008", "00012", "00016")


def test_an_object_counts_from_where_truth_or_prediction_shows_it(
    overlapping: tuple[Path, Path], tmp_path: Path
) -> None:
    late = block(slice(0, 4), slice(0, 4))
    late[:3] = False
    early = late.clone()
    early[2] = late[3]
    write_object(tmp_path / "gt/video/002", late)
    write_object(tmp_path / "pred/video/002", early)
    assert curves(evaluate(*overlapping, "sav-val"))[3] == {"00008": 0.0, "00012": 1.0, "00016": 1.0}


def test_an_object_that_is_not_in_the_truth_does_not_count(
    overlapping: tuple[Path, Path], tmp_path: Path
) -> None:
    write_object(tmp_path / "pred/video/005", block(slice(0, 40), slice(0, 60)))
    report = evaluate(*overlapping, "sav-val")
    assert set(curves(report)) == {1, 2}
    assert report.mean("J") == (3.75 / 4 + 1) / 2


def test_pieces_processes_and_other_protocols_change_nothing(
    overlapping: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(*overlapping, "sav-val")
    monkeypatch.setattr(file_scoring, "UNIT", 2)
    for workers in (1, 2):
        pieces = evaluate(*overlapping, ["davis17-val", "sav-val"], workers=workers)[1]
        assert list(pieces.scores) == list(whole.scores)
        assert list(pieces.curves) == list(whole.curves)


def test_label_maps_are_scored_as_vos_benchmark_scores_them(tmp_path: Path) -> None:
    """As the tool of SA-V does with folders in the manner of DAVIS."""
    for side, shift in (("gt", 0), ("pred", 2)):
        for time in range(6):
            labels = torch.zeros(40, 60, dtype=torch.uint8)
            labels[5:15, 5 + shift : 20 + shift] = 1
            if time > 2:
                labels[20:30, 30 - shift : 40] = 3
            write_labels(tmp_path / side / f"a/{time:05d}.png", labels)
    whole, flat = evaluate(tmp_path / "pred", tmp_path / "gt", ["sav-val", "vos-benchmark"])
    assert list(whole.scores) == list(flat.scores)
    assert list(whole.curves) == list(flat.curves)


def lvos(root: Path, *, end: int, count: int) -> tuple[Path, Path]:
    """Seven frames, every fifth; object 1 throughout, object 2 from the third on to `end`."""
    for time in range(7):
        labels = torch.zeros(40, 60, dtype=torch.uint8)
        labels[5:15, 5:25] = 1
        truth = labels.clone()
        if time >= 2:
            truth[20:30, 30:40] = 2
        if time == 3:
            labels[5:15, 15:25] = 0
        for side, one in (("pred", labels), ("valid/Annotations", truth)):
            write_labels(root / side / f"a/{5 * time + 1:08d}.png", one)
    objects = {
        "1": {"frame_range": {"start": "1", "end": "32", "frame_nums": "7"}},
        "2": {"frame_range": {"start": "11", "end": str(end), "frame_nums": str(count)}},
    }
    (root / "valid/valid_meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    return root / "pred", root / "valid/Annotations"


@pytest.mark.parametrize(("end", "count"), [(31, 5), (32, 5)])
def test_objects_of_lvos_count_over_their_listed_frames(tmp_path: Path, end: int, count: int) -> None:
    found = curves(evaluate(*lvos(tmp_path, end=end, count=count), "lvos2-val"))
    assert tuple(found[1]) == ("00000006", "00000011", "00000016", "00000021", "00000026")
    assert found[1]["00000016"] == 0.5
    assert found[2] == dict.fromkeys(("00000016", "00000021", "00000026"), 0.0)


def test_lvos_needs_its_list(tmp_path: Path) -> None:
    predicted, truth = lvos(tmp_path, end=31, count=5)
    listed = tmp_path / "valid/valid_meta.json"
    listed.write_text(listed.read_text().replace("frame_range", "range"))
    with pytest.raises(ValueError, match=r"valid_meta\.json, sequence a: no objects with a frame_range"):
        evaluate(predicted, truth, "lvos2-val")


def test_lvos_without_its_list_says_what_to_copy(tmp_path: Path) -> None:
    predicted, truth = lvos(tmp_path, end=31, count=5)
    (tmp_path / "valid/valid_meta.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid_meta\.json of LVOS"):
        evaluate(predicted, truth, "lvos1-val")


def test_label_maps_of_a_clip_do_not_tell_an_objects_frames() -> None:
    with pytest.raises(ValueError, match="score files with evaluate"):
        JFScorer("a", load_protocol("sav-val"))
