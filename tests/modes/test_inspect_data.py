"""mode=inspect of data: what is meant by a command line, and the files it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.modes.runs import DATA, composed
from vosssl.__main__ import main
from vosssl.data.io import write_image
from vosssl.modes.inspect_data import evaluation_reads, is_meant, training_reads
from vosssl.modes.session import data_of

SMALL = ("inspect.clips=2", "device=cpu")


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["data=synthetic"], True),
        (["hparam=slots"], True),
        (["data=synthetic", "method=floor-grid"], False),
        (["hparam=slots", "weights=a.pt"], False),
        (["data=synthetic", "resume=a.ckpt"], False),
        ([], False),
    ],
)
def test_data_are_meant_where_no_model_was_chosen(command: list[str], meant: bool) -> None:
    with composed("mode=inspect", *command) as cfg:
        assert is_meant(cfg) is meant


def test_the_clips_are_those_of_a_training_run_from_the_step_asked_for() -> None:
    with composed(
        "mode=inspect", "hparam=slots", *DATA, "inspect.clips=5", "train.batch_size=2", "seed=3"
    ) as cfg:
        first = [read().draw for read in training_reads(cfg, data_of(cfg, "train"))]
        cfg.inspect.step = 1
        later = [read().draw for read in training_reads(cfg, data_of(cfg, "train"))]
        assert [read().part for read in evaluation_reads(cfg, data_of(cfg, "val"))] == ["val", "val"]
    assert [draw.step for draw in first] == [0, 0, 1, 1, 2]
    assert later[:3] == first[2:]


def test_a_page_and_a_sheet_are_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mode=inspect", "data=synthetic", *DATA, *SMALL]) == 0
    (page,) = tmp_path.glob("runs/inspect/*/inspect.html")
    assert "<h1>synthetic: the data</h1>" in page.read_text()
    assert page.with_suffix(".png").is_file()


def footage(root: Path, *, frames: int = 3) -> Path:
    for index in range(frames):
        picture = torch.randint(255, (3, 24, 32), dtype=torch.uint8)
        write_image(root / "JPEGImages" / "a" / f"{index:05d}.png", picture)
    return root


def test_a_part_that_is_not_on_disk_is_named_and_the_other_shown(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    root = footage(tmp_path / "footage")  # three frames: too short for training clips of four
    command = ["mode=inspect", "data=folder", f"data.root={root}", "data.annotations=null", *SMALL]
    assert main(command) == 0
    assert "train       cannot be looked at" in capfd.readouterr().err
    (page,) = tmp_path.glob("runs/inspect/*/inspect.html")
    assert "training clips cannot be opened" in page.read_text()


def test_data_that_are_not_there_end_in_one_line(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["mode=inspect", "data=davis16", f"data.root={tmp_path / 'nowhere'}", *SMALL])
    assert "no dataset at" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
