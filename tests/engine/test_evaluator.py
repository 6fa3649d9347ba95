"""From videos and folders of PNGs to reports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vosssl.clip import VOID, Clip, Frame
from vosssl.data.folders import FolderDataset
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.data.video import Video, clip_video
from vosssl.engine.evaluator import (
    evaluate,
    evaluate_discovery,
    evaluate_lock_on,
    follow,
    follow_protocol,
    predict,
    score,
)
from vosssl.engine.protocol import DISCOVERY, list_protocols, load_protocol
from vosssl.engine.report import Report
from vosssl.engine.scoring import JFScorer, SegmentationScorer
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.methods.floors import GridSegmenter, grid_floor

GOLDENS = Path(__file__).parents[1] / "goldens"


def golden(name: str) -> tuple[Any, dict[str, Any]]:
    arrays = np.load(GOLDENS / "jf" / f"{name}.npz")
    return arrays, json.loads((GOLDENS / "jf" / f"{name}.json").read_text())


def scene(name: str = "scene", *, length: int = 5) -> Clip:
    """Two squares that move right by two pixels a frame."""
    labels = torch.zeros(length, 40, 60, dtype=torch.uint8)
    for time in range(length):
        labels[time, 5:15, 5 + 2 * time : 15 + 2 * time] = 1
        labels[time, 22:34, 10 + 2 * time : 24 + 2 * time] = 2
    frames = (labels.float() * 80).byte()[:, None].expand(-1, 3, -1, -1).contiguous()
    return Clip(name, frames, labels)


def oracle(video: Video) -> Iterator[tuple[Frame, Tensor]]:
    """The truth under other names, background included."""
    names = torch.tensor([3, 1, 2], dtype=torch.uint8)
    for frame in video:
        assert frame.labels is not None
        yield frame, names[frame.labels.long()]


@pytest.mark.parametrize("name", ["synthetic_semi", "synthetic_unsup"])
def test_scoring_a_folder_gives_the_official_numbers(name: str, tmp_path: Path) -> None:
    arrays, official = golden(name)
    cases = [case for case in official["cases"] if len(arrays[f"{case}/gt"]) < 60]
    for case in cases:
        for kind in ("gt", "pred"):
            for time, labels in enumerate(torch.from_numpy(arrays[f"{case}/{kind}"])):
                write_labels(tmp_path / kind / case / f"{time:05d}.png", labels)
    protocol = "davis17-val" if name == "synthetic_semi" else "davis17-unsupervised"
    report = evaluate(tmp_path / "pred", tmp_path / "gt", protocol)
    for case in cases:
        expected = official["cases"][case]
        order = expected.get("matched_objects", expected.get("objects"))
        curves = {(c.object, c.metric): c.values for c in report.curves if c.video == case}
        assert [c.object for c in report.curves if c.video == case and c.metric == "J"] == order
        for place, identity in enumerate(order):
            for metric in ("J", "F"):
                assert curves[identity, metric] == pytest.approx(expected[metric][place], abs=1e-12)
        for metric in ("J", "F"):
            for suffix in ("mean", "recall", "decay"):
                got = report.mean(metric if suffix == "mean" else f"{metric}/{suffix}", video=case)
                assert got == pytest.approx(np.mean(expected[f"{metric}_{suffix}"]), abs=1e-12)


def test_every_object_of_every_sequence_weighs_the_same(tmp_path: Path) -> None:
    one = torch.zeros(3, 20, 20, dtype=torch.uint8)
    one[:, 2:9, 2:9] = 1
    two = one.clone()
    two[:, 12:18, 12:18] = 2
    two[:, 12:18, 2:8] = 3
    for name, truth in (("one", one), ("three", two)):
        for time in range(3):
            write_labels(tmp_path / "gt" / name / f"{time}.png", truth[time])
            write_labels(tmp_path / "pred" / name / f"{time}.png", truth[time] * (truth[time] == 1))
    report = evaluate(tmp_path / "pred", tmp_path / "gt", "davis17-val")
    assert report.mean("J") == pytest.approx(2 / 4)


def test_binary_truth_and_merged_predictions_are_one_object(tmp_path: Path) -> None:
    labels = scene().labels
    assert labels is not None
    for time in range(5):
        write_labels(tmp_path / "pred/a" / f"{time}.png", labels[time])
        write_labels(tmp_path / "gt/a" / f"{time}.png", labels[time].clamp(max=1) * VOID)
    assert evaluate(tmp_path / "pred", tmp_path / "gt", "davis16-val").mean("J&F") == 1.0


def test_proposals_may_outnumber_bits_and_objects_may_come_late() -> None:
    truth = torch.zeros(4, 48, 48, dtype=torch.uint8)
    truth[2:, 0:8, 0:8] = 77
    blocks = torch.arange(1, 37, dtype=torch.uint8).view(6, 6)
    predicted = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
    scorer = JFScorer("late", DISCOVERY)
    scorer.begin(truth[0])
    for time in range(4):
        scorer.update(str(time), predicted, truth[time])
    scores, curves = scorer.finish()
    assert {score.object for score in scores} == {77}
    assert next(curve.values for curve in curves if curve.metric == "J") == (0.0, 0.0, 1.0, 1.0)


def test_discovery_gives_every_metric_in_one_pass() -> None:
    report = evaluate_discovery(oracle, [clip_video(scene())], progress=False)
    for metric in ("video/fg_ari", "video/ari", "video/mbo", "video/miou", "image/fg_ari", "J", "F", "J&F"):
        assert report.mean(metric) == 1.0, metric
    assert report.facts["frames"] == 5


def test_a_grid_is_scored_alike_as_function_and_as_segmenter() -> None:
    videos = [clip_video(scene("a")), clip_video(scene("b", length=3))]
    once = evaluate_discovery(grid_floor(rows=2, columns=3), videos, progress=False)
    online = evaluate_discovery(GridSegmenter(rows=2, columns=3), videos, progress=False)
    assert list(once.scores) == list(online.scores)
    assert 0 < once.mean("video/fg_ari") < 1


def test_image_metrics_weigh_frames_and_video_metrics_weigh_videos() -> None:
    videos = [clip_video(scene("a")), clip_video(scene("b", length=2))]
    report = evaluate_discovery(grid_floor(rows=4, columns=4), videos, progress=False)
    frames = {score.video: score.weight for score in report.scores if score.metric == "image/mbo"}
    assert frames == {"a": 5, "b": 2}
    a, b = (report.mean("image/mbo", video=name) for name in "ab")
    assert report.mean("image/mbo") == pytest.approx((5 * a + 2 * b) / 7)
    assert report.mean("video/mbo") == pytest.approx(
        (report.mean("video/mbo", video="a") + report.mean("video/mbo", video="b")) / 2
    )


def test_frames_that_are_void_everywhere_do_not_count() -> None:
    scorer = SegmentationScorer("void")
    scorer.update(torch.ones(4, 4, dtype=torch.uint8), torch.full((4, 4), VOID, dtype=torch.uint8))
    assert scorer.finish() == []


def test_lock_on_with_a_still_scene_is_perfect_and_with_a_moving_one_is_not() -> None:
    moving = scene()
    assert moving.labels is not None
    still = Clip("still", moving.frames[:1].repeat(5, 1, 1, 1), moving.labels[:1].repeat(5, 1, 1))
    report = evaluate_lock_on(CopyFirstMask(), [clip_video(still), clip_video(moving)], progress=False)
    assert report.mean("J&F", video="still") == 1.0
    assert 0 < report.mean("J&F", video="scene") < 1
    assert len(next(iter(report.curves)).values) == 3  # first and last frame dropped


def test_lock_on_needs_labels_and_a_protocol_with_a_prompt() -> None:
    clip = Clip("bare", scene().frames)
    with pytest.raises(ValueError, match="needed as the prompt"):
        evaluate_lock_on(CopyFirstMask(), [clip_video(clip)], progress=False)
    with pytest.raises(ValueError, match="use evaluate_discovery"):
        evaluate_lock_on(CopyFirstMask(), [], protocol="davis17-unsupervised")


def test_predictions_are_written_scored_and_not_made_twice(tmp_path: Path) -> None:
    videos = [clip_video(scene("a")), clip_video(scene("b"))]
    segmenter = CopyFirstMask()
    first = predict(follow(segmenter, prompt_first=True), videos[:1], tmp_path, progress=False)
    assert (first.videos, first.skipped, first.frames) == (1, 0, 5)
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / ".b.partial" / "stale.png").write_bytes(b"half")
    second = predict(follow(segmenter, prompt_first=True), videos, tmp_path, progress=False)
    assert (second.videos, second.skipped, second.frames) == (1, 1, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert len(list((tmp_path / "b").iterdir())) == 5
    live = evaluate_lock_on(segmenter, videos, progress=False)
    assert list(score(tmp_path, videos, progress=False).scores) == list(live.scores)
    truth = scene("a").labels
    assert truth is not None
    assert torch.equal(read_labels(tmp_path / "a" / "00003.png"), truth[0])


@pytest.mark.parametrize("video, frame", [("../escaped", "00000"), ("a", "../../escaped")])
def test_names_that_lead_out_of_the_folder_are_not_written(tmp_path: Path, video: str, frame: str) -> None:
    clip = replace(scene(video, length=1), frame_names=(frame,))
    label_video = follow(CopyFirstMask(), prompt_first=True)
    with pytest.raises(ValueError, match=r"names no place inside .*expected a name without"):
        predict(label_video, [clip_video(clip)], tmp_path / "out", progress=False)
    assert not [path for path in tmp_path.rglob("*.png") if "escaped" in path.name]


def test_an_interrupted_video_leaves_no_folder(tmp_path: Path) -> None:
    def broken(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        yield next(iter(video)), torch.zeros(40, 60, dtype=torch.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(broken, [clip_video(scene())], tmp_path, progress=False)
    assert not (tmp_path / "scene").exists()


def test_bad_folders_are_named(tmp_path: Path) -> None:
    truth = scene().labels
    assert truth is not None
    for time in range(5):
        write_labels(tmp_path / "gt/a" / f"{time}.png", truth[time])
        if time != 2:
            write_labels(tmp_path / "pred/a" / f"{time}.png", truth[time])
    with pytest.raises(FileNotFoundError, match="1 of 3 frames of a have no prediction"):
        evaluate(tmp_path / "pred", tmp_path / "gt")
    write_labels(tmp_path / "pred/a/2.png", torch.zeros(40, 61, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"a/2\.png is 61 wide"):
        evaluate(tmp_path / "pred", tmp_path / "gt")
    write_labels(tmp_path / "pred/a/2.png", torch.full((40, 60), 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"predicted id 9, the truth has 1\.\.2"):
        evaluate(tmp_path / "pred", tmp_path / "gt")
    with pytest.raises(FileNotFoundError, match="no predictions"):
        evaluate(tmp_path / "nowhere", tmp_path / "gt")
    with pytest.raises(FileNotFoundError, match="no true labels for b"):
        evaluate(tmp_path / "pred", tmp_path / "gt", sequences=["b"])


def test_more_proposals_than_allowed_are_an_error() -> None:
    scorer = JFScorer("many", load_protocol("davis17-unsupervised"))
    labels = torch.full((4, 4), 21, dtype=torch.uint8)
    with pytest.raises(ValueError, match="allows 20 proposals"):
        scorer.update("0", labels, labels)


def test_protocols_say_what_they_are() -> None:
    assert {"davis16-val", "davis17-val", "davis17-unsupervised"} <= set(list_protocols())
    for name in list_protocols():
        protocol = load_protocol(name)
        assert protocol.name == name
        assert protocol.source and protocol.compare_with


def test_wrong_protocols_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean davis17-val"):
        load_protocol("davis17-vall")
    wrong = tmp_path / "mine.yaml"
    wrong.write_text("name: mine\ntask: semi-supervised\nskip_fist: true\n")
    with pytest.raises(ValueError, match="skip_fist"):
        load_protocol(wrong)
    wrong.write_text("name: mine\ntask: guessing\n")
    with pytest.raises(ValueError, match="task of protocol"):
        load_protocol(wrong)


def test_a_video_without_truth_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    report = evaluate_discovery(
        grid_floor(rows=1, columns=1), [clip_video(Clip("bare", scene().frames))], progress=False
    )
    assert not report.scores
    assert math.isnan(report.mean("video/ari"))
    assert "bare" in caplog.text


def busy(name: str, *, length: int, binary: bool = False, void: bool = True) -> Clip:
    """Noise, a frame without objects, an object that comes late, and a border of void."""
    generator = torch.Generator().manual_seed(length)
    labels = torch.zeros(length, 40, 60, dtype=torch.uint8)
    for time in range(length):
        labels[time, 5 : 15 + time, 5 + 2 * time : 15 + 2 * time] = 1
        labels[time, 22:34, 20 - time : 34 - time] = 2
    if length > 5:
        labels[3] = 0
        labels[4:, 2:12, 40:55] = 3
    if void:
        labels[:, :, -3:] = VOID
    if binary:
        labels = labels.clamp(max=1) * VOID
    frames = torch.randint(0, 256, (length, 3, 40, 60), dtype=torch.uint8, generator=generator)
    return Clip(name, frames, labels)


def guess(video: Video) -> Iterator[tuple[Frame, Tensor]]:
    """Some right, some wrong: five segments that depend on the image and on the truth."""
    for frame in video:
        assert frame.labels is not None
        blocks = (frame.image[0].int() // 90 + 2 * (torch.arange(60) > 30)).to(torch.uint8)
        yield frame, torch.where(frame.labels == 1, 1, blocks)


def assert_same(live: Report, filed: Report) -> None:
    """Everything but speed."""
    assert list(live.scores) == list(filed.scores) and live.scores
    assert list(live.curves) == list(filed.curves)
    assert live.protocol == filed.protocol
    speed = ("frames", "seconds", "frames_per_second")
    assert {name: fact for name, fact in live.facts.items() if name not in speed} == dict(filed.facts)


@pytest.mark.parametrize("frames", [None, 7])
@pytest.mark.parametrize(
    "protocol",
    [
        *("davis16-unsupervised", "davis17-unsupervised", "discovery", "movi-e-224", "ytvis2021-chunks"),
        *("ytvis2021", "segtrack2", "vos-benchmark"),
    ],
)
def test_live_labels_score_as_their_files_do(protocol: str, frames: int | None, tmp_path: Path) -> None:
    chosen = DISCOVERY if protocol == "discovery" else load_protocol(protocol)
    binary = protocol == "davis16-unsupervised"
    clips = [busy("a", length=14, binary=binary), busy("b", length=9, binary=binary), busy("c", length=2)]
    label_video = grid_floor(rows=2, columns=3) if binary else guess
    for clip in clips:
        assert clip.labels is not None
        for time, truth in enumerate(clip.labels[:frames]):
            write_labels(tmp_path / "truth" / clip.name / f"{time:05d}.png", truth)
    videos = [clip_video(clip) for clip in clips]
    predict(label_video, videos, tmp_path / "predicted", progress=False)
    live = evaluate_discovery(label_video, videos, protocol=chosen, frames=frames, progress=False)
    files = tmp_path / "predicted", tmp_path / "truth"
    assert_same(live, evaluate(*files, chosen, ignore_extra_frames=frames is not None))
    if frames is None:
        assert_same(live, score(tmp_path / "predicted", videos, protocol=chosen, progress=False))


@pytest.mark.parametrize("protocol", ["davis16-val", "davis17-val", "vos-benchmark", "burst-jf"])
def test_live_lock_on_scores_as_its_files_do(protocol: str, tmp_path: Path) -> None:
    binary = protocol == "davis16-val"
    clips = [busy("a", length=12, binary=binary, void=False), busy("b", length=5, binary=binary, void=False)]
    for clip in clips:
        assert clip.labels is not None
        for time, truth in enumerate(clip.labels):
            write_labels(tmp_path / "truth" / clip.name / f"{time:05d}.png", truth)
    videos = [clip_video(clip) for clip in clips]
    live = evaluate_lock_on(CopyFirstMask(), videos, protocol=protocol, progress=False)
    label_video = follow_protocol(CopyFirstMask(), load_protocol(protocol))
    predict(label_video, videos, tmp_path / "p", progress=False)
    assert_same(live, evaluate(tmp_path / "p", tmp_path / "truth", protocol))
    assert 0 < live.mean("J&F") < 1


def test_a_video_too_short_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    videos = [clip_video(scene("long")), clip_video(scene("short", length=2))]
    report = evaluate_lock_on(CopyFirstMask(), videos, progress=False)
    assert report.videos == ("long",)
    assert report.facts["incomplete"] == (
        "2 of the 30 sequences of davis17-val; nothing is scored in short: too short, or no object in a "
        "scored frame"
    )
    assert "leaves out of its means: short" in caplog.text
    with pytest.raises(ValueError, match="every sequence is too short"):
        evaluate_lock_on(CopyFirstMask(), videos[1:], progress=False)


@pytest.mark.parametrize(
    ("protocol", "lacking"),
    [("sav-val", "own files"), ("lvos2-val", r"\*_meta.json"), ("ytvos2018-val", "the meta.json")],
)
def test_what_videos_do_not_carry_is_asked_for_in_one_line(
    protocol: str, lacking: str, tmp_path: Path
) -> None:
    message = rf"{protocol} needs .*{lacking}.*mode=predict, then .*eval/score.py .*--protocol {protocol}"
    with pytest.raises(ValueError, match=message) as raised:
        evaluate_lock_on(CopyFirstMask(), [clip_video(scene())], protocol=protocol, progress=False)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=message):
        score(tmp_path, [clip_video(scene())], protocol=protocol, progress=False)


def test_listed_frames_are_followed_where_their_list_lies_beside_the_videos(tmp_path: Path) -> None:
    clip = busy("a", length=11, void=False)
    assert clip.labels is not None
    for time in range(11):
        write_image(tmp_path / "set/JPEGImages/a" / f"{5 * time:08d}.png", clip.frames[time])
        write_labels(tmp_path / "set/Annotations/a" / f"{5 * time:08d}.png", clip.labels[time])
    ranges = {"1": {"start": 0, "end": 40, "frame_nums": 9}, "3": {"start": 20, "end": 50, "frame_nums": 7}}
    objects = {identity: {"frame_range": one} for identity, one in ranges.items()}
    (tmp_path / "set/valid_meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    videos = FolderDataset(tmp_path / "set").videos()
    live = evaluate_discovery(guess, videos, protocol=load_protocol("lvos2-val"), progress=False)
    predict(guess, videos, tmp_path / "predicted", progress=False)
    assert_same(live, evaluate(tmp_path / "predicted", tmp_path / "set/Annotations", "lvos2-val"))


def test_labels_that_no_file_may_hold_are_refused_live() -> None:
    def wrong(value: int, width: int) -> Any:
        return lambda video: ((frame, torch.full((40, width), value).byte()) for frame in video)

    for label_video, message in ((wrong(VOID, 60), "255"), (wrong(1, 61), r"\(40, 61\), its truth")):
        with pytest.raises(ValueError, match=message):
            evaluate_discovery(label_video, [clip_video(scene())], progress=False)
    with pytest.raises(ValueError, match="5 scored frames of scene got no labels"):
        evaluate_discovery(lambda video: (), [clip_video(scene())], progress=False)
