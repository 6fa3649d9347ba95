"""Reports: means, tables, files."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vosssl.engine.report import Comparison, Report, format_table
from vosssl.engine.scoring import Curve
from vosssl.metrics.score import Score

SCORES = [
    Score("dog", 1, "J", 0.8),
    Score("dog", 1, "F", 0.6),
    Score("cat", 1, "J", 0.5),
    Score("cat", 1, "F", 0.4),
    Score("cat", 2, "J", 0.2),
    Score("cat", 2, "F", 0.5),
    Score("dog", None, "image/mbo", 0.9, 10),
    Score("cat", None, "image/mbo", 0.3, 30),
]
REPORT = Report(SCORES, protocol="davis17-val", curves=[Curve("dog", 1, "J", ("00001", "00002"), (0.7, 0.9))])


def test_means_are_over_objects_and_weighted() -> None:
    assert REPORT.mean("J") == pytest.approx(1.5 / 3)
    assert REPORT.mean("J", video="cat") == pytest.approx(0.35)
    assert REPORT.mean("J&F") == pytest.approx((0.5 + 0.5) / 2)
    assert REPORT.mean("image/mbo") == pytest.approx((9 + 9) / 40)
    assert math.isnan(REPORT.mean("video/ari"))


def test_metrics_and_videos_keep_their_order() -> None:
    assert REPORT.metrics == ("image/mbo", "J&F", "J", "F")
    assert REPORT.videos == ("dog", "cat")
    assert REPORT.per_video("J") == {"dog": 0.8, "cat": pytest.approx(0.35)}


def test_the_table_is_aligned_and_ends_with_the_mean() -> None:
    lines = REPORT.table(columns=["J&F", "J"]).splitlines()
    assert lines[0] == "protocol davis17-val, 2 videos"
    assert lines[-1].split() == ["mean", "0.500", "0.500"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_json_holds_global_sequences_objects_and_frames(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    REPORT.to_json(path)
    content = json.loads(path.read_text())
    assert content["global"]["J&F"] == pytest.approx(0.5)
    dog = content["sequences"]["dog"]["objects"]["1"]
    assert dog["J"] == 0.8
    assert dog["J/frames"] == {"00001": 0.7, "00002": 0.9}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_json_has_an_interval_beside_every_mean_and_keeps_it(tmp_path: Path) -> None:
    scores = [
        Score(video, 1, metric, value)
        for metric in ("J", "F")
        for video, value in (("dog", 0.4), ("cat", 0.6))
    ]
    report = Report([*scores, Score("dog", None, "video/ari", 0.5)], protocol="p", facts={"speed": 3.0})
    content = report.as_dict()
    assert content["intervals"]["J"] == pytest.approx([0.4, 0.6])  # each of two videos alone is likely
    assert content["intervals"]["J&F"] == pytest.approx([0.4, 0.6])
    assert content["intervals"]["video/ari"] is None  # one video says nothing of others
    assert content["intervals"].keys() == content["global"].keys()
    report.to_json(tmp_path / "report.json")
    read = Report.from_json(tmp_path / "report.json")
    assert read.as_dict() == content
    assert read.facts == {"speed": 3.0}


def test_csv_keeps_every_score_in_full(tmp_path: Path) -> None:
    Report([Score("a", 3, "J", 1 / 3)]).to_csv(tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert float(rows[0]["value"]) == 1 / 3
    assert (rows[0]["video"], rows[0]["object"], rows[0]["metric"]) == ("a", "3", "J")


def test_a_comparison_puts_the_model_above_its_floors(tmp_path: Path) -> None:
    model = Report([Score("a", None, "video/ari", 0.8), Score("a", None, "video/mbo", 0.6)])
    floor = Report([Score("a", None, "video/ari", 0.1)])
    comparison = Comparison("slots", model, {"grid 2x3": floor}, {"steps": 300, "seconds": 12.5})
    lines = comparison.table().splitlines()
    assert lines[1].split() == ["video/ari", "video/mbo"]
    assert lines[3].split() == ["slots", "0.800", "0.600"]
    assert lines[4].split() == ["grid", "2x3", "0.100", "-"]
    comparison.to_json(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["model"] == {"video/ari": 0.8, "video/mbo": 0.6}
    assert content["floors"] == {"grid 2x3": {"video/ari": 0.1}}
    assert content["steps"] == 300
    assert content["sequences"]["a"]["video/mbo"] == 0.6


def test_nan_becomes_null_in_json_and_a_dash_in_tables(tmp_path: Path) -> None:
    report = Report([Score("a", None, "video/mbo", math.nan)])
    report.to_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["global"] == {"video/mbo": None}
    assert format_table(["", "x"], [["a", math.nan]]).splitlines()[-1].split() == ["a", "-"]


def test_names_in_any_script_are_written_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    program = (
        "from vosssl.engine.report import Report; from vosssl.metrics.score import Score;"
        f"Report([Score('h\\u00fcpfend', None, 'video/ari', 0.5)]).to_csv({str(path)!r})"
    )
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], check=True, env=plain)
    assert "hüpfend" in path.read_text(encoding="utf-8")
