"""Label images whose values become ids: VIPSeg's panoptic maps, FBMS-59's greys and colours."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vosssl.data.label_sources import LabelOptions
from vosssl.data.value_maps import ColourMaps, PanopticMaps


def write(path: Path, values: list[list[int]] | np.ndarray, dtype: type = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(values, dtype))


def panoptic(folder: Path, **options: object) -> PanopticMaps:
    return PanopticMaps(folder, video="v", options=LabelOptions(), **options)  # type: ignore[arg-type]


def test_things_are_objects_stuff_is_background_and_zero_is_void(tmp_path: Path) -> None:
    write(tmp_path / "0.png", [[0, 3, 124, 6101]])
    write(tmp_path / "1.png", [[6100, 12400, 200, 6101]])
    source = panoptic(tmp_path)
    assert source.read("0", (1, 4)).tolist() == [[255, 0, 0, 2]]  # type: ignore[union-attr]
    assert source.read("1", (1, 4)).tolist() == [[1, 3, 255, 2]]  # type: ignore[union-attr]
    everything = panoptic(tmp_path, regions="all")
    assert everything.read("0", (1, 4)).tolist() == [[255, 1, 2, 4]]  # type: ignore[union-attr]


def test_more_than_254_objects_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.png", [list(range(200 + 1, 200 + 256))])
    with pytest.raises(ValueError, match=r"video v, has 255 objects, expected at most 254"):
        panoptic(tmp_path).read("0", (1, 255))


def test_colour_maps_are_no_panoptic_maps(tmp_path: Path) -> None:
    write(tmp_path / "0.png", np.zeros((2, 2, 3)), np.uint8)
    with pytest.raises(ValueError, match="is in colour, expected a 16-bit grey PNG"):
        panoptic(tmp_path).read("0", (2, 2))
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png \(8 bytes\) is truncated or damaged"):
        panoptic(tmp_path).read("0", (2, 2))


def fbms(folder: Path, frames: tuple[str, ...], video: str = "cars1", **options: object) -> ColourMaps:
    return ColourMaps(folder, frames, video=video, options=LabelOptions(**options))  # type: ignore[arg-type]


def test_greys_are_numbered_over_the_whole_video(tmp_path: Path) -> None:
    write(tmp_path / "cars1_01.pgm", [[0, 10, 255]], np.uint8)
    write(tmp_path / "cars1_10.pgm", [[0, 128, 255]], np.uint8)
    frames = tuple(f"cars1_{number:02d}" for number in range(1, 11))
    source = fbms(tmp_path, frames)
    assert set(source.names) == {"cars1_01", "cars1_10"}
    assert source.read("cars1_01", (1, 3)).tolist() == [[0, 0, 2]]  # type: ignore[union-attr]
    assert source.read("cars1_10", (1, 3)).tolist() == [[0, 1, 2]]  # type: ignore[union-attr]
    one = fbms(tmp_path, frames, binary=True)
    assert one.read("cars1_10", (1, 3)).tolist() == [[0, 1, 1]]  # type: ignore[union-attr]


def test_what_is_background_depends_on_the_video_as_published_readers_have_it(tmp_path: Path) -> None:
    write(tmp_path / "m_1.pgm", [[0, 20, 100, 200]], np.uint8)
    found = {
        video: fbms(tmp_path, ("m_1",), video=video).read("m_1", (1, 4)).tolist()[0]  # type: ignore[union-attr]
        for video in ("cars1", "marple2", "marple7")
    }
    assert found == {"cars1": [0, 0, 1, 2], "marple2": [0, 0, 0, 1], "marple7": [0, 1, 2, 3]}


def test_a_label_file_belongs_to_the_frame_of_its_name_or_number(tmp_path: Path) -> None:
    write(tmp_path / "tennis007_gt.ppm", np.full((1, 2, 3), 255), np.uint8)
    assert set(fbms(tmp_path, ("tennis006", "tennis007")).names) == {"tennis007"}
    assert set(fbms(tmp_path, ("00006", "00007")).names) == {"00007"}
    with pytest.raises(ValueError, match=r"tennis007_gt\.ppm belongs to no frame, frames are like 00001"):
        fbms(tmp_path, ("00001",))
    assert not fbms(tmp_path / "none", ("00001",)).names
