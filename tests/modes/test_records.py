"""Evaluation and training on TFRecords and tar shards, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.movi_records import write_movi
from tests.data.test_shards import write_shards
from vosssl.__main__ import main

SHARDS = (
    "data.train_shards='movi_e-train-{000000..000001}.tar'",
    "data.val_shards='movi_e-validation-{000000..000001}.tar'",
)


def test_the_grid_is_scored_on_movi_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movi(tmp_path / "tfds", size=(32, 32))
    monkeypatch.chdir(tmp_path)
    run = ["mode=eval", "method=floor-grid", "data=movi_e", f"data.root={tmp_path / 'tfds'}", "floors=null"]
    assert main([*run, "device=cpu"]) == 0
    (report,) = tmp_path.glob("runs/*/*/report.json")
    assert 0 <= json.loads(report.read_text())["model"]["video/mbo"] <= 1


def test_the_grid_is_scored_on_tar_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards")
    write_shards(tmp_path / "shards", split="validation")
    monkeypatch.chdir(tmp_path)
    run = [
        "mode=eval",
        "method=floor-grid",
        "data=movi_e_shards",
        f"data.root={tmp_path / 'shards'}",
        *SHARDS,
    ]
    assert main([*run, "floors=null", "device=cpu"]) == 0
    assert list(tmp_path.glob("runs/*/*/report.json"))


def test_slots_take_a_step_on_movi_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movi(tmp_path / "tfds", size=(32, 32))
    monkeypatch.chdir(tmp_path)
    run = ["mode=train", "hparam=slots", "data=movi_e", f"data.root={tmp_path / 'tfds'}", "data.size=32"]
    small = ["train.steps=1", "train.batch_size=2", "train.max_seconds=null", "train.validate_every=null"]
    assert main([*run, *small, "evaluate.limit=1", "floors=null", "device=cpu"]) == 0
    assert list(tmp_path.glob("runs/*/*/last.ckpt"))


def test_a_shard_that_was_cut_off_ends_the_run_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_movi(tmp_path / "tfds", size=(32, 32))
    (shard, *_) = sorted((tmp_path / "tfds").rglob("movi_e-validation*"))
    shard.write_bytes(shard.read_bytes()[:-7])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["mode=eval", "method=floor-grid", "data=movi_e", f"data.root={tmp_path / 'tfds'}"])
    shown = capsys.readouterr()
    assert "record 1 of" in shown.out + shown.err
    assert "00000-of-00002" in shown.out + shown.err
