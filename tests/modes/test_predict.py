"""mode=predict: labels, overlay and report of a video, and prompts that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vosssl.__main__ import main
from vosssl.clip import Clip, Frame
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.data.video import Video, clip_video
from vosssl.data.video_io import VideoReader
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.methods.floors import GridSegmenter
from vosssl.modes.predict import limited, predict, read_prompt


def footage(*, frames: int = 4) -> Video:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (frames, 3, 24, 32), dtype=torch.uint8, generator=generator)
    return clip_video(Clip("noise", images))


def square() -> Tensor:
    labels = torch.zeros(24, 32, dtype=torch.uint8)
    labels[6:18, 8:20] = 3
    return labels


def test_a_prompted_object_is_written_drawn_and_reported(tmp_path: Path) -> None:
    report = predict(CopyFirstMask(), footage(), tmp_path, prompt=square())
    assert report["frames"] == 4
    assert report["objects"] == {"3": {"frames": 4, "mean_area": 144 / 768}}
    files = sorted((tmp_path / "labels" / "noise").iterdir())
    assert [file.name for file in files] == [f"{index:05d}.png" for index in range(4)]
    assert all(torch.equal(read_labels(file), square()) for file in files)
    with VideoReader(tmp_path / "noise.mp4") as reader:
        assert (reader.size, reader.frame_count) == ((24, 32), 4)


def test_a_limit_ends_early_and_the_overlay_can_be_left_out(tmp_path: Path) -> None:
    report = predict(GridSegmenter(rows=2, columns=2), footage(), tmp_path, limit=2, with_overlay=False)
    assert (report["frames"], len(report["objects"])) == (2, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


class Live(Video):
    """A camera: no length, and Ctrl-C after three frames."""

    def __len__(self) -> int:
        raise TypeError("live")

    @property
    def native_size(self) -> tuple[int, int]:
        return 24, 32

    def _decode(self, indices, size) -> Iterator[Frame]:
        for index in range(3):
            yield Frame(f"{index:05d}", torch.zeros(3, 24, 32, dtype=torch.uint8))
        raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    report = predict(CopyFirstMask(), Live("live"), tmp_path, prompt=square())
    assert (report["frames"], report["interrupted"]) == (3, True)
    assert len(list((tmp_path / "labels" / "live").iterdir())) == 3
    assert (tmp_path / "live.mp4").is_file()


def test_a_camera_can_be_limited() -> None:
    assert len(list(limited(Live("live"), 2))) == 2


@pytest.mark.parametrize(
    ("value", "size", "message"),
    [
        (255, (24, 32), "values are 0, 255, expected ids 1..254; predict.binary=true"),
        (0, (24, 32), "names no object"),
        (1, (12, 16), "is 16 wide and 12 high, expected the 32 x 24"),
    ],
)
def test_a_prompt_that_says_nothing_is_refused(
    value: int, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[4:8, 4:8] = value
    write_labels(tmp_path / "a.png", labels)
    with pytest.raises(ValueError, match=message):
        read_prompt(str(tmp_path / "a.png"), footage(), False)
    if value == 255:
        assert read_prompt(str(tmp_path / "a.png"), footage(), True).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "predict.source=video.mp4"),
        (["predict.source=nowhere.mp4"], "no video nowhere.mp4"),
        (["predict.source=frames", "predict.prompt=nowhere.png"], "nowhere.png"),
        (["predict.source=frames"], "follows only what it is given: predict.prompt="),
        (["predict.source=frames", "predict.prompt=beside"], "no labels beside frames, expected "),
        (["predict.source=frames", "predict.prompt=others"], "labels like 7, frames like 0"),
        (["predict.source=frames", "predict.prompt=empty"], "empty has no labels of frames: predict.prompt="),
    ],
)
def test_what_is_missing_is_one_line(
    more: list[str], message: str, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "frames" / "0.png", torch.zeros(3, 24, 32))
    write_labels(tmp_path / "others" / "7.png", square())
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["mode=predict", "method=copy-first-mask", "device=cpu", *more])
    assert stopped.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vosssl: ")]
    assert len(lines) == 1 and message in lines[0]


def test_a_folder_is_labelled_from_its_first_mask(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(2):
        write_image(tmp_path / "frames" / f"{index}.png", torch.zeros(3, 24, 32))
    write_labels(tmp_path / "first.png", square())
    arguments = ["predict.source=frames", "predict.prompt=first.png", "exp_name=p", "device=cpu"]
    assert main(["mode=predict", "method=copy-first-mask", *arguments]) == 0
    (report,) = tmp_path.glob("runs/p/*/report.json")
    assert json.loads(report.read_text())["objects"]["3"]["frames"] == 2
