"""eval/score.py --html: a page per protocol, nothing written when it cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vosssl.data.io import write_image, write_labels


@pytest.fixture(scope="module")
def score() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "score_with_pages", Path(__file__).parents[2] / "eval/score.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset of one video of four frames, and predictions that are a little off."""
    for t in range(4):
        labels = torch.zeros(16, 24, dtype=torch.uint8)
        labels[4:10, 4 + t : 12 + t] = 1
        write_labels(tmp_path / "data" / "Annotations" / "dog" / f"{t:05d}.png", labels)
        write_labels(tmp_path / "ours" / "dog" / f"{t:05d}.png", labels.roll(1, dims=1))
        write_image(tmp_path / "data" / "JPEGImages" / "dog" / f"{t:05d}.jpg", torch.rand(3, 16, 24))
    return tmp_path


def test_a_page_is_written_with_frames_from_beside_the_truth(score: ModuleType, data: Path) -> None:
    page = data / "page.html"
    options = ["--protocol", "davis17-val", "--html", str(page), "--quiet"]
    assert score.main([str(data / "ours"), str(data / "data"), *options]) == 0
    text = page.read_text(encoding="utf-8")
    assert "image/jpeg" in text
    assert "<h1>ours</h1>" in text


def test_several_protocols_make_several_pages(score: ModuleType, data: Path) -> None:
    options = ["--protocol", "davis17-val,davis17-unsupervised", "--html", str(data / "page.html"), "--quiet"]
    assert score.main([str(data / "ours"), str(data / "data"), *options]) == 0
    pages = sorted(path.name for path in data.glob("*.html"))
    assert pages == ["page.davis17-unsupervised.html", "page.davis17-val.html"]


def test_missing_frames_leave_nothing_behind(
    score: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--html", str(data / "page.html"), "--json", str(data / "report.json"), "--quiet"]
    folders = [str(data / "ours"), str(data / "data"), "--frames", str(data / "nowhere")]
    assert score.main([*folders, *out]) == 2
    assert "no folder of frames" in capsys.readouterr().err
    assert not list(data.glob("*.html")) + list(data.glob("*.json"))
