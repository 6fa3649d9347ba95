"""mode=eval by its command line: discovery and lock-on, protocols, and what is said beside the table."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from vosssl.__main__ import main
from vosssl.data.io import read_labels, write_image, write_labels

SCORE = Path(__file__).parents[2] / "eval" / "score.py"
SMALL = ("device=cpu", "data=synthetic", "data.val.size=32", "data.val.count=2", "data.val.frames=4")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_late(root: Path, *, names: tuple[str, ...] = ("a",), step: int = 0) -> Path:
    """Footage in which object 2 appears in frame 3; both stand still, or move right by `step` a frame."""
    labels = torch.zeros(24, 32, dtype=torch.uint8)
    labels[2:10, 2:12] = 1
    both = labels.clone()
    both[12:20, 14:26] = 2
    for name in names:
        for time in range(7):
            shown = (both if time >= 3 else labels).roll(step * time, dims=1)
            image = (shown.float() / 3).expand(3, -1, -1).contiguous()
            write_image(root / "JPEGImages" / name / f"{time:05d}.png", image)
            write_labels(root / "Annotations" / name / f"{time:05d}.png", shown)
    return root


def evaluated(*arguments: str) -> dict[str, Any]:
    """report.json of a run of mode=eval."""
    assert main(["mode=eval", "device=cpu", "exp_name=e", *arguments]) == 0
    report = max(Path("runs/e").glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(report.read_text())


def lock_on(root: Path, *arguments: str) -> dict[str, Any]:
    """The same, with the first masks copied."""
    followed = ("method=copy-first-mask", "evaluate.task=lock_on", "data=folder", f"data.root={root}")
    return evaluated(*followed, "floors=null", *arguments)


def refusal(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a run says which ends with 1."""
    with pytest.raises(SystemExit) as stopped:
        main(["mode=eval", "device=cpu", *arguments])
    assert stopped.value.code == 1
    (line,) = [one for one in capfd.readouterr().err.splitlines() if one.startswith("vosssl: ")]
    return line


def test_discovery_is_the_default_and_stands_beside_the_floors(capfd: pytest.CaptureFixture[str]) -> None:
    report = evaluated("method=floor-grid", *SMALL)
    assert report["protocol"] == "discovery"
    assert {"video/fg_ari", "video/mbo", "J&F"} <= report["model"].keys()
    assert len(report["floors"]) >= 3
    said = capfd.readouterr().err
    assert "protocol discovery, 2 videos" in said
    assert "may be compared with" not in said and "incomplete" not in said


def test_lock_on_without_a_protocol_is_compared_with_the_copied_first_mask(
    capfd: pytest.CaptureFixture[str],
) -> None:
    report = evaluated("method=copy-first-mask", "evaluate.task=lock_on", *SMALL)
    assert report["protocol"] == "lock-on"
    assert report["floors"]["copy first mask"] == report["model"]
    said = capfd.readouterr().err
    assert "protocol lock-on, 2 videos" in said and "may be compared with" not in said


def test_a_protocol_says_what_its_numbers_may_be_compared_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = lock_on(write_late(tmp_path / "set"), "evaluate.protocol=vos-benchmark")
    assert report["protocol"] == "vos-benchmark"
    said = capfd.readouterr().err
    assert "may be compared with: J&F of papers that score with vos-benchmark" in said
    assert "incomplete" not in said


def test_what_is_missing_of_a_set_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = write_late(tmp_path / "set", names=("a", "b"))
    lock_on(root, "evaluate.protocol=davis17-val", "evaluate.frames=5", "evaluate.limit=1")
    said = capfd.readouterr().err
    assert "incomplete: 1 of the 30 sequences of davis17-val; first 5 frames of each" in said


def test_a_protocol_that_needs_files_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = ("method=copy-first-mask", "evaluate.task=lock_on", "evaluate.protocol=sav-val")
    line = refusal(capfd, *chosen, "data=folder", f"data.root={write_late(tmp_path / 'set')}")
    assert "protocol sav-val needs each object's own files" in line
    assert "python eval/score.py PREDICTIONS TRUTH --protocol sav-val" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("method=copy-first-mask", "evaluate.task=tracking", *SMALL), "expected discovery or lock_on"),
        (("method=copy-first-mask", "evaluate.task=lock_on", "evaluate.protocol=davis17-vall", *SMALL),
         "did you mean davis17-val"),
        (("method=copy-first-mask", "evaluate.task=lock_on", "evaluate.protocol=fbms59", *SMALL),
         "fbms59 gives no prompt"),
        (("method=copy-first-mask",), "data="),
        (("method=motion-features", *SMALL), "gives features, not masks"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capfd, *arguments)


def test_late_objects_are_followed_where_they_count_and_only_there(tmp_path: Path) -> None:
    root = write_late(tmp_path / "set")
    late = lock_on(root, "evaluate.protocol=vos-benchmark")
    assert late["model"]["J&F"] == 1.0  # nothing moves, so copies are right
    assert objects_in(newest_scores()) == {"1", "2"}
    first = lock_on(root, "evaluate.protocol=davis17-val")
    assert first["model"]["J&F"] == 1.0  # object 2 does not count, and is no id too many
    assert objects_in(newest_scores()) == {"1"}


def newest_scores() -> Path:
    """scores.csv of the last run of mode=eval."""
    return max(Path("runs/e").glob("*/scores.csv"), key=lambda path: path.stat().st_mtime_ns)


def objects_in(scores: Path) -> set[str]:
    with scores.open(encoding="utf-8", newline="") as file:
        return {row["object"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("prompt", ["beside", "folder", None])
def test_the_live_scores_are_those_of_predicted_files(prompt: str | None, tmp_path: Path) -> None:
    root = write_late(tmp_path / "set", step=1)
    truth = root / "Annotations"
    given = prompt
    if prompt == "folder":  # first appearances only, as YouTube-VOS valid has them
        given = str(tmp_path / "given")
        for time in (0, 3):
            labels = read_labels(truth / "a" / f"{time:05d}.png")
            write_labels(Path(given) / f"{time:05d}.png", labels * (labels == 1 + (time > 0)))
    chosen = [] if given is None else [f"predict.prompt={given}"]
    source = f"predict.source={root / 'JPEGImages' / 'a'}"
    assert main(["mode=predict", "method=copy-first-mask", "device=cpu", "exp_name=p", source, *chosen]) == 0
    (predicted,) = Path("runs/p").glob("*/labels")
    arguments = [str(predicted), str(truth), "--protocol", "vos-benchmark", "--csv", "scored.csv"]
    assert runpy.run_path(str(SCORE))["main"](arguments) == 0
    live = lock_on(root, "evaluate.protocol=vos-benchmark")
    assert 0 < live["model"]["J&F"] < 1
    assert newest_scores().read_text() == Path("scored.csv").read_text()
