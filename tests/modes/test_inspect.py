"""mode=inspect: scores per frame, the run's table, and the files it writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.test_inspect_page import report_of
from tests.modes.runs import DATA, composed
from vosssl.__main__ import main
from vosssl.clip import Clip
from vosssl.data.video import clip_video
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.modes.build import create_segmenter
from vosssl.modes.inspect import measured, run_summary
from vosssl.modes.inspect_masks import watched_masks


def perfect_clip(*, frames: int = 3) -> InspectedClip:
    truth = torch.zeros(frames, 16, 16, dtype=torch.uint8)
    truth[:, 2:8, 2:8], truth[:, 9:14, 9:14] = 1, 2
    images = torch.zeros(frames, 3, 16, 16, dtype=torch.uint8)
    return InspectedClip(name="a", frames=images, predicted=truth + 1, truth=truth)


def test_a_perfect_clip_scores_one_in_every_frame() -> None:
    clip = measured(perfect_clip())
    assert clip.metrics["video/fg_ari"] == pytest.approx(1)
    assert set(clip.frame_metrics) == {"FG-ARI", "J", "F"}
    for name in ("FG-ARI", "J", "F"):
        assert list(clip.frame_metrics[name]) == pytest.approx([1, 1, 1])


def test_frames_without_truth_have_no_score() -> None:
    clip = measured(replace(perfect_clip(), labelled=torch.tensor([True, False, True])))
    values = list(clip.frame_metrics["J"])
    assert math.isnan(values[1])
    assert [values[0], values[2]] == pytest.approx([1, 1])


def test_a_clip_without_truth_stays_as_it_is() -> None:
    clip = replace(perfect_clip(), truth=None)
    assert measured(clip) is clip


def test_the_table_is_that_of_the_run_beside_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    report = json.loads((checkpoint.parent / "report.json").read_text())
    with composed("mode=inspect", f"resume={checkpoint}") as cfg:
        rows, _ = run_summary(cfg)
    assert rows[0][0] == "slots-synthetic"
    assert rows[0][1]["video/mbo"] == report["model"]["video/mbo"]
    with composed("mode=inspect", f"resume={tmp_path / 'alone.ckpt'}") as cfg:
        assert run_summary(cfg) == ([], [])


def test_a_page_and_a_sheet_are_written(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mode=inspect", f"resume={checkpoint}", "inspect.clips=1", "device=cpu"]) == 0
    (page,) = tmp_path.glob("runs/tiny/*/inspect.html")
    assert "slots-synthetic on synthetic" in page.read_text()
    assert page.with_suffix(".png").is_file()


def inspected(folder: Path, monkeypatch, *method: str) -> tuple[dict, str]:
    """What the page of two generated clips of three frames holds, and its text."""
    monkeypatch.chdir(folder)
    assert main(["mode=inspect", *method, "data=synthetic", *DATA, "device=cpu", "exp_name=seen"]) == 0
    (page,) = folder.glob("runs/seen/*/inspect.html")
    assert page.with_suffix(".png").is_file()
    return report_of(page)["clips"][0], page.read_text()


def test_classes_are_shown_with_their_probabilities(tmp_path: Path, monkeypatch) -> None:
    clip, text = inspected(tmp_path, monkeypatch, "method=segformer-b0")
    assert clip["slotNames"] == ["background", "class 1"] and clip["features"] is None
    assert set(clip["metrics"]) == {"J&F", "J", "F"}  # of the foreground, not of discovery
    assert len(clip["frameMetrics"]["confidence"]) == 3
    assert all(0.5 <= value <= 1 for value in clip["frameMetrics"]["confidence"])
    assert "this model has none" in text


@pytest.mark.parametrize("network", ["floor-colour-propagation", "motion-features-propagation"])
def test_what_was_followed_is_shown_beside_its_features(network: str, tmp_path: Path, monkeypatch) -> None:
    clip, _ = inspected(tmp_path, monkeypatch, f"method={network}")
    assert clip["slotNames"][:2] == ["background", "object 1"]
    assert clip["features"]["url"].startswith("data:image/jpeg")
    assert clip["frameMetrics"]["confidence"][0] == pytest.approx(1, abs=1e-3)  # as given
    assert set(clip["metrics"]) == {"J&F", "J", "F"}


def test_what_is_found_without_slots_is_scored_as_found(tmp_path: Path, monkeypatch) -> None:
    clip, _ = inspected(tmp_path, monkeypatch, "method=floor-grid")
    assert clip["slotNames"][:2] == ["background", "object 1"] and "video/fg_ari" in clip["metrics"]


def test_of_a_method_that_looks_at_whole_videos_there_are_labels_alone() -> None:
    labels = torch.ones(3, 32, 48, dtype=torch.uint8)
    video = clip_video(Clip("a", torch.randint(256, (3, 3, 32, 48), dtype=torch.uint8), labels=labels))
    clip = watched_masks(lambda frames: zip(frames, labels * 2, strict=True), video, frames=2)
    assert clip.masks is None and torch.equal(clip.predicted, labels[:2] * 2)


def test_features_are_seen_where_nothing_can_be_followed() -> None:
    video = clip_video(Clip("bare", torch.randint(256, (3, 3, 32, 48), dtype=torch.uint8)))
    segmenter = create_segmenter("floor-colour-propagation", size=32)
    clip = watched_masks(segmenter, video)
    assert clip.features is not None and clip.features.shape == (3, 3, 4, 6)
    assert clip.masks is None and clip.truth is None and clip.predicted.max() == 0
    assert measured(clip) is clip


def test_an_object_that_comes_later_has_no_mask_before() -> None:
    labels = torch.zeros(3, 32, 48, dtype=torch.uint8)
    labels[:, 4:12, 4:20], labels[1:, 20:30, 24:44] = 1, 2
    frames = torch.randint(256, (3, 3, 32, 48), dtype=torch.uint8)
    clip = watched_masks(create_segmenter("copy-first-mask"), clip_video(Clip("late", frames, labels=labels)))
    assert clip.masks is not None and tuple(clip.slot_ids) == (0, 1, 2)
    assert clip.masks[0, 2].max() == 0 and clip.masks[1, 2].max() > 0.9
    torch.testing.assert_close(clip.predicted, labels)
