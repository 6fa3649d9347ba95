"""The mixes of STCN and Cutie build on their official layout and give batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vosssl.data.io import write_image, write_labels
from vosssl.data.pasting import PastedObjects
from vosssl.data.sampling import ClipLoader, Mix
from vosssl.data.vos_clips import VosClips

CFG = Path(__file__).parents[2] / "cfg" / "data"
LAYOUT = {  # frames of the two videos of every set
    "DAVIS/2017/trainval/{}/480p": 10,
    "YouTube/train/{}": 9,
    "MOSE/train/{}": 12,
    "BURST/train-vos/{}": 8,
    "OVIS-VOS-train/{}": 14,
}


def write_video(root: Path, folder: str, name: str, frames: int) -> None:
    for number in range(frames):
        image = torch.randint(
            0, 256, (3, 30, 44), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        labels = torch.zeros(30, 44, dtype=torch.uint8)
        labels[4:16, 4:30], labels[16:28, 10:40] = 1, 2
        write_image(root / folder.format("JPEGImages") / name / f"{number:05d}.jpg", image)
        write_labels(root / folder.format("Annotations") / name / f"{number:05d}.png", labels)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vos")
    for folder, frames in LAYOUT.items():
        for name in ("a", "b"):
            write_video(root, folder, name, frames)
    lists = root / "DAVIS/2017/trainval/ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("b\n")
    return root


def node_of(name: str, root: Path, **options: Any) -> DictConfig:
    config = OmegaConf.create({"data": OmegaConf.load(CFG / f"{name}.yaml")})
    config.data.root = str(root)
    for key, value in options.items():
        OmegaConf.update(config, f"data.{key}", value)
    node = config.data
    assert isinstance(node, DictConfig)
    return node


def built(node: Any) -> Any:
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("vos_base", 2 * (2 * 10 + 9)),
        ("vos_with_mose", 2 * (2 * 10 + 9 + 12)),
        ("vos_mega", 2 * (2 * 10 + 9 + 12 + 8 + 14)),
    ],
)
def test_a_mix_of_cutie_gives_a_clip_per_labelled_frame(root: Path, name: str, length: int) -> None:
    node = node_of(name, root, size=32, frames=4, max_jump=[[0, 5], [3, 15]])
    dataset = built(node.train)
    assert isinstance(dataset, PastedObjects)
    assert len(dataset) == length
    mix = dataset.dataset
    assert isinstance(mix, Mix)
    intervals = {"vos_base": [2, 5], "vos_with_mose": [2, 5, 5], "vos_mega": [2, 5, 5, 5, 3]}[name]
    for part, interval in zip(mix.datasets, intervals, strict=True):
        assert isinstance(part, VosClips)
        assert (part.max_jump(0), part.max_jump(3)) == (5 // interval, 15 // interval)
    (batch,) = itertools.islice(ClipLoader(dataset, batch_size=4).batches(), 1)
    assert batch.frames.shape == (4, 4, 3, 32, 32)
    assert batch.num_objects is not None
    assert 1 <= int(batch.num_objects.min()) <= int(batch.num_objects.max()) <= 3
    assert [video.name for video in built(node.val).videos()] == ["b"]


def test_the_mix_of_stcn_gives_three_frames_and_at_most_two_objects(root: Path) -> None:
    dataset = built(node_of("vos_stcn", root, size=32).train)
    assert len(dataset) == 2 * 5 + 2
    assert [part.max_jump(70000) for part in dataset.datasets] == [25, 5]
    (batch,) = itertools.islice(ClipLoader(dataset, batch_size=6).batches(), 1)
    assert batch.frames.shape == (6, 3, 3, 32, 32)
    assert batch.num_objects is not None
    assert set(batch.num_objects.tolist()) <= {1, 2}


def test_pictures_are_mixed_with_the_better_sets_five_times(tmp_path: Path) -> None:
    picture = torch.zeros(3, 40, 50, dtype=torch.uint8)
    picture[:, 10:30, 10:40] = 255
    for stem in ("fss/abacus/1", "DUTS-TR/a", "DUTS-TE/a", "ecssd/a", "BIG_small/a", "HRSOD_small/a"):
        write_image(tmp_path / f"{stem}.jpg", picture)
        write_image(tmp_path / f"{stem}.png", picture)
    for options in ({}, {"objects": 3, "augment._target_": "vosssl.data.warps.stcn_picture"}):
        dataset = built(node_of("static", tmp_path, size=32, **options).train)
        assert len(dataset) == 4 + 2 * 5
        (batch,) = itertools.islice(ClipLoader(dataset, batch_size=14).batches(), 1)
        assert batch.frames.shape == (14, 3, 3, 32, 32)
        assert batch.num_objects is not None


@pytest.mark.parametrize("name", ["vos_base", "vos_with_mose", "vos_mega", "vos_stcn"])
def test_the_curricula_are_those_of_the_papers(root: Path, name: str) -> None:
    node = node_of(name, root)
    steps = {"vos_mega": 175000, "vos_stcn": 150000}.get(name, 125000)
    shares = {step / steps: jump for step, jump in node.max_jump}
    cutie = {0.0: 5, 0.1: 10, 0.3: 15, 0.8: 5}
    assert shares == ({0.0: 5, 0.1: 10, 0.2: 15, 0.3: 20, 0.4: 25, 0.9: 5} if name == "vos_stcn" else cutie)
