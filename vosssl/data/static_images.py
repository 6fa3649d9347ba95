"""Pictures with one object each, turned into short made-up videos: what STCN and Cutie are pre-trained on."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.clips import described
from vosssl.data.io import read_image
from vosssl.data.listing import contents, frame_name, natural_order, neighbours
from vosssl.data.objects import target_ids, with_targets
from vosssl.data.pasting import paste_objects
from vosssl.data.sampling import Draw, as_draw, generator_of, mixed_seed
from vosssl.data.transforms import Transform
from vosssl.data.warps import cutie_picture

WARPS = 5  # changes of one picture that are tried until the first frame shows the object
PICTURES = 20  # pictures that are tried until one has an object
_PICTURE_SUFFIXES = (".jpg", ".jpeg")
_LUMA = (0.299, 0.587, 0.114)


class Picture(NamedTuple):
    """An image and its mask.

    Attributes:
        image: path of a JPEG.
        mask: path of a PNG, bright where the object is.
    """

    image: Path
    mask: Path


class StaticImages:
    """Made-up videos from pictures with masks, for pre-training.

    The sets of STCN and Cutie: `fss` (a folder per class), `DUTS-TR`, `DUTS-TE`, `ecssd`, `BIG_small` and
    `HRSOD_small`; images and masks lie side by side, `1.jpg` and `1.png`. Whoever has masks in a folder of
    their own passes `masks`. There is no `frame_cache`, since an epoch reads a picture about once.

    Args:
        root: folder of the sets, "~" is the home folder.
        folder: folder of one set below root, searched with its subfolders.
        masks: folder of its masks below root; None: beside the images.
        max_objects: objects of a clip: 1 to max_objects pictures, the number drawn evenly; the second and
            third are cut out and laid over the first.
        transform: turns the clip of one picture into that of T frames; None: Cutie's.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no picture in it, or pictures without a mask.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        folder: str = "",
        masks: str | None = None,
        max_objects: int = 1,
        transform: Transform | None = None,
    ) -> None:
        if root is None or str(root) == "":
            raise ValueError(
                "this dataset needs a root: pass data.root=FOLDER, the one that holds fss, DUTS-TR, …"
            )
        if max_objects < 1:
            raise ValueError(f"max_objects is {max_objects}, expected 1 or more")
        self.folder = Path(root).expanduser() / folder
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder of pictures {self.folder}{neighbours(self.folder)}")
        mask_folder = self.folder if masks is None else Path(root).expanduser() / masks
        self.pictures = find_pictures(self.folder, mask_folder)
        self.max_objects = max_objects
        self.transform: Transform = cutie_picture() if transform is None else transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: Draw | int) -> Clip:
        index, seed, _ = as_draw(draw)
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        own = mixed_seed(seed, index)
        count = 1 + int(torch.randint(self.max_objects, (), generator=generator_of(own)))
        clip = self._moving(index, mixed_seed(own, 0))
        for number in range(1, count):
            clip = paste_objects(clip, self._moving(None, mixed_seed(own, number)))
        assert clip.labels is not None
        seen = with_targets(clip, target_ids(clip.labels))  # numbered anew: some may be hidden
        assert seen is not None
        return seen

    def _moving(self, index: int | None, seed: int) -> Clip:
        """A clip of one picture (None: any), whose object is seen in the first frame."""
        for picture in range(PICTURES):
            generator = generator_of(mixed_seed(seed, picture))
            if index is None or picture > 0:
                place = int(torch.randint(len(self), (), generator=generator))
            else:
                place = index
            still = read_picture(self.pictures[place])
            if still.labels is None or not bool(still.labels.any()):
                continue
            for _ in range(WARPS):
                moving = self.transform(still, generator)
                assert moving.labels is not None
                if bool((moving.labels[0] == 1).any()):
                    return replace(moving, num_objects=1)
        raise ValueError(
            f"{PICTURES} pictures of {self.folder} showed no object; masks are PNGs, bright where "
            "the object is"
        )

    def fingerprint(self) -> str:
        """A hash that changes when the clips may: other pictures, times or sizes of files, or arguments."""
        settings = (self.max_objects, described(self.transform))
        digest = sha256(repr(settings).encode())
        for image, mask in self.pictures:
            status = mask.stat()
            digest.update(f"{image} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()


def find_pictures(images: Path, masks: Path) -> list[Picture]:
    """The images below a folder, each with the mask of its name, in natural order.

    Args:
        images: folder of JPEGs, searched with its subfolders (FSS has one per class).
        masks: folder of PNGs, laid out likewise; it may be the same.

    Raises:
        ValueError: no images, or images without a mask; names one.
    """
    found = [path for path in images.rglob("*") if path.suffix.lower() in _PICTURE_SUFFIXES]
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise ValueError(
            f"no pictures in {images}: expected JPEGs with a PNG beside each, {contents(images)}"
        )
    found.sort(key=lambda path: natural_order(path.relative_to(images).as_posix()))
    there = {
        path.relative_to(masks).with_suffix("").as_posix(): path
        for path in masks.rglob("*")
        if path.suffix.lower() == ".png"
    }
    names = [(path.relative_to(images).parent / frame_name(path.name)).as_posix() for path in found]
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} pictures in {images} have no mask in {masks} (such as "
            f"{missing[0]}.png); download the set again, or pass masks= where they lie elsewhere"
        )
    return [Picture(path, there[name]) for path, name in zip(found, names, strict=True)]


def read_picture(picture: Picture) -> Clip:
    """A clip of one frame; its labels are 1 where the mask is brighter than the middle, 0 elsewhere.

    Raises:
        ValueError: files that cannot be read, or of different size.
    """
    image, mask = read_image(picture.image), read_image(picture.mask)  # (3, H, W) both
    if image.shape != mask.shape:
        raise ValueError(
            f"mask {picture.mask} is {tuple(mask.shape[1:])}, its picture {tuple(image.shape[1:])} (height, "
            "width); one of them was resized: download the set again"
        )
    return Clip(picture.image.stem, image[None], _bright(mask)[None])


def _bright(mask: Tensor) -> Tensor:
    """(H, W) uint8, 1 where (3, H, W) has a luma above 127.5."""
    luma = torch.einsum("c,chw->hw", torch.tensor(_LUMA), mask.float())
    return (luma > 127.5).to(torch.uint8)
