"""A method that looks at the whole video first, through the command line; gated propagation beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.modes.runs import DATA
from vosssl.__main__ import main
from vosssl.data.io import read_labels, write_image
from vosssl.data.synthetic import SyntheticClips

OFFLINE = "method=slots-discover-and-track"
SMALL = ("device=cpu", "floors=null")


def result(name: str) -> dict[str, Any]:
    (path,) = Path().glob(f"runs/*/*/{name}")
    return json.loads(path.read_text())


def test_a_video_is_discovered_and_tracked(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = SyntheticClips(size=32, frames=6, count=1)[0]
    for number, frame in enumerate(clip.frames):
        write_image(Path("frames") / f"{number:05d}.png", frame)
    source = ("predict.source=frames", "predict.limit=5", "predict.overlay=false")
    assert main(["mode=predict", f"resume={checkpoint}", OFFLINE, *source, *SMALL]) == 0
    assert result("report.json")["frames"] == 5
    written = sorted(Path().glob("runs/*/*/labels/frames/*.png"))
    assert [path.stem for path in written] == [f"{number:05d}" for number in range(5)]
    assert all(read_labels(path).shape == (32, 32) for path in written)


def test_discovery_is_scored_and_given_masks_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["mode=eval", f"resume={checkpoint}", OFFLINE, "data=synthetic", *DATA, *SMALL]
    assert main(command) == 0
    assert "video/mbo" in (next(Path().glob("runs/*/*/report.json"))).read_text()
    with pytest.raises(SystemExit):
        main([*command, "evaluate.task=lock_on"])
    assert "takes no masks" in capsys.readouterr().err


def test_gated_propagation_follows_given_masks(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    method = ("method=slots-gated-propagation", "evaluate.task=lock_on")
    assert main(["mode=eval", f"resume={checkpoint}", *method, "data=synthetic", *DATA, *SMALL]) == 0
    assert '"J"' in (next(Path().glob("runs/*/*/report.json"))).read_text()
