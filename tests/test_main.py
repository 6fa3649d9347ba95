"""The command line: what it prints, how it fails, and one whole run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.webdriver import Browser, chromium
from vosssl import load_clip
from vosssl.__main__ import main
from vosssl.data.io import read_labels, write_image
from vosssl.data.synthetic import SyntheticClips


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
        (["mode=train", "hparm=slots"], "did you mean hparam"),
        (
            ["mode=train", "hparam=slots", "method.network.num_slotz=3"],
            "did you mean method.network.num_slots",
        ),
        (["mode=train", "hparam=slots", "data=nonsense"], "there is burst, coco, crops_224"),
        (["mode=train", "hparam=slots", "train.steps=many"], "expected a whole number"),
        (["mode=train", "hparam=slots", "seed=0,1"], "--multirun"),
        (["mode=train", "hparam=[slots"], "cannot be read"),
        (["mode=train", "hparam=slots", "device=tpu"], "device is 'tpu'"),
        (["mode=train", "hparam=slots", "out=file"], "file/slots: Not a directory"),
        (["mode=train", "hparam=slots", "hydra/launcher=submitit_slurm"], "vosssl[slurm]"),
        (["-m", "mode=train,trian", "hparam=slots"], "did you mean train"),
        (["--multirun", "mode=train", "hparam=slots,slotz"], "did you mean slots"),
        (["--multirun", "mode=train", "hparam=slots", "train.stepz=1,2"], "did you mean train.steps"),
        (["--config-dir", "nowhere", "mode=train", "hparam=slots"], "no folder 'nowhere'"),
        (["--config-dir", ".", "mode=train", "hparam=slotz"], "did you mean slots"),
        (["mode=help", "hparam=slotz"], "did you mean slots"),
        (["mode=eval"], "resume=CHECKPOINT, or method="),
        (["mode=eval", "method=floor-one", "data=davis16"], "data.root=FOLDER"),
        (["mode=eval", "method=motion-features", "data=synthetic"], "gives features, not masks"),
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
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        sys.exit(main(arguments))
    assert stopped.value.code not in (0, None)
    printed = capfd.readouterr().err
    error = [line for line in printed.splitlines() if line.startswith("vosssl: ")]
    assert len(error) == 1
    assert message in error[0]
    assert "Traceback" not in printed


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
    "train.steps=3", "train.batch_size=4", "train.max_seconds=null", "threads=1", "device=cpu",
    "data.train.size=32", "data.val.size=32", "data.val.count=2", "data.val.frames=4",
)  # fmt: skip


def test_a_sweep_makes_a_numbered_run_of_each(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ["--multirun", "mode=train", "hparam=slots", "seed=0,1", "floors=null", *TINY]
    assert main(sweep) == 0
    reports = sorted(tmp_path.glob("runs/sweep/*/*/report.json"))
    assert [path.parent.name for path in reports] == ["0", "1"]
    seeds = [(path.parent / "config.yaml").read_text().count("\nseed: 1") for path in reports]
    assert seeds == [0, 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained run, made as a user does, in a program of its own."""
    folder = tmp_path_factory.mktemp("user")
    done = vosssl("mode=train", "hparam=slots", "exp_name=tiny", *TINY, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "next        python -m vosssl mode=inspect resume=runs/tiny/" in done.stderr
    (made,) = (folder / "runs" / "tiny").iterdir()
    return made


def test_a_run_holds_all_that_was_promised(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "log.txt", "tensorboard", "last.ckpt", "report.json", "scores.csv"} <= names
    report = json.loads((run / "report.json").read_text())
    for row in (report["model"], *report["floors"].values()):
        for metric in ("video/fg_ari", "video/ari", "video/mbo", "image/fg_ari", "J", "F", "J&F"):
            assert -1 <= row[metric] <= 1
    assert len(report["floors"]) >= 4
    assert report["training"]["steps"] == 3


def test_a_checkpoint_evaluates_to_the_scores_of_its_run(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mode=eval", f"resume={run / 'last.ckpt'}", "floors=null", "device=cpu"]) == 0
    (path,) = tmp_path.glob("runs/tiny/*/report.json")
    again, before = (json.loads(p.read_text())["model"] for p in (path, run / "report.json"))
    assert {name: again[name] for name in before} == pytest.approx(before)


def test_a_run_labels_footage_with_a_stable_number_of_slots(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = SyntheticClips(split="val", size=48, frames=3, count=1)[0]
    for index, frame in enumerate(clip.frames):
        write_image(tmp_path / "frames" / f"{index}.png", frame)
    assert main(["mode=predict", f"resume={run / 'last.ckpt'}", "predict.source=frames", "device=cpu"]) == 0
    labels = [read_labels(path) for path in sorted(tmp_path.glob("runs/tiny/*/labels/frames/*.png"))]
    assert [tuple(image.shape) for image in labels] == [(48, 48)] * 3
    assert all(image.min() >= 1 and image.max() <= 10 for image in labels)
    (overlay,) = tmp_path.glob("runs/tiny/*/frames.mp4")
    assert load_clip(overlay, annotations=None).frames.shape == (3, 3, 48, 48)


@pytest.mark.browser
def test_the_page_of_a_run_opens_in_a_browser_with_its_table(run: Path, tmp_path: Path, monkeypatch) -> None:
    if chromium() is None:
        pytest.skip("no chromium with chromedriver on the PATH")
    monkeypatch.chdir(tmp_path)
    assert main(["mode=inspect", f"resume={run / 'last.ckpt'}", "device=cpu"]) == 0
    (path,) = tmp_path.glob("runs/tiny/*/inspect.html")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(path)
        browser.wait_for("document.querySelector('article[data-ready]')")
        assert browser.script("return document.querySelectorAll('article').length") == 2
        assert "slots-synthetic" in browser.script("return document.body.textContent")
        assert "k-means" in browser.script("return document.body.textContent")
        browser.type("article input[type=range]", "Right")
        shown = browser.script("return document.querySelector('article output').textContent")
        assert shown.startswith("frame 1 of ")
        colours = browser.script(
            "const c = document.querySelector('article canvas');"
            "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return new Set(Array.from(new Uint32Array(p.buffer))).size"
        )
        assert colours > 10
        assert browser.console() == []
    finally:
        browser.close()
