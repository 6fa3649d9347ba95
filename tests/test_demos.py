"""Every script in scripts/demo_*.py runs on a generated clip, stays short, and uses public names only."""

from __future__ import annotations

import ast
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vosssl
from tests.footage import FRAMES, SIZE, VIDEOS
from vosssl.data.io import read_labels

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
DEMOS = sorted(path.stem for path in SCRIPTS.glob("demo_*.py"))
LONGEST = 60  # lines
WITHOUT_WEIGHTS = ("--prompter", "grab-cut", "--segmenter", "motion-features-propagation")

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a demo as `python scripts/NAME.py …`, standing in the test's folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run_demo(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return str(capfd.readouterr().out)

    return run_demo


def centre(mask: torch.Tensor) -> tuple[int, int]:
    """x and y of a pixel in the middle of a mask (H, W)."""
    rows, columns = mask.nonzero(as_tuple=True)
    nearest = ((rows - rows.float().mean()) ** 2 + (columns - columns.float().mean()) ** 2).argmin()
    return int(columns[nearest]), int(rows[nearest])


def test_slots_are_drawn_over_a_video(run: Run, footage: Path, slots_checkpoint: Path) -> None:
    printed = run("demo_slots", footage / "video.mp4", slots_checkpoint)
    assert f"{FRAMES} frames" in printed
    drawn = vosssl.load_clip("slots.mp4")
    assert tuple(drawn.frames.shape) == (FRAMES, 3, *SIZE)


def test_a_mask_is_propagated(run: Run, footage: Path) -> None:
    printed = run("demo_propagate", footage / "video.mp4", footage / "first_mask.png")
    assert "objects (1, 2)" in printed
    labels = [read_labels(f"propagated/labels/video/{number:05d}.png") for number in range(FRAMES)]
    given = read_labels(footage / "first_mask.png")
    assert (labels[0] == given).float().mean() > 0.95
    truth = read_labels(footage / f"MINE/Annotations/{VIDEOS[0]}/{FRAMES - 1:05d}.png")
    copied = float((given == truth).float().mean())
    assert (labels[-1] == truth).float().mean() > copied, "no better than the first mask"


def test_a_click_becomes_a_track_without_a_window(run: Run, footage: Path) -> None:
    x, y = centre(read_labels(footage / "first_mask.png") == 1)
    printed = run("demo_click_and_track", footage / "video.mp4", *WITHOUT_WEIGHTS, "--click", x, y)
    assert "the mask has" in printed
    assert f"frame {FRAMES - 1}: confidence" in printed
    exported = Path("runs/click_and_track/video/export")
    assert json.loads((exported / "tracks.json").read_text())["frames"] == FRAMES


def test_objects_are_discovered_and_tracked(run: Run, footage: Path, slots_checkpoint: Path) -> None:
    printed = run("demo_discover_and_track", footage / "video.mp4", slots_checkpoint, "--spacing", 4)
    assert printed.rstrip().endswith("discovered")
    assert len(list(Path("discovered/labels/video").glob("*.png"))) == FRAMES


def test_a_folder_is_scored(run: Run, footage: Path) -> None:
    printed = run("demo_evaluate", footage / "PREDICTIONS", footage / "TRUTH", "--report", "report.json")
    report = vosssl.evaluate(footage / "PREDICTIONS", footage / "TRUTH", protocol="davis17-val")
    assert f"J&F {report.mean('J&F'):.3f}" in printed
    assert 0.5 < report.mean("J&F") < 1
    assert json.loads(Path("report.json").read_text())["protocol"] == "davis17-val"


def test_a_model_is_exported_and_says_the_same(run: Run, footage: Path) -> None:
    printed = run(
        "demo_export", footage / "video.mp4", "--mask", footage / "first_mask.png", "--also", "fp16"
    )
    assert Path("graphs/features.onnx").is_file() and Path("graphs/fp16/manifest.json").is_file()
    scores = [float(line.rstrip(",").split()[-1]) for line in printed.splitlines() if "J&F" in line]
    assert len(scores) == 2 and scores[0] >= 0.999 and scores[1] > 0.9


def test_a_file_stands_in_for_the_camera(run: Run, footage: Path) -> None:
    mask = read_labels(footage / "first_mask.png") == 1
    rows, columns = mask.nonzero(as_tuple=True)
    box = (columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2)
    printed = run(
        "demo_live_camera",
        footage / "video.mp4",
        *WITHOUT_WEIGHTS,
        "--box",
        *map(int, box),
        "--out",
        "live.mp4",
    )
    assert f"{FRAMES} frames" in printed
    shown = vosssl.load_clip("live.mp4").frames.float()  # (T, 3, H, W)
    plain = vosssl.load_clip(footage / "video.mp4").frames.float()
    tint = (shown - plain).abs().mean(1)  # (T, H, W)
    assert tint[0][mask].mean() > 2 * tint[0][~mask].mean(), "the object in the box is not what was tinted"


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_is_short_and_tried_here(name: str) -> None:
    text = (SCRIPTS / f"{name}.py").read_text()
    assert len(text.splitlines()) < LONGEST
    assert f'"{name}"' in Path(__file__).read_text(), f"no test runs {name}.py"
    assert f"python scripts/{name}.py" in text, "the docstring shows no command"


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_uses_public_names_only(name: str) -> None:
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
    imported = [
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    attributes = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    ours = [(module, imported_name) for module, imported_name in imported if module.startswith("vosssl")]
    assert not [module for module, _ in ours if module.startswith(("vosssl.modes", "vosssl.methods"))]
    assert not [
        word for word in [*attributes, *(name for pair in ours for name in pair)] if word.startswith("_")
    ]
    from_package = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name) and node.value.id == "vosssl"}  # fmt: skip
    assert from_package <= set(vosssl.__all__)
