"""Prompts as people write them, and mode=predict from a click to labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vosssl
from tests.modes.runs import composed
from vosssl.__main__ import main
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.modes.prompts import object_prompt, read_prompts
from vosssl.propagation.segmenter import Box

SIZE = (24, 32)


def scene(frame: int) -> torch.Tensor:
    """(3, 24, 32) uint8: a red square on green that moves one pixel a frame."""
    image = torch.tensor([40, 140, 60], dtype=torch.uint8)[:, None, None].repeat(1, *SIZE)
    image[:, 6:16, 8 + frame : 18 + frame] = torch.tensor([210, 40, 40], dtype=torch.uint8)[:, None, None]
    return image


def labels() -> torch.Tensor:
    found = torch.zeros(SIZE, dtype=torch.uint8)
    found[6:16, 8:18] = 3
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for frame in range(4):
        write_image(tmp_path / "frames" / f"{frame}.png", scene(frame))
    return tmp_path


def predict(*arguments: str) -> int:
    return main(
        ["mode=predict", "method=copy-first-mask", "video=frames", "device=cpu", "exp_name=p", *arguments]
    )


def test_a_line_and_a_file_hold_the_same_prompts(tmp_path: Path) -> None:
    expected = [{"object": 2, "points": [[3, 4], [5, 6, 0]]}, {"object": 1, "box": [1, 2, 3, 4]}]
    line = "predict.prompt=[{object: 2, points: [[3, 4], [5, 6, 0]]}, {object: 1, box: [1, 2, 3, 4]}]"
    with composed(line) as cfg:
        assert read_prompts(cfg.predict.prompt) == (expected, Path())
    (tmp_path / "a.json").write_text(json.dumps(expected))
    (tmp_path / "b.json").write_text(json.dumps({"prompts": expected}))
    (tmp_path / "c.yaml").write_text(line.removeprefix("predict.prompt="))
    for name in ("a.json", "b.json", "c.yaml"):
        assert read_prompts(str(tmp_path / name)) == (expected, tmp_path)


def test_other_prompts_are_left_to_those_who_read_them(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text('{"images": []}')
    for given in (None, "beside", "first.png", str(tmp_path), str(tmp_path / "coco.json")):
        assert read_prompts(given) is None


def test_a_prompt_has_points_a_box_or_a_mask(tmp_path: Path) -> None:
    prompt = object_prompt({"points": [[3, 4], [5, 6, 0]], "frame": 2}, SIZE)
    assert (prompt.identity, prompt.frame) == (1, 2)
    assert prompt.points == ((3.0, 4.0, True), (5.0, 6.0, False))
    assert object_prompt({"object": 4, "box": [1, 2, 3, 4.5]}, SIZE).box == Box(1, 2, 3, 4.5)
    write_labels(tmp_path / "m.png", labels())
    for identity in (3, 1):  # its own label, or the only one there is
        mask = object_prompt({"object": identity, "mask": "m.png"}, SIZE, folder=tmp_path).mask
        assert mask is not None and torch.equal(mask, labels() == 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "says nothing; give points, a box or a mask"),
        ({"points": []}, "says nothing"),
        ({"points": [[1]]}, r"a point is \[1\], expected \[x, y\]"),
        ({"points": [[1, 2, 5]]}, "1 on the object or 0 beside it"),
        ({"points": "1,2"}, "expected a list in brackets"),
        ({"points": [["a", 2]]}, "a point is"),
        ({"box": [1, 2, 3]}, r"expected \[left, top, right, bottom\]"),
        ({"box": [4, 2, 4, 9]}, "is empty; expected left < right"),
        ({"object": 300, "points": [[1, 2]]}, "an object of 1..254"),
        ({"object": "dog", "points": [[1, 2]]}, "object is 'dog', expected a whole number"),
        ({"frame": 1.5, "points": [[1, 2]]}, "frame is 1.5, expected a whole number"),
        ({"mask": "nowhere.png"}, "nowhere.png"),
        ({"mask": "empty.png"}, "empty.png is empty for object 1: it holds nothing but background"),
        ({"mask": "two.png", "object": 9}, "is empty for object 9: it holds labels 3, 4"),
        ({"mask": "small.png"}, "small.png are 4 wide and 4 high, their frame is 32 wide"),
        ({"mask": "two.png", "object": 3, "points": [[1, 2]]}, "give the mask alone"),
    ],
)
def test_a_prompt_that_cannot_be_is_told(entry, message: str, tmp_path: Path) -> None:
    write_labels(tmp_path / "empty.png", labels() * 0)
    two = labels()
    two[0, 0] = 4
    write_labels(tmp_path / "two.png", two)
    write_labels(tmp_path / "small.png", labels()[:4, :4])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        object_prompt(entry, SIZE, folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is empty, expected prompts"),
        ("[1, 2]", "expected one prompt or a list"),
        ("[{pointz: [[1, 2]]}]", "a prompt with 'pointz'; did you mean points"),
        ("[{", "cannot be read"),
    ],
)
def test_a_file_of_something_else_is_told(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(str(tmp_path / "a.yaml"))
    with pytest.raises(FileNotFoundError, match=r"no file nowhere\.yaml"):
        read_prompts("nowhere.yaml")


def test_a_click_is_followed(folder: Path) -> None:
    assert predict("prompt={object: 5, points: [[13, 11]]}", "predict.prompter=grab-cut") == 0
    (report,) = folder.glob("runs/p/*/report.json")
    assert json.loads(report.read_text())["objects"]["5"]["frames"] == 4
    found = read_labels(report.parent / "labels" / "frames" / "2.png")
    assert int(((found == 5) & (labels() == 3)).sum()) > 80


def test_a_correction_in_a_later_frame_is_followed(folder: Path) -> None:
    (folder / "p.json").write_text(
        json.dumps(
            [{"points": [[13, 11]]}, {"frame": 2, "points": [[19.5, 11]]}, {"object": 2, "mask": "m.png"}]
        )
    )
    corner = torch.zeros(SIZE, dtype=torch.uint8)
    corner[:3, :3] = 2
    write_labels(folder / "m.png", corner)
    assert predict("prompt=p.json", "predict.prompter=grab-cut") == 0
    (run,) = folder.glob("runs/p/*")
    before, after = (read_labels(run / "labels" / "frames" / f"{frame}.png") for frame in (1, 2))
    assert not bool((before[6:16, 18:20] == 1).any()) and bool((after[7:15, 18:19] == 1).all())
    assert torch.equal(after == 2, corner == 2)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("prompt={points: [[99, 3]]}", "x 99, y 3 lies outside the frame of 32 x 24"),
        ("prompt={box: [3, 3, 3, 9]}", "is empty; expected left < right"),
        (
            "prompt={frame: 9, points: [[1, 1]]}",
            "in frame 9, but of frames frames 0..3 are read",
        ),
        ("prompt={objekt: 9, points: [[1, 1]]}", "did you mean object"),
        ("prompt=[]", "is empty, expected prompts"),
        (
            "predict.prompter=cutie-base",
            "takes no clicks or boxes on images; models that do: grab-cut",
        ),
    ],
)
def test_what_is_wrong_with_a_prompt_is_one_line(argument: str, message: str, folder: Path, capfd) -> None:
    given = ["prompt={points: [[13, 11]]}"] if not argument.startswith("prompt=") else []
    with pytest.raises(SystemExit) as stopped:
        predict(argument, *given, *([] if "prompter" in argument else ["predict.prompter=grab-cut"]))
    assert stopped.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vosssl: ")]
    assert len(lines) == 1 and message in lines[0]


def test_a_prompter_is_no_segmenter_and_says_what_it_is_for(folder: Path, capfd) -> None:
    with pytest.raises(ValueError, match=r"create_prompter\('mobile-sam'\) or predict.prompter=mobile-sam"):
        vosssl.create_segmenter("mobile-sam")
    with pytest.raises(SystemExit):
        main(["mode=predict", "method=mobile-sam", "video=frames", "device=cpu"])
    assert "mobile-sam answers prompts on images and follows nothing" in capfd.readouterr().err


def test_the_window_needs_a_screen_and_no_prompt(folder: Path, capfd, monkeypatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    window = ["predict.window=true", "predict.prompter=grab-cut"]
    for arguments, message in [
        (window, "there is no screen"),
        ([*window, "prompt=a.png"], "predict.window=true and a prompt"),
    ]:
        with pytest.raises(SystemExit):
            predict(*arguments)
        assert message in capfd.readouterr().err
