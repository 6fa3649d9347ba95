"""Times how fast training clips are read, beside the JPEG decoder alone and the official loaders.

    OMP_NUM_THREADS=1 python scripts/bench_data.py DAVIS [--binary] [--stcn DIR] [--cutie DIR] …
    OMP_NUM_THREADS=1 python scripts/bench_data.py --video FILE

DAVIS is a folder with JPEGImages/480p and Annotations/480p; --binary for DAVIS 2016. Every loader makes the
same kind of clip of the same files: STCN's (3 frames of 384 x 384), Cutie's (8 of 480 x 480), slots' (4 of
224 x 224). They take turns, one clip each; the numbers are medians over the turns. `decoder` decodes the
frames that ours draws in full and does nothing else. CPU time is that of the whole process, so that other
programs disturb it little; clips/s are its inverse.

The official loaders are run from checkouts (--stcn, --cutie, --videosaur). STCN's uses np.int, which NumPy
dropped: it is put back. videosaur reads arrays out of tar files; here Pillow decodes its frames, then its
transform for YouTube-VIS is applied (needs einops).
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vosssl.data.folders import FolderDataset
from vosssl.data.frame_cache import shared_frame_cache
from vosssl.data.io import read_pixels
from vosssl.data.sampling import ClipDataset, ClipLoader, Draw
from vosssl.data.transforms import Compose, HorizontalFlip, RandomCrop, RandomResizedCrop, Resize, Transform
from vosssl.data.video import Video, open_video
from vosssl.data.vos_clips import VosClips
from vosssl.data.warps import cutie_video, stcn_video

Loader = Callable[[int], object]


def main() -> None:
    """Prints a table per kind of clip, or the memory that a video file takes."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("davis", type=Path, nargs="?")
    made.add_argument("--binary", action="store_true")
    for name in ("stcn", "cutie", "videosaur"):
        made.add_argument(f"--{name}", type=Path, help="a checkout of the official code")
    made.add_argument("--video", type=Path)
    made.add_argument("--rounds", type=int, default=40)
    options = made.parse_args()
    torch.set_num_threads(1)
    if options.video is not None:
        measure_video(options.video)
    if options.davis is not None:
        for kind, loaders in kinds(options).items():
            print(f"\n{kind}\n{table(loaders, options.rounds)}", flush=True)
        print(f"\nCutie's clips through ClipLoader, batches of 4\n{workers_table(options)}", flush=True)


def kinds(options: argparse.Namespace) -> dict[str, dict[str, Loader]]:
    """The loaders of each kind of clip."""
    crop = {
        size: Compose([RandomResizedCrop(size, scale=(0.36, 1)), HorizontalFlip()]) for size in (384, 480)
    }
    slots = Compose([Resize(224), RandomCrop(224), HorizontalFlip()])
    stcn = {
        **ours(plain(options, 3, crop[384]), "crop"),
        **ours(vos(options, 3, stcn_video()), "STCN's changes"),
    }
    cutie = {
        **ours(plain(options, 8, crop[480]), "crop"),
        **ours(vos(options, 8, cutie_video()), "Cutie's changes"),
    }
    found = {
        "3 frames of 384 x 384 with labels": stcn,
        "8 frames of 480 x 480 with labels": cutie,
        "4 frames of 224 x 224": ours(plain(options, 4, slots, labels=False), "crop"),
    }
    official = {"stcn": official_stcn, "cutie": official_cutie, "videosaur": official_videosaur}
    for (name, loader), loaders in zip(official.items(), found.values(), strict=True):
        checkout = getattr(options, name)
        if checkout is not None:
            loaders[f"official {name}"] = loader(checkout, options.davis)
    return found


def plain(
    options: argparse.Namespace, frames: int, transform: Transform, *, labels: bool = True
) -> FolderDataset:
    """Clips of neighbouring frames."""
    return FolderDataset(
        options.davis,
        images="JPEGImages/480p",
        annotations="Annotations/480p" if labels else None,
        binary=options.binary,
        num_frames=frames,
        transform=transform,
    )


def vos(options: argparse.Namespace, frames: int, transform: Transform) -> VosClips:
    """Clips as VOS networks train on."""
    return VosClips(plain(options, frames, transform), num_frames=frames, max_jump=5, transform=transform)


def ours(dataset: FolderDataset | VosClips, name: str) -> dict[str, Loader]:
    """The dataset, the same with frames cached, and the decoder alone on the frames of the dataset."""
    videos = dataset.videos()
    folders = {video.name: (Path(video.folder), video.names) for video in videos}  # type: ignore[attr-defined]

    def read(turn: int) -> object:
        for video in videos:
            video.frame_cache = 0
        return dataset[Draw(turn % len(dataset), turn)]

    def cached(turn: int) -> object:
        for video in videos:
            video.frame_cache = 4 << 30
        return dataset[Draw(turn % len(dataset), turn)]

    def decode(turn: int) -> object:
        folder, names = folders[videos[turn % len(videos)].name]
        count = dataset.num_frames or len(names)
        start = random.Random(turn).randrange(len(names) - count)
        return [read_pixels(folder / name) for name in names[start : start + count]]

    return {"decoder": decode, f"ours, {name}": read, f"ours, {name}, cached": cached}


def official_stcn(checkout: Path, davis: Path) -> Loader:
    """STCN's VOSDataset."""
    sys.path.insert(0, str(checkout))
    np.int = int  # type: ignore[attr-defined]
    module = importlib.import_module("dataset.vos_dataset")
    dataset = module.VOSDataset(
        str(davis / "JPEGImages/480p"), str(davis / "Annotations/480p"), 5, is_bl=False
    )
    return lambda turn: dataset[turn % len(dataset)]


def official_cutie(checkout: Path, davis: Path) -> Loader:
    """Cutie's VOSMergeTrainDataset."""
    sys.path.insert(0, str(checkout))
    os.environ.setdefault("LOCAL_RANK", "0")
    module = importlib.import_module("cutie.dataset.vos_dataset")
    folders = {
        "im_root": str(davis / "JPEGImages/480p"),
        "gt_root": str(davis / "Annotations/480p"),
        "max_skip": 5,
        "subset": None,
        "multiplier": 1,
        "empty_masks": None,
    }
    dataset = module.VOSMergeTrainDataset({"davis": folders}, seq_length=8, max_num_obj=3, size=480)
    return lambda turn: dataset[turn * 37 % len(dataset)]


def official_videosaur(checkout: Path, davis: Path) -> Loader:
    """videosaur's transform of training clips of YouTube-VIS on frames that Pillow decodes."""
    sys.path.insert(0, str(checkout))
    package = types.ModuleType("videosaur.data")  # its own imports Lightning and webdataset
    package.__path__ = [str(checkout / "videosaur/data")]
    sys.modules["videosaur.data"] = package
    module = importlib.import_module("videosaur.data.transforms")
    config = _Config(
        name="ytvis_train",
        type="video",
        crop_type="short_side_resize_random",
        input_size=224,
        num_classes=10,
        h_flip_prob=0.5,
    )
    transform = module.build(config)["video"]
    folders = sorted((davis / "JPEGImages/480p").iterdir())

    def read(turn: int) -> object:
        names = sorted(folders[turn % len(folders)].iterdir())
        start = random.Random(turn).randrange(len(names) - 4)
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in names[start : start + 4]]
        return transform(np.stack(frames))

    return read


class _Config(dict):  # type: ignore[type-arg]
    """Entries as attributes."""

    __getattr__ = dict.__getitem__


def table(loaders: dict[str, Loader], rounds: int) -> str:
    """Times of loaders that take turns; the first ones warm up."""
    cpu: dict[str, list[float]] = {name: [] for name in loaders}
    wall: dict[str, list[float]] = {name: [] for name in loaders}
    peaks = dict.fromkeys(loaders, 0.0)
    shared_frame_cache().clear()
    for name, loader in loaders.items():
        for turn in range(-(-rounds // 2) if "cached" in name else 2):
            loader(turn)
    for turn in range(rounds):
        for name, loader in loaders.items():
            with peak_memory() as peak:
                began, began_cpu = time.perf_counter(), time.process_time()
                loader(turn % (rounds // 2) if "cached" in name else turn)
                cpu[name].append(time.process_time() - began_cpu)
                wall[name].append(time.perf_counter() - began)
            peaks[name] = max(peaks[name], peak[0])
    lines = [f"{'':34}{'CPU ms/clip':>12}{'clips/CPU s':>12}{'wall ms':>9}{'+MB':>6}"]
    for name in loaders:
        spent = statistics.median(cpu[name])
        lines.append(
            f"{name:34}{spent * 1e3:12.1f}{1 / spent:12.1f}{statistics.median(wall[name]) * 1e3:9.1f}"
            f"{peaks[name]:6.0f}"
        )
    counts = shared_frame_cache().counts
    lines.append(f"cache: {counts.hits} hits, {counts.misses} misses, {counts.bytes / 1e6:.0f} MB")
    shared_frame_cache().clear()
    return "\n".join(lines)


def workers_table(options: argparse.Namespace, *, batches: int = 6) -> str:
    """Clips per second of wall time by number of workers; what other programs leave of the cores shows."""
    lines = [f"{'workers':>8}{'clips/s':>9}"]
    dataset: ClipDataset = vos(options, 8, cutie_video())
    for workers in (0, 1, 2):
        stream = ClipLoader(dataset, batch_size=4, workers=workers).batches()
        for _ in range(2):
            next(stream)
        began = time.perf_counter()
        for _ in range(batches):
            next(stream)
        lines.append(f"{workers:8}{4 * batches / (time.perf_counter() - began):9.1f}")
        stream.close()  # type: ignore[attr-defined]
    return "\n".join(lines)


def measure_video(path: Path) -> None:
    """Memory above the idle process, and speed, of all frames in order and of clips at random places."""
    video = open_video(path, annotations=None)
    for what, read in (("all frames in order", read_all), ("60 clips of 8 frames", read_clips)):
        began = time.perf_counter()
        with peak_memory() as peak:
            count = read(video)
        seconds = time.perf_counter() - began
        print(
            f"{what}: {count} frames, {count / seconds:.0f} frames/s, {peak[0]:.0f} MB above the idle process"
        )


def read_all(video: Video) -> int:
    """Iterates a video."""
    return sum(1 for _ in video)


def read_clips(video: Video) -> int:
    """Reads clips from random places."""
    chance = random.Random(0)
    length = len(video)
    for _ in range(60):
        start = chance.randrange(length - 40)
        video.clip(range(start, start + 40, 5))
    return 60 * 8


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Megabytes of resident memory at the peak, above those at the beginning; in the list afterwards."""
    peak, done = [0.0], threading.Event()
    before = resident()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], resident() - before)


def resident() -> float:
    """Megabytes of resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
