"""Every dataset yaml builds on a miniature of the layout that it describes, with the right labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.data import miniatures
from tests.data.videos import write_dataset, write_video
from vosssl.data.sampling import ClipLoader
from vosssl.modes.config import options

CFG = Path(__file__).parents[2] / "cfg" / "data"

TRAIN_LABELS = {  # data.train.annotations of each, None: it has no training part
    "davis16": "Annotations/480p",
    "davis17": "Annotations/480p",
    "davis17_unsupervised": "Annotations_unsupervised/480p",
    "davis17_testdev": None,
    "ytvos2018": "train/Annotations",
    "ytvos2019": "train/Annotations",
    "mose": "train/Annotations",
    "mose2": "train/Annotations",
    "lvos1": "train/Annotations",
    "lvos2": "train/Annotations",
    "sav": "beside",
    "burst": "train/all_classes.json",
    "ovis": "annotations_train.json",
    "vipseg": "panomasks",
    "segtrack2": "GroundTruth",
    "fbms59": "Trainingset/{video}/GroundTruth",
    "ytvis2019": "train/instances.json",
    "ytvis2021": "train/instances.json",
    "coco": "annotations/instances_train2017.json",
    "folder": "Annotations",
}
SMALLER = {  # the miniatures have four videos
    name: {"train__part": [None, -2], "val__part": [-2, None]} for name in ("ovis", "ytvis2019", "ytvis2021")
}
SPARSE = {"sav": [0, 4, 8], "burst": [0, 3, 6, 9], "fbms59": [0, 9]} | {
    name: [0] for name in ("davis17_testdev", "ytvos2018", "ytvos2019", "mose", "mose2")
}
VIDEOS = {
    "sav": ["sav_c", "sav_d"],
    "segtrack2": ["birdfall", "bmx"],
    "fbms59": ["bear09", "cars1"],
    "ytvis2019": ["d", "c"],  # in the order of the file
    "ytvis2021": ["d", "c"],
    "ovis": ["d", "c"],
    "coco": ["000000000101", "000000000102"],
}


def _data_of(hparam: str) -> str:
    """The dataset that a recipe trains on."""
    text = (CFG.parent / "hparam" / f"{hparam}.yaml").read_text()
    found = re.search(r"override /data: (\w+)", text)
    return found[1] if found else ""


def composed(name: str, root: Path | None, **overrides: Any) -> Any:
    """The yaml as the command line composes it."""
    node = OmegaConf.load(CFG / f"{name}.yaml")
    config = OmegaConf.create({"data": node, "root": None})
    OmegaConf.set_struct(config, True)
    config.data.root = None if root is None else str(root)
    for key, value in overrides.items():
        OmegaConf.update(config.data, key.replace("__", "."), value)
    return config.data


def built(node: Any) -> Any:
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize("name", list(TRAIN_LABELS))
def test_the_labels_of_the_miniature_come_back(tmp_path: Path, name: str) -> None:
    miniatures.lay_out(name, tmp_path)
    videos = built(composed(name, tmp_path, **SMALLER.get(name, {})).val).videos()
    assert [video.name for video in videos] == VIDEOS.get(name, ["c", "d"])
    for video in videos:
        clip = video.clip(range(len(video)))
        assert clip.labels is not None and clip.labelled is not None
        labelled = clip.labelled.nonzero().flatten().tolist()
        assert labelled == SPARSE.get(name, list(range(len(video))))
        for number in labelled:
            expected = miniatures.truth(number if name != "coco" else int(video.name) - 101)
            if name == "davis16" or video.name == "birdfall":
                expected = expected.clamp(max=1)
            if name == "vipseg":
                expected[-1, -1] = 255
            if name == "coco":  # the crowd lies below the objects
                below = (expected == 0) & (torch.arange(miniatures.SIZE[0]) < 24)[:, None]
                expected[below] = 255
            assert torch.equal(clip.labels[number], expected), f"{video.name}, frame {number}"


@pytest.mark.parametrize("name", [name for name, labels in TRAIN_LABELS.items() if labels])
def test_the_yaml_trains_with_and_without_labels(tmp_path: Path, name: str) -> None:
    miniatures.lay_out(name, tmp_path)
    overrides = SMALLER.get(name, {}) | {"size": 32}
    batch = next(ClipLoader(built(composed(name, tmp_path, **overrides).train), batch_size=2).batches())
    assert batch.frames.shape == (2, 1 if name == "coco" else 4, 3, 32, 32)
    assert batch.labels is None
    data = composed(name, tmp_path, train__annotations=TRAIN_LABELS[name], **overrides)
    if name == "burst":
        data.train.stride = 1
    dataset = built(data.train)
    clip = next(
        clip for clip in (dataset[index % len(dataset)] for index in range(20)) if clip.labels is not None
    )
    assert clip.labels is not None and clip.labels.shape[1:] == (32, 32)
    assert set(clip.labels.unique().tolist()) <= {0, 1, 2, 255}


def test_every_dataset_with_a_layout_of_its_own_is_tried_here() -> None:
    readers = ("vosssl.data.folders.FolderDataset", "vosssl.data.image_folders.ImageDataset")
    of_readers = {
        path.stem
        for path in CFG.glob("*.yaml")
        if (OmegaConf.load(path).get("val") or {}).get("_target_") in readers
    }
    borrowed = {name for name in of_readers if name.startswith("vos_") or name == "static"}  # parts of others
    assert of_readers - borrowed <= set(TRAIN_LABELS)


@pytest.mark.parametrize(
    "hparam", [name for name in options("hparam") if _data_of(name) in SMALLER | {"coco": {}}]
)
def test_recipes_find_their_data_in_the_official_layout(tmp_path: Path, hparam: str) -> None:
    miniatures.lay_out(_data_of(hparam), tmp_path)
    parts = ["data.train.part=[null,-2]", "data.val.part=[-2,null]"] * (_data_of(hparam) != "coco")
    with hydra.initialize_config_dir(config_dir=str(CFG.parent.absolute()), version_base="1.3"):
        cfg = hydra.compose(
            "main",
            overrides=["mode=train", f"hparam={hparam}", f"data.root={tmp_path}", "data.size=32", *parts],
        )
    assert built(cfg.data.train)[0].frames.shape[-2:] == (32, 32)
    assert built(cfg.data.val).videos()[0].labelled is not None


@pytest.mark.parametrize("kind", ["coco", "tracks", "labelme", "cvat", "objects", "png"])
def test_own_footage_may_be_labelled_with_any_program(tmp_path: Path, kind: str) -> None:
    place = miniatures.own_footage(tmp_path, kind)
    data = composed("folder", tmp_path, annotations=place)
    assert data.kind == "auto"
    for video in built(data.val).videos():
        clip = video.clip([0, 1])
        assert clip.labels is not None and clip.labelled is not None and clip.labelled[0]
        expected = miniatures.boxes()
        assert torch.equal(clip.labels[0], expected)
    data.kind = "burst" if kind != "burst" else "png"
    if kind in ("png", "objects", "labelme", "cvat"):
        with pytest.raises(Exception, match=r"expected one for kind 'burst'|no sequences"):
            built(data.val)


def test_video_files_take_their_labels_from_one_file_each(tmp_path: Path) -> None:
    miniatures.own_footage(tmp_path / "made", "cvat")
    write_video(tmp_path / "c.mp4", frames=20, size=miniatures.SIZE)
    (tmp_path / "c.xml").write_text((tmp_path / "made/c.xml").read_text())
    data = composed("video", tmp_path, annotations="{video}.xml")
    (video,) = built(data.val).videos()
    assert torch.equal(video.clip([0]).labels[0], miniatures.boxes())


def test_video_files_need_no_more_than_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=20)
    data = composed("video", tmp_path, size=32)
    batch = next(ClipLoader(built(data.train), batch_size=2).batches())
    assert batch.frames.shape == (2, 4, 3, 32, 32)
    assert [video.name for video in built(data.val).videos()] == ["a"]


@pytest.mark.parametrize("name", [*[name for name, labels in TRAIN_LABELS.items() if labels], "video"])
def test_a_missing_root_is_asked_for(name: str) -> None:
    with pytest.raises(Exception, match=r"pass data\.root=FOLDER"):
        built(composed(name, None).train)


def test_a_dataset_in_the_wrong_place_is_explained_through_the_yaml(tmp_path: Path) -> None:
    write_dataset(tmp_path / "DAVIS", {"a": 6})
    with pytest.raises(Exception, match=r"pass root=.*DAVIS"):
        built(composed("davis17", tmp_path).val)
