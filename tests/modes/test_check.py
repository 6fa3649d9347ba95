"""mode=check: every dataset's own layout passes; the report, and the status that says whether to go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.data import miniatures
from tests.data.damaged_layouts import davis, frame_cut_off, label_a_pixel_narrower
from tests.data.movi_records import write_movi
from tests.data.test_configs import TRAIN_LABELS, composed
from tests.data.videos import SIZE, write_sequence, write_video
from vosssl.__main__ import main
from vosssl.data.check import check_dataset, quick
from vosssl.data.check_findings import CheckReport
from vosssl.data.check_parts import PartSpec
from vosssl.data.io import write_labels
from vosssl.data.release import Release
from vosssl.modes.check import parts_of, report_text


def checked(name: str, root: Path, **more: int) -> CheckReport:
    data = OmegaConf.to_container(composed(name, root), resolve=True)
    assert isinstance(data, dict)
    release = Release.from_dict(data.get("release"))
    return check_dataset(root, name=name, release=release, parts=parts_of(data), **more)


@pytest.mark.parametrize("name", TRAIN_LABELS)
def test_the_official_layout_of_every_dataset_has_no_errors(tmp_path: Path, name: str) -> None:
    miniatures.lay_out(name, tmp_path)
    report = checked(name, tmp_path)
    assert [one.line() for one in report.findings if one.severity == "error"] == []
    assert sum(part.videos for part in report.parts) > 0
    assert sum(part.labelled for part in report.parts) > 0 or name == "coco"


def test_shards_of_movi_are_counted_with_their_size(tmp_path: Path) -> None:
    write_movi(tmp_path, variant="movi_c", size=(16, 16))
    report = checked("movi_c", tmp_path)
    assert report.findings == []
    assert [(part.kind, part.videos, dict(part.image_sizes)) for part in report.parts] == [
        ("tfrecord", 4, {"16x16": 4})
    ] * 2


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    for number in range(12):
        miniatures.frames(tmp_path / "JPEGImages" / f"v{number}")
        miniatures.palette_labels(tmp_path / "Annotations" / f"v{number}")
    (tmp_path / "JPEGImages" / "v7" / "00003.jpg").write_bytes(b"")
    alone, together = (checked("folder", tmp_path, workers=workers).as_dict() for workers in (1, 2))
    assert alone == together
    assert not alone["usable"]


def test_a_sample_decodes_so_many_frames_of_each_video(tmp_path: Path) -> None:
    davis(tmp_path)
    report = checked("davis17", tmp_path, sample=2)
    assert [part.checked for part in report.parts] == [6]
    assert any(one.code == "sampled" for one in report.findings)
    label_a_pixel_narrower(tmp_path)  # of a frame that is not decoded
    report = checked("davis17", tmp_path, sample=1)
    assert any("camel/00001.png is 31x24" in one.message for one in report.findings)
    with pytest.raises(ValueError, match="expected 1 or more"):
        checked("davis17", tmp_path, sample=0)


def test_another_frame_rate_is_named(tmp_path: Path) -> None:
    train = tmp_path / "train"
    labels = train / "Annotations" / "a"
    write_sequence(train / "JPEGImages" / "a", frames=70, annotations=labels, labelled=range(0, 70, 5))
    report = checked("ytvos2019", tmp_path, sample=1)
    (finding,) = [one for one in report.findings if one.code == "frame-rate"]
    assert "all frames (about 30 fps) are on disk" in finding.message
    assert any("train has 1 of 3,471 videos: training works" in one.message for one in report.findings)


def test_frames_renumbered_at_the_release_s_rate_are_named(tmp_path: Path) -> None:
    for name in ("ytvos2018", "ytvos2019"):
        root = tmp_path / name
        write_sequence(root / "train/JPEGImages/a", frames=27, annotations=root / "train/Annotations/a")
        (finding,) = [one for one in checked(name, root, sample=1).findings if one.code == "frame-rate"]
        assert "27 frames a video in steps of 1" in finding.message
        assert "renumbered at 6 fps" in finding.message


@pytest.mark.parametrize("name", ["lvos1", "lvos2"])
def test_long_videos_at_6_fps_are_no_other_frame_rate(tmp_path: Path, name: str) -> None:
    labels = tmp_path / "train" / "Annotations" / "a"
    write_sequence(tmp_path / "train/JPEGImages/a", frames=90, annotations=labels, labelled=range(0, 90, 5))
    report = checked(name, tmp_path, sample=1)
    assert "frame-rate" not in {one.code for one in report.findings}
    assert any("numbered one by one" in line and "90.0 a video" in line for line in report.release)


@pytest.mark.parametrize("sample", [None, 1])
def test_a_folder_per_object_is_an_object_however_few_frames_are_decoded(
    tmp_path: Path, sample: int | None
) -> None:
    write_sequence(tmp_path / "sav_val/JPEGImages_24fps/a", frames=9)
    (tmp_path / "sav_val/sav_val.txt").write_text("a")
    labels = tmp_path / "sav_val/Annotations_6fps/a"
    for folder, frames in (("000", (0, 4, 8)), ("001", (0, 4)), ("002", (8,))):
        for number in frames:
            write_labels(labels / folder / f"{number:05d}.png", torch.full(SIZE, 255, dtype=torch.uint8))
    release = Release.from_dict(OmegaConf.to_container(composed("sav", None).release))
    report = check_dataset(tmp_path, name="sav", release=release, sample=sample)
    (part,) = [one for one in report.parts if one.name == "val"]
    assert (part.objects, part.labelled) == (3, 3)
    assert any(one.code == "objects-appear-later" for one in report.findings)
    assert report.usable
    (labels / "001" / "00000.png").write_bytes(b"cut off")
    report = check_dataset(tmp_path, name="sav", release=release, sample=sample)
    assert any(one.code == "unreadable-labels" for one in report.findings)


def test_the_note_on_samples_says_what_was_done_with_video_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=6)
    video = PartSpec("train", images="", labels="none", more={"files": "video"})
    report = check_dataset(tmp_path, parts=[video], sample=2)
    (note,) = [one for one in report.findings if one.code == "sampled"]
    assert note.message.startswith("only the ends of video files were decoded")


def test_counts_of_another_release_name_it(tmp_path: Path) -> None:
    davis(tmp_path)
    expect = {"part": "val", "images": "JPEGImages/480p", "annotations": "Annotations/480p"}
    wanted, other = (Release.from_dict({"expect": [expect | {"videos": n}]}) for n in (5, 3))
    report = check_dataset(tmp_path, name="lvos2", release=wanted, others={"lvos1": other})
    assert any("are what data=lvos1 has" in one.message for one in report.findings)


def test_a_quick_look_names_what_is_missing(tmp_path: Path) -> None:
    release = Release.from_dict(OmegaConf.to_container(composed("davis17", None).release))
    davis(tmp_path)
    assert quick(tmp_path, release) == [
        "warning  val has 3 of 30 videos: scores are those of these videos, not comparable with published "
        "ones",
        "warning  train is not here (no split file "
        f"{tmp_path}/ImageSets/2017/train.txt; {tmp_path}/ImageSets/2017: found val.txt): "
        "mode=train cannot run, evaluation works",
    ]
    (line,) = quick(tmp_path / "nowhere", release)
    assert line.startswith("error    no dataset at")


def test_the_command_writes_a_report_and_fails_on_errors(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "set"
    root.mkdir()
    davis(root)
    assert main(["mode=check", "data=davis17", f"data.root={root}", "check.workers=1"]) == 0
    (path,) = tmp_path.glob("runs/check/*/check.json")
    content = json.loads(path.read_text())
    assert content["usable"] and content["parts"][0]["videos"] == 3
    assert "\nusable: " in capfd.readouterr().err
    frame_cut_off(root)
    with pytest.raises(SystemExit) as stopped:
        main(["mode=check", "data=davis17", f"data.root={root}", "check.workers=1"])
    assert stopped.value.code == 1
    assert "camel/00001.jpg" in capfd.readouterr().err


def test_data_without_files_or_root_are_explained(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    for data, message in (("synthetic", "there are no files to check"), ("davis17", "root=FOLDER")):
        with pytest.raises(SystemExit):
            main(["mode=check", f"data={data}"])
        assert message in capfd.readouterr().err


def test_video_files_are_decoded_to_their_end(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=7)
    report = checked("video", tmp_path)
    assert [(part.kind, part.videos, part.frames) for part in report.parts] == [("files", 1, 7)]
    assert "usable: nothing to report" in report_text(report, title="video")
