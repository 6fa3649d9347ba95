"""eval/compare.py: one table, refusals with exit code 2, files written whole."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vosssl.data.io import write_labels
from vosssl.engine.report import Report
from vosssl.engine.scoring import Curve
from vosssl.metrics.score import Score

FRAMES = ("00001", "00002")


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", Path(__file__).parents[2] / "eval/compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


def write(path: Path, values: dict[str, float], *, protocol: str = "davis17-val") -> str:
    scores = [Score(video, 1, metric, value) for video, value in values.items() for metric in ("J", "F")]
    curves = [
        Curve(video, 1, metric, FRAMES, (value, value))
        for video, value in values.items()
        for metric in ("J", "F")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Report(scores, protocol=protocol, curves=curves).to_json(path)
    return str(path)


@pytest.fixture
def reports(tmp_path: Path) -> tuple[str, str]:
    floor = write(tmp_path / "floor.json", {"dog": 0.4, "cat": 0.6})
    return floor, write(tmp_path / "ours.json", {"dog": 0.9, "cat": 0.5})


def test_two_reports_become_one_table(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([*reports, "--markdown", str(tmp_path / "table.md")]) == 0
    shown = capsys.readouterr().out
    assert "+0.200 [-0.100, +0.500]" in shown
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["cat", "dog"]
    assert "| dog | 0.400 | 0.900 | +0.500 |" in (tmp_path / "table.md").read_text()


def test_three_reports_are_each_held_against_the_first(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = write(tmp_path / "best.json", {"dog": 0.9, "cat": 0.9})
    table = tmp_path / "table.json"
    assert compare.main([*reports, best, "--json", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "ours - floor" in shown and "best - floor" in shown
    differences = json.loads(table.read_text())["differences"]
    assert [round(differences[name]["metrics"]["J&F"]["mean"], 6) for name in differences] == [0.2, 0.4]


@pytest.mark.parametrize("metric", ["video/fg_ari", "G"])
def test_reports_of_any_kind_are_compared(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    names = {"G": ("J/seen", "F/seen", "J/unseen", "F/unseen")}.get(metric, (metric,))
    paths = []
    for name, gain in (("floor", 0.0), ("ours", 0.1)):
        scores = [Score(video, None, one, 0.4 + gain) for video in ("dog", "cat") for one in names]
        paths.append(tmp_path / f"{name}.json")
        Report(scores, protocol="p").to_json(paths[-1])
    assert compare.main([*map(str, paths), "--metric", metric]) == 0
    assert "+0.100 [+0.100, +0.100]" in capsys.readouterr().out


def test_wrong_paths_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    for script in ("compare.py", "score.py"):
        code = (
            "import runpy, sys\n"
            f"sys.argv = [{script!r}, {str(tmp_path / 'none.json')!r}, {str(tmp_path / 'other')!r}]\n"
            "try:\n"
            f"    runpy.run_path({str(Path(__file__).parents[2] / 'eval' / script)!r}, run_name='__main__')\n"
            "except SystemExit as end:\n"
            "    assert end.code == 2, end.code\n"
            "assert 'torch' not in sys.modules\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "none.json" in done.stderr and len(done.stderr.splitlines()) == 1


def test_other_protocols_are_refused_unless_forced(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other.json", {"dog": 0.4, "cat": 0.6}, protocol="davis16-val")
    table = tmp_path / "table.md"
    assert compare.main([reports[0], other, "--markdown", str(table)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "floor follows protocol davis17-val, other follows davis16-val" in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not table.exists()
    assert compare.main([reports[0], other, "--force", "--markdown", str(table)]) == 0
    assert "* not a fair comparison: floor follows" in capsys.readouterr().out
    assert "\\* not a fair comparison" in table.read_text()


def test_other_sequences_are_refused(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write(tmp_path / "part.json", {"dog": 0.4})
    assert compare.main([reports[0], part]) == 2
    assert "floor has sequence cat that part has not scored" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"a": 1}', '{"sequences": 3}'])
def test_a_file_that_is_no_report_is_one_line(
    compare: ModuleType,
    reports: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
) -> None:
    path = tmp_path / "missing.json"
    if text is not None:
        path.write_text(text)
    assert compare.main([reports[0], str(path)]) == 2
    shown = capsys.readouterr().err
    assert "missing.json" in shown
    assert len(shown.splitlines()) == 1


def test_wrong_options_are_refused_in_a_line(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = str(tmp_path / "page.html")
    for options, message in (
        (["--names", "a"], "expected 2 different ones"),
        (["--metric", "video/ari"], "they share J&F, J, F"),
        ([reports[0], "--html", page, "--names", "a", "b", "c"], "shows one report or two"),
        (["--html", page, "--predictions", "x"], "1 folders for 2 reports"),
    ):
        assert compare.main([*reports, *options]) == 2
        assert message in capsys.readouterr().err
    assert not Path(page).exists()


def test_reports_of_one_file_name_are_told_apart_by_their_folders(compare: ModuleType) -> None:
    paths = [Path("runs/a/report.json"), Path("runs/b/report.json")]
    assert compare.unique_names(paths) == ["a/report", "b/report"]
    assert compare.unique_names([Path("a.json"), Path("b.json")]) == ["a", "b"]


def test_a_page_with_pictures_is_written(
    compare: ModuleType, reports: tuple[str, str], tmp_path: Path
) -> None:
    labels = torch.zeros(8, 12, dtype=torch.uint8)
    labels[2:5, 2:6] = 1
    for folder in ("truth", "one", "two"):
        for video in ("dog", "cat"):
            for frame in FRAMES:
                write_labels(tmp_path / folder / video / f"{frame}.png", labels)
    page = tmp_path / "page.html"
    folders = [str(tmp_path / name) for name in ("one", "two")]
    options = ["--html", str(page), "--truth", str(tmp_path / "truth"), "--predictions", *folders]
    assert compare.main([*reports, *options]) == 0
    text = page.read_text(encoding="utf-8")
    assert "image/png" in text
    assert "floor and ours" in text
