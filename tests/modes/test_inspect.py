"""mode=inspect: scores per frame, the run's table, and the files it writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.modes.runs import DATA, composed
from vosssl.__main__ import main
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.modes.inspect import measured, run_summary


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


def test_a_method_without_slots_is_refused(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["mode=inspect", "method=floor-grid", "data=synthetic", *DATA, "device=cpu"])
    assert "floor-grid has no slots to look at" in capfd.readouterr().err
