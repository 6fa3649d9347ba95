"""Scoring of files: several protocols, several processes, the cache, categories, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vosssl.data.io import write_labels
from vosssl.engine import categories, file_scoring
from vosssl.engine.file_scoring import evaluate
from vosssl.engine.protocol import EvalProtocol, load_protocol
from vosssl.engine.report import Report

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "jf"


def write(folder: Path, frames: Tensor, names: list[str] | None = None) -> None:
    for place, labels in enumerate(frames):
        write_labels(folder / f"{names[place] if names else f'{place:05d}'}.png", labels)


def moving(length: int = 6, *, speed: int = 1) -> Tensor:
    """(T, 40, 60): two squares."""
    labels = torch.zeros(length, 40, 60, dtype=torch.uint8)
    for time in range(length):
        labels[time, 5:15, 5 + speed * time : 15 + speed * time] = 1
        labels[time, 22:34, 10 + speed * time : 24 + speed * time] = 2
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two sequences, predictions and truth."""
    for name, length in (("a", 6), ("b", 9)):
        write(tmp_path / "gt" / name, moving(length, speed=2))
        write(tmp_path / "pred" / name, moving(length))
    return tmp_path / "pred", tmp_path / "gt"


def test_a_frame_too_many_is_an_error_where_the_truth_has_every_frame(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    before = evaluate(predictions, truth, "davis17-val").means()
    write_labels(predictions / "a" / "00099.png", moving()[0])
    with pytest.raises(ValueError, match=r"1 predicted frames of a in .* have no truth: 00099; remove them"):
        evaluate(predictions, truth, "davis17-val")
    assert evaluate(predictions, truth, "davis17-val", ignore_extra_frames=True).means() == before
    evaluate(predictions, truth, "mose-val")


@pytest.mark.parametrize("convention", ["after_first", "from_first"])
def test_seen_and_unseen_objects_have_the_stored_scores(convention: str, tmp_path: Path) -> None:
    arrays = np.load(GOLDENS / "ytvos_like.npz")
    expected: dict[str, Any] = json.loads((GOLDENS / "ytvos_like.json").read_text())
    for video, facts in expected["videos"].items():
        for kind, folder in (("gt", "valid/Annotations"), ("pred", "pred")):
            write(tmp_path / folder / video, torch.from_numpy(arrays[f"{video}/{kind}"]), facts["frames"])
    (tmp_path / "valid/meta.json").write_text(json.dumps({"videos": expected["videos"]}))
    name = "ytvos2019-val" if convention == "after_first" else "ytvos2019-val-from-first"
    report = evaluate(tmp_path / "pred", tmp_path / "valid", name)
    scores = expected["scores"][convention]
    for metric in ("J/seen", "F/seen", "J/unseen", "F/unseen"):
        assert report.mean(metric) == pytest.approx(scores[metric.replace("/", "_")], abs=1e-12)
    assert report.mean("G") == pytest.approx(scores["overall"], abs=1e-12)
    for one in expected["objects"]:
        values = {
            s.metric: s.value for s in report.scores if (s.video, s.object) == (one["video"], one["id"])
        }
        assert values["J"] == pytest.approx(one[convention]["J"], abs=1e-12)
        assert values["F"] == pytest.approx(one[convention]["F"], abs=1e-12)
    assert report.facts["incomplete"].startswith("5 of the 507")


def test_categories_follow_from_the_training_set_or_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "valid/Annotations/a", moving())
    write(tmp_path / "pred/a", moving())
    objects = {"1": {"category": "cat"}, "2": {"category": "ostrich"}}
    (tmp_path / "valid/meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    with pytest.raises(ValueError, match="was seen in training; put"):
        evaluate(tmp_path / "pred", tmp_path / "valid", "ytvos2018-val")
    (tmp_path / "train").mkdir()
    trained = {"videos": {"z": {"objects": {"1": {"category": "cat"}}}}}
    (tmp_path / "train/meta.json").write_text(json.dumps(trained))
    categories._metadata.cache_clear()
    report = evaluate(tmp_path / "pred", tmp_path / "valid", "ytvos2018-val")
    groups = {s.object: s.metric for s in report.scores if s.metric.startswith("J/") and "seen" in s.metric}
    assert groups == {1: "J/seen", 2: "J/unseen"}


def test_objects_count_as_vos_benchmark_counts_them(tmp_path: Path) -> None:
    truth = torch.zeros(6, 40, 60, dtype=torch.uint8)
    truth[:, 2:12, 2:12] = 1
    truth[3:, 20:30, 20:30] = 4  # late, and ids 2 and 3 are not used
    truth[0, 30:40, 40:50] = 3  # in frame 0 only
    predicted = truth.clone()
    predicted[predicted == 3] = 0
    predicted[2, 20:30, 20:30] = 4  # a frame too early
    predicted[4, 35:39, 50:55] = 9  # extra id
    write(tmp_path / "gt/a", truth)
    write(tmp_path / "pred/a", predicted)
    report = evaluate(tmp_path / "pred", tmp_path / "gt", "vos-benchmark")
    curves = {c.object: c for c in report.curves if c.metric == "J"}
    assert set(curves) == {1, 4}
    assert curves[1].values == (1.0, 1.0, 1.0, 1.0)
    assert curves[4].frames == ("00002", "00003", "00004")
    assert curves[4].values == (0.0, 1.0, 1.0)


def test_several_protocols_share_a_pass_and_differ_where_they_should(folders: tuple[Path, Path]) -> None:
    names = ["davis17-val", "davis16-val", "vos-benchmark", "davis17-unsupervised", "movi-c"]
    together = evaluate(*folders, names)
    assert [report.protocol for report in together] == names
    for name, report in zip(names, together, strict=True):
        alone = evaluate(*folders, name)
        assert list(alone.scores) == list(report.scores)
        assert report.facts["compare_with"]
    assert together[0].mean("J") != together[3].mean("J")
    assert {score.object for score in together[1].scores} == {1}
    assert together[4].metrics == ("video/fg_ari", "video/mbo", "image/fg_ari", "image/mbo")


def test_processes_and_pieces_change_nothing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = replace(load_protocol("ytvis2021-chunks"), chunk=2, size=None, videos=0)
    protocols: list[str | Path | EvalProtocol] = ["davis17-val", "davis17-unsupervised", "movi-c", chunked]
    whole = evaluate(*folders, protocols)
    monkeypatch.setattr(file_scoring, "UNIT", 4)
    monkeypatch.setattr(file_scoring, "TOGETHER", 3)
    for workers in (1, 2):
        pieces = evaluate(*folders, protocols, workers=workers)
        for one, other in zip(whole, pieces, strict=True):
            assert list(one.scores) == list(other.scores)
            assert list(one.curves) == list(other.curves)


def test_chunks_are_samples_and_what_is_left_over_is_dropped(folders: tuple[Path, Path]) -> None:
    chunked = replace(load_protocol("ytvis2021-chunks"), chunk=4, size=None, videos=0)
    report = evaluate(*folders, chunked)
    weights = {s.video: s.weight for s in report.scores if s.metric == "video/mbo"}
    assert weights == {"a": 1, "b": 2}


def test_only_what_changed_is_scored_again(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    original = file_scoring._score_unit
    monkeypatch.setattr(
        file_scoring, "_score_unit", lambda work, unit: scored.append(unit.sequence) or original(work, unit)
    )
    first = evaluate(*folders, cache=tmp_path / "cache")
    again = evaluate(*folders, cache=tmp_path / "cache")
    assert scored == ["a", "b"]
    assert list(first.scores) == list(again.scores) and list(first.curves) == list(again.curves)
    write_labels(folders[0] / "b" / "00004.png", torch.zeros(40, 60, dtype=torch.uint8))
    changed = evaluate(*folders, cache=tmp_path / "cache")
    assert scored == ["a", "b", "b"]
    assert changed.mean("J") < first.mean("J")
    evaluate(*folders, "vos-benchmark", cache=tmp_path / "cache")
    assert scored == ["a", "b", "b", "a", "b"]
    for entry in (tmp_path / "cache").iterdir():
        entry.write_text("[[damaged")
    assert list(evaluate(*folders, cache=tmp_path / "cache").scores) == list(changed.scores)


def test_a_report_survives_its_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for report in evaluate(*folders, ["davis17-val", "movi-c"]):
        report.to_json(tmp_path / "report.json")
        back = Report.from_json(tmp_path / "report.json")
        assert sorted(map(str, back.scores)) == sorted(map(str, report.scores))
        assert list(back.curves) == list(report.curves)
        assert back.as_dict() == report.as_dict()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json is no report"):
        Report.from_json(tmp_path / "other.json")


def score(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "eval" / "score.py"), *map(str, arguments), "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_command_line_writes_a_report_per_protocol(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = score(
        *folders, "--protocol", "davis17-val,vos-benchmark", "--json", out, "--csv", tmp_path / "s.csv"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("may be compared with") == 2
    content = json.loads((tmp_path / "out.davis17-val.json").read_text())
    assert {"global", "sequences"} <= content.keys()
    assert len(content["sequences"]["a"]["objects"]["1"]["J/frames"]) == 4
    assert (tmp_path / "s.vos-benchmark.csv").is_file()


def test_bad_input_is_one_line_and_no_report(folders: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = folders[0] / "b" / "00003.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    done = score(*folders, "--json", tmp_path / "out.json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "00003.png" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_a_protocol_under_which_nothing_is_scored_is_an_error(tmp_path: Path) -> None:
    labels = torch.zeros(16, 16, dtype=torch.uint8)
    for frame in ("00000", "00001", "00002"):
        write_labels(tmp_path / "truth" / "a" / f"{frame}.png", labels)
        write_labels(tmp_path / "predicted" / "a" / f"{frame}.png", labels)
    with pytest.raises(ValueError, match="nothing is scored under vos-benchmark"):
        evaluate(tmp_path / "predicted", tmp_path / "truth", "vos-benchmark")


def test_a_sequence_too_short_is_left_out_and_named(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    expected = evaluate(*folders, "davis17-val")
    for side in folders:
        write(side / "short", moving(2))
    report = evaluate(*folders, "davis17-val")
    assert report.means() == expected.means()
    assert list(report.scores) == list(expected.scores)
    assert "nothing is scored in short: too short" in report.facts["incomplete"]
    assert report.facts["incomplete"].startswith("3 of the 30 sequences")
    assert "leaves out of its means: short" in caplog.text
    with pytest.raises(ValueError, match="every sequence is too short"):
        evaluate(*folders, "davis17-val", sequences=["short"])


def test_frames_of_a_set_weigh_the_same_where_a_protocol_says_so(tmp_path: Path) -> None:
    """Two frames of J 0 and six of J 1; the last frame has nothing on either side and does not count."""
    labels = torch.zeros(9, 40, 60, dtype=torch.uint8)
    labels[:8, 5:15, 5:15] = 255
    write(tmp_path / "gt/few", labels[:2])
    write(tmp_path / "gt/many", labels[2:])
    write(tmp_path / "pred/few", torch.zeros_like(labels[:2]))
    write(tmp_path / "pred/many", labels[2:].clamp(max=1))
    for name in ("fbms59", "segtrack2"):
        report = evaluate(tmp_path / "pred", tmp_path / "gt", name)
        assert report.mean("J") == 6 / 8
        report.to_json(tmp_path / "report.json")
        assert list(Report.from_json(tmp_path / "report.json").scores) == list(report.scores)
    sequences = replace(load_protocol("fbms59"), average="objects")
    assert evaluate(tmp_path / "pred", tmp_path / "gt", sequences).mean("J") == 1 / 2


def test_an_object_of_the_first_frame_alone_counts_in_mosev2(tmp_path: Path) -> None:
    truth = moving()
    truth[1:][truth[1:] == 2] = 0
    predicted = truth.clone()
    predicted[3, 22:34, 10:24] = 2
    write(tmp_path / "gt/a", truth)
    write(tmp_path / "pred/a", predicted)
    values = {
        name: {
            s.object: s.value
            for s in evaluate(tmp_path / "pred", tmp_path / "gt", name).scores
            if s.metric == "J"
        }
        for name in ("mose2-val", "mose-val")
    }
    assert values == {"mose2-val": {1: 1.0, 2: 0.75}, "mose-val": {1: 1.0}}


def test_only_the_central_square_is_scored_where_a_protocol_crops(tmp_path: Path) -> None:
    truth = torch.zeros(2, 40, 60, dtype=torch.uint8)
    truth[:, 10:30, 10:30] = 1
    predicted = truth.clone()
    predicted[:, :, :10] = 2
    predicted[:, :, 50:] = 3  # all beyond the square
    write(tmp_path / "gt/a", truth)
    write(tmp_path / "pred/a", predicted)
    square = replace(load_protocol("ytvis2021"), size=None, metrics=("video/ari",))
    assert evaluate(tmp_path / "pred", tmp_path / "gt", square).mean("video/ari") == 1.0
    whole = replace(square, crop="none")
    assert evaluate(tmp_path / "pred", tmp_path / "gt", whole).mean("video/ari") < 1.0


def columns(mask: Tensor) -> dict[str, Any]:
    """Uncompressed run lengths of a (H, W) mask: down the columns, background first."""
    flat = mask.T.flatten().int()
    ends = (flat.diff().nonzero().flatten() + 1).tolist()
    counts = torch.tensor([0, *ends, len(flat)]).diff().tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def as_coco(path: Path, videos: dict[str, Tensor]) -> None:
    content: dict[str, Any] = {"videos": [], "annotations": []}
    for number, (name, maps) in enumerate(videos.items(), 1):
        files = [f"{name}/{place:05d}.jpg" for place in range(len(maps))]
        size = {"height": maps.shape[1], "width": maps.shape[2]}
        content["videos"].append({"id": number, "file_names": files} | size)
        for identity in range(1, int(maps.max()) + 1):
            runs = [columns(one == identity) if bool((one == identity).any()) else None for one in maps]
            content["annotations"].append({"id": identity, "video_id": number, "segmentations": runs})
    path.write_text(json.dumps(content))


def as_burst(path: Path, videos: dict[str, Tensor]) -> None:
    sequences = []
    for name, maps in videos.items():
        tracks = [
            {str(i): {"rle": columns(one == i)} for i in range(1, 255) if bool((one == i).any())}
            for one in maps
        ]
        files = [f"{place:05d}.jpg" for place in range(len(maps))]
        size = {"height": maps.shape[1], "width": maps.shape[2]}
        sequences.append({"seq_name": name, "annotated_image_paths": files, "segmentations": tracks} | size)
    path.write_text(json.dumps({"sequences": sequences, "split": "val"}))


@pytest.mark.parametrize("write_json", [as_coco, as_burst])
def test_truth_as_json_scores_as_the_same_truth_as_images(
    folders: tuple[Path, Path], tmp_path: Path, write_json: Any
) -> None:
    late = moving(9, speed=2)  # object 2 goes and comes back
    late[5:7][late[5:7] == 2] = 0
    write(tmp_path / "gt/b", late)
    path = tmp_path / "truth.json"
    write_json(path, {"a": moving(6, speed=2), "b": late})
    names = ["davis17-val", "vos-benchmark", "davis17-unsupervised", "sav-val", "movi-d", "burst-jf"]
    images = evaluate(*folders, names)
    for workers, cache in ((1, None), (2, tmp_path / "cache"), (1, tmp_path / "cache")):
        for one, other in zip(
            images, evaluate(folders[0], path, names, workers=workers, cache=cache), strict=True
        ):
            assert list(one.scores) == list(other.scores)
            assert list(one.curves) == list(other.curves)


def test_a_changed_json_truth_is_scored_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    as_coco(path, {"a": moving(6), "b": moving(9)})
    assert evaluate(folders[0], path, cache=tmp_path / "cache").mean("J") == 1.0
    as_coco(path, {"a": moving(6, speed=3), "b": moving(9)})
    assert evaluate(folders[0], path, cache=tmp_path / "cache").mean("J") < 1.0
