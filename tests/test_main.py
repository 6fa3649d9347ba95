"""The command line: what it prints, how it fails, and one whole run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vosssl.__main__ import main


def vosssl(*arguments: str, folder: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python -m vosssl` as a user types it, standing in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "vosssl", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=timeout,
    )


def test_without_a_mode_the_guide_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    guide = capsys.readouterr().out
    for word in ("mode=train hparam=slots", "slotcontrast_movi_c", "dino-vits16", "davis16", "--multirun"):
        assert word in guide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mode=trian", "hparam=slots"], "did you mean train"),
        (["mode=train", "hparam=slotz"], "did you mean slots"),
        (["mode=train", "hparam=slots", "train.stepz=3"], "did you mean train.steps"),
        (["mode=train", "hparam=slots", "method.network.num_slotz=3"], "num_slotz"),
        (["mode=train", "hparam"], "not of the form key=value"),
        (["mode=eval", "resume=nowhere.ckpt"], "nowhere.ckpt"),
        (["mode=train", "hparam=videosaur_movi_c", "data.root=nowhere"], "nowhere"),
        (["mode=train"], "method="),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        sys.exit(main(arguments))
    assert stopped.value.code not in (0, None)
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vosssl: ")]
    assert len(error) == 1
    assert message in error[0]


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capfd, monkeypatch) -> None:
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Hostile()))
    assert main(["mode=eval", "resume=evil.ckpt"]) == 1
    assert "evil.ckpt" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


TINY = (
    "train.steps=3", "train.batch_size=4", "train.validation_clips=2", "train.max_seconds=null", "threads=1",
    "device=cpu", "data.val.count=2",
)  # fmt: skip


def test_train_eval_inspect_and_predict_work_one_after_the_other(tmp_path: Path) -> None:
    done = vosssl("mode=train", "hparam=slots", "exp_name=tiny", *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert {"config.yaml", "log.txt", "last.ckpt", "report.json"} <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert 0 <= report["model"]["video/mbo"] <= 1
    assert report["floors"]

    checkpoint = f"resume={folder / 'last.ckpt'}"
    done = vosssl("mode=eval", checkpoint, "evaluate.limit=1", "device=cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = vosssl("mode=inspect", checkpoint, "inspect.clips=1", "device=cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("inspect.html"))
