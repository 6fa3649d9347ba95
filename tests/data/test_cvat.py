"""CVAT's XML: tracks with keyframes, what lies between them, and hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.videos import write_sequence, write_video
from vosssl.data.cvat import CvatVideo
from vosssl.data.label_sources import LabelOptions
from vosssl.data.video import load_clip, open_video

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><size>{frames}'
    "</size><mode>interpolation</mode>{more}<original_size><width>8</width><height>6</height></original_size></task>"
    "</meta>"
)
SIZE = (6, 8)


def box(frame: int, left: float, *, outside: int = 0, more: str = "") -> str:
    """A box two pixels wide and the image high."""
    return (
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{left}" ytl="0" '
        f'xbr="{left + 2}" ybr="6" {more}/>'
    )


def polygon(frame: int, points: str, *, outside: int = 0) -> str:
    return f'<polygon frame="{frame}" keyframe="1" outside="{outside}" points="{points}" z_order="0"/>'


def write(path: Path, *tracks: str, frames: int = 10, more: str = "") -> Path:
    body = "".join(
        f'<track id="{n}" label="car">{track}</track>' if not track.startswith("<track") else track
        for n, track in enumerate(tracks)
    )
    path.write_text(HEAD.format(frames=frames, more=more) + body + "</annotations>")
    return path


def opened(path: Path) -> CvatVideo:
    return CvatVideo(path, None, video="street", options=LabelOptions())


def columns(path: Path, frame: int) -> list[int]:
    """The first row of a frame's labels."""
    labels = opened(path).read(f"{frame:05d}", SIZE)
    assert labels is not None
    return labels[0].tolist()  # type: ignore[no-any-return]


def test_boxes_move_linearly_between_keyframes_and_stay_after_the_last(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", box(2, 0) + box(6, 4))
    assert columns(path, 2) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert columns(path, 4) == [0, 0, 1, 1, 0, 0, 0, 0]
    assert columns(path, 5) == [0, 0, 0, 1, 1, 0, 0, 0]
    assert columns(path, 9) == columns(path, 6) == [0, 0, 0, 0, 1, 1, 0, 0]
    assert sorted(opened(path).names) == [f"{frame:05d}" for frame in range(2, 10)]


def test_an_object_outside_is_gone_until_it_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", box(0, 0) + box(2, 4, outside=1) + box(5, 6), box(7, 0, outside=1))
    assert sorted(opened(path).names) == ["00000", "00001", "00005", "00006", "00007", "00008", "00009"]
    assert columns(path, 1) == [1, 1, 0, 0, 0, 0, 0, 0]  # it does not move towards a place outside
    assert columns(path, 5) == [0, 0, 0, 0, 0, 0, 1, 1]


def test_polygons_move_corner_by_corner(tmp_path: Path) -> None:
    track = polygon(0, "0,0;2,0;2,6;0,6") + polygon(4, "4,0;6,0;6,6;4,6")
    path = write(tmp_path / "a.xml", track)
    assert columns(path, 2) == [0, 0, 1, 1, 0, 0, 0, 0]
    more_corners = polygon(0, "0,0;2,0;2,6;0,6") + polygon(4, "4,0;5,0;6,0;6,3;6,6;5,6;4,6;4,3")
    again = write(tmp_path / "b.xml", more_corners)
    assert opened(again).read("00002", SIZE).sum() == pytest.approx(12, abs=3)  # type: ignore[union-attr]
    assert columns(again, 4) == [0, 0, 0, 0, 1, 1, 0, 0]


def test_masks_are_run_lengths_by_row_and_stay_until_the_next(tmp_path: Path) -> None:
    place = 'left="6" top="1" width="3" height="2" z_order="0"'
    mask = f'<mask frame="0" keyframe="1" outside="0" rle="1, 2, 3" {place}/>'
    path = write(tmp_path / "a.xml", mask + box(5, 0), frames=6)
    expected = torch.zeros(SIZE, dtype=torch.uint8)
    expected[1, 7] = 1  # the second of its pixels lies outside the image
    for frame in ("00000", "00003"):
        assert torch.equal(opened(path).read(frame, SIZE), expected)  # type: ignore[arg-type]


def test_ellipses_and_turned_boxes(tmp_path: Path) -> None:
    ellipse = '<ellipse frame="0" outside="0" cx="4" cy="3" rx="1" ry="3" rotation="0.0"/>'
    path = write(tmp_path / "a.xml", ellipse + '<box frame="1" outside="1" xtl="0" ytl="0" xbr="1" ybr="1"/>')
    labels = opened(path).read("00000", SIZE)
    assert labels is not None and labels.sum(0).nonzero().flatten().tolist() == [3, 4]
    assert list(opened(path).names) == ["00000"]
    turned = '<box frame="0" outside="0" xtl="1" ytl="2" xbr="7" ybr="4" rotation="90"/>'
    labels = opened(write(tmp_path / "b.xml", turned)).read("00000", SIZE)
    assert labels is not None and labels.sum(0).nonzero().flatten().tolist() == [3, 4]


def test_z_order_then_the_later_track_lies_above_and_groups_are_one_object(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", box(0, 0, more='z_order="1"'), box(0, 1), box(0, 2))
    assert columns(path, 0) == [1, 1, 3, 3, 0, 0, 0, 0]
    grouped = [f'<track id="{n}" label="car" group_id="4">{box(0, 3 * n)}</track>' for n in (0, 1)]
    assert columns(write(tmp_path / "b.xml", *grouped), 0) == [1, 1, 0, 1, 1, 0, 0, 0]


def test_a_task_of_every_third_frame_labels_no_other(tmp_path: Path) -> None:
    more = "<start_frame>3</start_frame><frame_filter>step=3</frame_filter>"
    path = write(tmp_path / "a.xml", box(3, 0) + box(9, 6), frames=3, more=more)
    assert sorted(opened(path).names) == ["00003", "00006", "00009"]
    assert columns(path, 6) == [0, 0, 0, 1, 1, 0, 0, 0]


def test_frame_folders_and_video_files_take_the_same_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", box(1, 0), frames=6)
    write_sequence(tmp_path / "frames", size=SIZE)
    clip = load_clip(tmp_path / "frames", annotations=path)
    assert clip.labelled is not None and clip.labelled.tolist() == [False] + [True] * 5
    write_video(tmp_path / "a.mp4", size=(48, 64), frames=6)
    video = open_video(tmp_path / "a.mp4", annotations=path)
    with pytest.raises(ValueError, match="8 wide and 6 high, their frame is 64 wide and 48 high"):
        video.clip([1])


def test_a_file_for_images_labels_them_by_name(tmp_path: Path) -> None:
    shapes = (
        '<box label="a" xtl="0" ytl="0" xbr="2" ybr="6"/><box label="b" xtl="1" ytl="0" xbr="3" ybr="6"/>'
    )
    image = f'<image id="0" name="dog/00002.png" width="8" height="6">{shapes}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations>{image}</annotations>")
    write_sequence(tmp_path / "frames", size=SIZE)
    clip = load_clip(tmp_path / "frames", annotations=tmp_path / "a.xml")
    assert clip.labelled is not None and clip.labelled.nonzero().flatten().tolist() == [2]
    assert clip.labels is not None and clip.labels[2, 0].tolist() == [1, 2, 2, 0, 0, 0, 0, 0]


def test_hostile_and_damaged_files_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><annotations>&z;</annotations>'
    (tmp_path / "a.xml").write_text(bomb)
    with pytest.raises(ValueError, match=r"a\.xml is no readable XML: it has a DOCTYPE"):
        opened(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<annotations><track>")
    with pytest.raises(ValueError, match=r"a\.xml is no readable XML"):
        opened(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<html/>")
    with pytest.raises(ValueError, match="expected <annotations>"):
        opened(tmp_path / "a.xml")
    with pytest.raises(ValueError, match=r"not as CVAT exports it: KeyError\('xtl'\)"):
        opened(write(tmp_path / "a.xml", '<box frame="0" outside="0"/>'))
    mask = '<mask frame="0" outside="0" rle="1, 1" left="0" top="0" width="3" height="2"/>'
    with pytest.raises(ValueError, match=r"a\.xml, frame 00000 .* add up to 2, expected 3 x 2"):
        opened(write(tmp_path / "a.xml", mask)).read("00000", SIZE)
