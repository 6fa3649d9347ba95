"""Submissions: the zip that a server takes, and everything it would refuse."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import scripts.pack_predictions as command
from tests.data.test_predictions import labels_with
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.data.packing import SERVERS, Server, expected_sequences, extra_ids, pack, read_split
from vosssl.data.predictions import open_predictions
from vosssl.data.submission_check import check_submission

FLAT = Server("flat", "", 2, "test")
NESTED = Server("nested", "Annotations", 2, "test")
FRAMES = {"cat": ["00000", "00005"], "dog": ["00000", "00001", "00002"]}
SIZE = (6, 9)


def dataset(root: Path) -> Path:
    """Frames of two sequences, and the masks of their first frames: objects 1 and 2."""
    for name, frames in FRAMES.items():
        for frame in frames:
            write_image(root / "JPEGImages" / name / f"{frame}.jpg", torch.zeros(3, *SIZE, dtype=torch.uint8))
        write_labels(root / "Annotations" / name / "00000.png", labels_with(1, 2))
    return root


def predicted(root: Path) -> Path:
    for name, frames in FRAMES.items():
        for frame in frames:
            write_labels(root / name / f"{frame}.png", labels_with(2, 1))
    return root


def packed(tmp_path: Path, server: Server = FLAT) -> Path:
    expected = expected_sequences(dataset(tmp_path / "set"))
    pack(open_predictions(predicted(tmp_path / "pred")), expected, tmp_path / "out.zip", server=server)
    return tmp_path / "out.zip"


@pytest.mark.parametrize("server", [FLAT, NESTED])
def test_a_packed_zip_holds_what_the_server_asks_for(tmp_path: Path, server: Server) -> None:
    path = packed(tmp_path, server)
    with zipfile.ZipFile(path) as archive:
        top = f"{server.folder}/" if server.folder else ""
        assert archive.namelist() == [f"{top}{name}/{frame}.png" for name in FRAMES for frame in FRAMES[name]]
        archive.extractall(tmp_path / "there")
    assert torch.equal(read_labels(tmp_path / "there" / top / "dog" / "00002.png"), labels_with(2, 1))
    expected = expected_sequences(tmp_path / "set")
    assert check_submission(path, expected, server=server) == []
    assert check_submission(tmp_path / "there", expected, server=server) == []


def test_the_same_predictions_make_the_same_bytes(tmp_path: Path) -> None:
    first = packed(tmp_path).read_bytes()
    assert packed(tmp_path).read_bytes() == first


def test_frames_that_nobody_asks_for_are_left_out(tmp_path: Path) -> None:
    dataset(tmp_path / "set")
    predicted(tmp_path / "pred")
    write_labels(tmp_path / "pred" / "dog" / "00003.png", labels_with(1))
    write_labels(tmp_path / "pred" / "cow" / "00000.png", labels_with(1))
    assert "dog/00003.png" not in zipfile.ZipFile(packed(tmp_path)).namelist()


def test_other_kinds_become_palette_images(tmp_path: Path) -> None:
    expected = expected_sequences(dataset(tmp_path / "set"))
    for name, frames in FRAMES.items():
        labels = torch.stack([labels_with(1, 2)] * len(frames)).numpy()
        (tmp_path / "pred").mkdir(exist_ok=True)
        np.savez(tmp_path / "pred" / f"{name}.npz", labels=labels, frames=np.array(frames))
    pack(open_predictions(tmp_path / "pred"), expected, tmp_path / "out.zip", server=FLAT)
    assert check_submission(tmp_path / "out.zip", expected, server=FLAT) == []
    (tmp_path / "grey" / "dog").mkdir(parents=True)
    for name, frames in FRAMES.items():
        (tmp_path / "grey" / name).mkdir(exist_ok=True)
        for frame in frames:
            Image.fromarray(labels_with(1, 2).numpy()).save(tmp_path / "grey" / name / f"{frame}.png")
    problems = check_submission(tmp_path / "grey", expected, server=FLAT)
    assert len(problems) == 5
    assert "no palette PNG" in problems[0]
    pack(open_predictions(tmp_path / "grey"), expected, tmp_path / "out.zip", server=FLAT)
    assert check_submission(tmp_path / "out.zip", expected, server=FLAT) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: (root / "dog" / "00001.png").unlink(), FileNotFoundError, "1 of 3 frames of dog"),
        (lambda root: write_labels(root / "dog" / "00001.png", labels_with(3)), ValueError, "given are 1, 2"),
        (lambda root: write_labels(root / "dog" / "00001.png", labels_with(255)), ValueError, "holds 255"),
        (
            lambda root: write_labels(root / "dog" / "00001.png", labels_with(1, size=(7, 9))),
            ValueError,
            r"00001\.png is 9 wide and 7 high",
        ),
        (lambda root: (root / "dog" / "00002.png").write_bytes(b"\x89PNG"), ValueError, r"00002\.png"),
    ],
)
def test_nothing_is_written_when_something_is_wrong(
    tmp_path: Path, change: Any, error: type[Exception], message: str
) -> None:
    expected = expected_sequences(dataset(tmp_path / "set"))
    change(predicted(tmp_path / "pred"))
    with pytest.raises(error, match=message):
        pack(open_predictions(tmp_path / "pred"), expected, tmp_path / "out.zip", server=FLAT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pred", "set"]


def test_another_size_is_stretched_when_asked(tmp_path: Path) -> None:
    expected = expected_sequences(dataset(tmp_path / "set"))
    predicted(tmp_path / "pred")
    write_labels(tmp_path / "pred" / "dog" / "00001.png", labels_with(1, size=(12, 18)))
    predictions = open_predictions(tmp_path / "pred")
    pack(predictions, expected, tmp_path / "out.zip", server=FLAT, resize=True)
    assert check_submission(tmp_path / "out.zip", expected, server=FLAT) == []


def add(path: Path, place: str, content: bytes = b"x", *, mode: int = 0o644, method: int = 0) -> None:
    entry = zipfile.ZipInfo(place)
    entry.external_attr = mode << 16
    entry.compress_type = method
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, content)


@pytest.mark.parametrize("place", ["/etc/passwd", "../up.png", "dog/../../up.png", "C:/up.png", "..\\up.png"])
def test_paths_that_lead_out_of_the_folder_are_found(tmp_path: Path, place: str) -> None:
    path = packed(tmp_path)
    add(path, place)
    problems = check_submission(path, expected_sequences(tmp_path / "set"), server=FLAT)
    assert len(problems) == 1
    assert "leads out of the folder" in problems[0]


def test_links_bombs_and_strangers_are_found(tmp_path: Path) -> None:
    path = packed(tmp_path)
    add(path, "dog/link.png", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    add(path, "dog/bomb.png", bytes(1 << 25), method=zipfile.ZIP_DEFLATED)
    add(path, "__MACOSX/dog/._00000.png")
    add(path, "DOG/00000.png")
    problems = check_submission(path, expected_sequences(tmp_path / "set"), server=FLAT)
    assert problems == [
        "dog/00000.png: 2 files of this name",
        "dog/link.png: a symbolic link, expected files",
        problems[2],
        "__MACOSX/dog/._00000.png: not asked for",
        "DOG/00000.png: not asked for",
    ]
    assert "decompression bomb" in problems[2]


def test_a_large_picture_in_a_small_file_is_not_decoded(tmp_path: Path) -> None:
    path = packed(tmp_path)
    write_labels(tmp_path / "big.png", torch.zeros(5000, 5000, dtype=torch.uint8))
    add(path, "big.png", (tmp_path / "big.png").read_bytes())
    expected = expected_sequences(tmp_path / "set")
    wider = {**expected, "dog": expected["dog"]}
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("dog/00000.png", (tmp_path / "big.png").read_bytes())
    problems = check_submission(tmp_path / "b.zip", wider, server=FLAT)
    assert problems[0] == "dog/00000.png: is 5000 x 5000 pixels, its frames are 9 x 6"
    assert problems[1:] == [
        "cat: the sequence is missing",
        "dog: 2 of 3 frames are missing: 00001, 00002",
    ]


def test_what_a_wrong_file_is_wrong_in_is_said(tmp_path: Path) -> None:
    expected = expected_sequences(dataset(tmp_path / "set"))
    folder = predicted(tmp_path / "pred")
    write_labels(folder / "dog" / "00000.png", labels_with(3, 4))
    write_labels(folder / "dog" / "00001.png", labels_with(255))
    (folder / "dog" / "00002.png").write_bytes(b"no image")
    whole = (folder / "cat" / "00000.png").read_bytes()
    (folder / "cat" / "00000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "00005.png").unlink()
    (folder / "cat" / "00005.png").symlink_to(folder / "dog" / "00000.png")
    problems = "\n".join(check_submission(folder, expected, server=FLAT))
    assert "dog/00000.png: has ids 3, 4, given are 1, 2" in problems
    assert "dog/00001.png: holds 255" in problems
    assert "dog/00002.png: no PNG" in problems
    assert "cat/00000.png: truncated or damaged" in problems
    assert "cat/00005.png: a symbolic link" in problems


def test_sequences_at_the_wrong_level_are_pointed_out(tmp_path: Path) -> None:
    flat = packed(tmp_path, FLAT)
    expected = expected_sequences(tmp_path / "set")
    problems = check_submission(flat, expected, server=NESTED)
    assert problems[0] == "cat/00000.png: expected Annotations at the top"
    assert problems[-1] == "Annotations/dog: the sequence is missing"
    problems = check_submission(packed(tmp_path, NESTED), expected, server=FLAT)
    assert problems[0] == "Annotations/cat/00000.png: expected the sequences at the top"


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path)
    expected = expected_sequences(tmp_path / "set")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"out\.zip is truncated, or no zip"):
        check_submission(path, expected, server=FLAT)
    with pytest.raises(FileNotFoundError, match="no submission"):
        check_submission(tmp_path / "none.zip", expected, server=FLAT)


def test_a_folder_of_another_split_is_refused(tmp_path: Path) -> None:
    expected = expected_sequences(dataset(tmp_path / "set"), sequences=["dog"])
    assert list(expected) == ["dog"]
    with pytest.raises(ValueError, match="has 1 sequences, flat has 2"):
        pack(open_predictions(predicted(tmp_path / "pred")), expected, tmp_path / "o.zip", server=FLAT)
    with pytest.raises(FileNotFoundError, match="no frames of cow in"):
        expected_sequences(tmp_path / "set", sequences=["cow"])


def test_any_object_may_be_where_none_is_given(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set")
    (root / "Annotations" / "dog" / "00000.png").unlink()
    (root / "Annotations" / "dog").rmdir()
    assert extra_ids([1, 200], expected_sequences(root)["dog"], void=False) == ""


def test_every_server_says_where_its_facts_are_from() -> None:
    assert all(server.source and name == server.name for name, server in SERVERS.items())


def test_the_command_packs_checks_and_fails_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SERVERS, "mose-val", FLAT)
    data = ["--server", "mose-val", "--data", str(dataset(tmp_path / "set"))]
    (tmp_path / "split.txt").write_text("cat\n\ndog\n")
    assert read_split(tmp_path / "split.txt") == ["cat", "dog"]
    where = [*data, "--split", str(tmp_path / "split.txt")]
    pred, out = predicted(tmp_path / "pred"), tmp_path / "out.zip"
    assert command.main([str(pred), *where, "--out", str(out)]) == 0
    assert "fits flat: 2 sequences, 5 frames" in capsys.readouterr().out
    assert command.main([str(out), *where, "--check"]) == 0
    (pred / "dog" / "00001.png").unlink()
    assert command.main([str(pred), *where, "--check"]) == 2
    assert "dog: 1 of 3 frames are missing: 00001" in capsys.readouterr().err
    assert command.main([str(pred), *where, "--out", str(tmp_path / "new.zip")]) == 2
    assert not (tmp_path / "new.zip").exists()
    with pytest.raises(SystemExit):
        command.main([str(pred), *where])
