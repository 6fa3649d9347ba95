"""Pictures with masks become clips whose first frame shows the object."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vosssl.data.io import write_image
from vosssl.data.sampling import Draw
from vosssl.data.static_images import StaticImages, find_pictures, read_picture
from vosssl.data.warps import stcn_picture


def write_pair(
    stem: Path, *, size: tuple[int, int] = (30, 40), value: int = 255, suffix: str = ".jpg"
) -> None:
    """A picture that is white inside the object and black elsewhere, and its mask."""
    mask = torch.zeros(3, *size, dtype=torch.uint8)
    mask[:, size[0] // 4 : 3 * size[0] // 4, size[1] // 4 : 3 * size[1] // 4] = value
    write_image(stem.with_suffix(".png"), mask)
    write_image(stem.with_suffix(suffix), mask)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`fss` with a folder per class and `ecssd` with all files in one, as in the official bundle."""
    for name in ("ab_wheel/1", "ab_wheel/2", "zebra/1"):
        write_pair(tmp_path / "fss" / name)
    for name in ("0001", "0002"):
        write_pair(tmp_path / "ecssd" / name, size=(40, 30))
    return tmp_path


def test_pairs_are_found_in_both_layouts(root: Path) -> None:
    names = [
        picture.image.relative_to(root).as_posix() for picture in StaticImages(root, folder="fss").pictures
    ]
    assert names == ["fss/ab_wheel/1.jpg", "fss/ab_wheel/2.jpg", "fss/zebra/1.jpg"]
    assert len(StaticImages(root, folder="ecssd")) == 2


def test_masks_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_pair(tmp_path / "x" / "a")
    (tmp_path / "masks").mkdir()
    (tmp_path / "x" / "a.png").rename(tmp_path / "masks" / "a.png")
    assert len(StaticImages(tmp_path, folder="x", masks="masks")) == 1


def test_grey_levels_above_the_middle_are_the_object(root: Path) -> None:
    write_pair(root / "grey" / "dark", value=127)
    write_pair(root / "grey" / "light", value=128)
    dark, light = (read_picture(picture) for picture in find_pictures(root / "grey", root / "grey"))
    assert dark.labels is not None
    assert light.labels is not None
    assert int(dark.labels.sum()) == 0
    assert int(light.labels.sum()) == 15 * 20


def test_a_picture_becomes_a_clip_of_one_object(root: Path) -> None:
    dataset = StaticImages(root, folder="fss", transform=stcn_picture(32))
    for seed in range(6):
        clip = dataset[Draw(seed % 3, seed)]
        assert clip.frames.shape == (3, 3, 32, 32)
        assert clip.labels is not None
        assert clip.num_objects == 1
        assert clip.labels[0].unique().tolist()[-1] == 1
        bright = clip.frames.float().mean(1)
        assert bright[clip.labels == 1].mean() > bright[clip.labels == 0].mean() + 50
        assert torch.equal(clip.frames, dataset[Draw(seed % 3, seed)].frames)


def test_several_pictures_are_laid_over_each_other(root: Path) -> None:
    dataset = StaticImages(root, folder="fss", max_objects=3, transform=stcn_picture(32))
    counts = []
    for seed in range(60):
        clip = dataset[Draw(0, seed)]
        assert clip.labels is not None
        assert clip.num_objects is not None
        assert set(clip.labels[0].unique().tolist()) - {0} == set(range(1, clip.num_objects + 1))
        counts.append(clip.num_objects)
    assert set(counts) == {1, 2, 3}


def test_an_empty_mask_is_replaced_by_another_picture(root: Path) -> None:
    write_pair(root / "mixed" / "1", value=0)
    write_pair(root / "mixed" / "2")
    assert StaticImages(root, folder="mixed", transform=stcn_picture(32))[0].num_objects == 1
    write_pair(root / "none" / "1", value=0)
    with pytest.raises(ValueError, match="showed no object"):
        StaticImages(root, folder="none", transform=stcn_picture(32))[0]


def test_what_is_missing_is_said(root: Path) -> None:
    with pytest.raises(ValueError, match="needs a root"):
        StaticImages(None)
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures .*DUTS-TR.*ecssd"):
        StaticImages(root, folder="DUTS-TR")
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no pictures in .* it is empty"):
        StaticImages(root, folder="empty")
    (root / "ecssd" / "0002.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 pictures .* have no mask .*0002\.png"):
        StaticImages(root, folder="ecssd")
    write_image(root / "ecssd" / "0002.png", torch.zeros(3, 5, 5, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"is \(5, 5\), its picture \(40, 30\)"):
        StaticImages(root, folder="ecssd")[Draw(1)]


def test_the_fingerprint_changes_with_pictures_and_arguments(root: Path) -> None:
    prints = {
        StaticImages(root, folder="fss").fingerprint(),
        StaticImages(root, folder="ecssd").fingerprint(),
        StaticImages(root, folder="fss", max_objects=2).fingerprint(),
    }
    assert len(prints) == 3
