"""Every dataset yaml of frame folders builds on a miniature of the layout that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.data.videos import write_dataset, write_sequence, write_video
from vosssl.data.sampling import ClipLoader

CFG = Path(__file__).parents[2] / "cfg" / "data"


def composed(name: str, root: Path | None, **overrides: Any) -> Any:
    """The yaml as the command line composes it."""
    node = OmegaConf.load(CFG / f"{name}.yaml")
    config = OmegaConf.create({"data": node})
    OmegaConf.set_struct(config, True)
    config.data.root = None if root is None else str(root)
    for key, value in overrides.items():
        OmegaConf.update(config.data, key.replace("__", "."), value)
    return config.data


def lay_out(name: str, root: Path) -> None:
    """The miniature: two training and two validation videos."""
    size = (48, 64)
    parts = {
        "davis16": ("JPEGImages/480p", "Annotations/480p"),
        "davis17": ("JPEGImages/480p", "Annotations/480p"),
        "folder": ("JPEGImages", "Annotations"),
        "ytvis2021": ("JPEGImages", "Annotations"),
        "ytvos2019": ("{}/JPEGImages", "{}/Annotations"),
        "coco": ("{}/JPEGImages", "{}/Annotations"),
    }
    splits = {"ytvos2019": "valid"}
    images, labels = parts[name]
    for split, videos in (("train", ("a", "b")), (splits.get(name, "val"), ("c", "d"))):
        for video in videos:
            write_sequence(
                root / images.format(split) / video,
                frames=1 if name == "coco" else 10,
                annotations=root / labels.format(split) / video,
                labelled=range(1) if name == "ytvos2019" else None,
                size=size,
            )
    listed = {"davis17": "ImageSets/2017/{}.txt", "ytvis2021": "{}.txt", "davis16": "ImageSets/480p/{}.txt"}
    if name in listed:
        for split, videos in (("train", "ab"), ("val", "cd")):
            path = root / listed[name].format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            pairs = [
                f"/{images}/{v}/{t:05d}.jpg /{labels}/{v}/{t:05d}.png" for v in videos for t in range(10)
            ]
            path.write_text("\n".join(pairs if name == "davis16" else videos))


NAMES = ["davis16", "davis17", "folder", "ytvis2021", "ytvos2019", "coco"]


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_trains_and_evaluates_on_its_layout(tmp_path: Path, name: str) -> None:
    lay_out(name, tmp_path)
    data = composed(name, tmp_path, size=32)
    batch = next(ClipLoader(instantiate(data.train, _convert_="all"), batch_size=2).batches())
    assert batch.frames.shape == (2, 1 if name == "coco" else 4, 3, 32, 32)
    assert batch.labels is None
    videos = instantiate(data.val, _convert_="all").videos()
    assert {video.name for video in videos} >= {"c", "d"}
    assert all(next(iter(video)).labels is not None for video in videos)


def test_video_files_need_no_more_than_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=20)
    data = composed("video", tmp_path, size=32)
    batch = next(ClipLoader(instantiate(data.train, _convert_="all"), batch_size=2).batches())
    assert batch.frames.shape == (2, 4, 3, 32, 32)
    assert [video.name for video in instantiate(data.val, _convert_="all").videos()] == ["a"]


@pytest.mark.parametrize("name", [*NAMES, "video"])
def test_a_missing_root_is_asked_for(name: str) -> None:
    with pytest.raises(Exception, match=r"pass data\.root=FOLDER"):
        instantiate(composed(name, None).train, _convert_="all")


def test_a_dataset_in_the_wrong_place_is_explained_through_the_yaml(tmp_path: Path) -> None:
    write_dataset(tmp_path / "DAVIS", {"a": 6})
    with pytest.raises(Exception, match=r"pass root=.*DAVIS"):
        instantiate(composed("davis17", tmp_path).val, _convert_="all")
