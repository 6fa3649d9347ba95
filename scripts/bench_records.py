"""How fast MOVi's TFRecords are read, beside the floor: decoding the PNGs of the same frames alone.

python scripts/bench_records.py ROOT [--variant movi_e] [--split validation] [--records 20]

One thread, files in the system's cache; the median over records and rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from vosssl.data.crc32c import crc32c
from vosssl.data.io import decode_planes
from vosssl.data.movi import MoviDataset
from vosssl.data.movi_video import MoviVideo
from vosssl.data.tf_example import bytes_values, example_features
from vosssl.data.tfrecord import Payload, Place, Verify, scan_records


def milliseconds(visits: list[Callable[[], object]], *, rounds: int = 3) -> float:
    """Median time of one visit."""
    times = []
    for _ in range(rounds):
        for visit in visits:
            start = time.perf_counter()
            visit()
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def floor_visit(video: MoviVideo, names: tuple[str, ...], indices: list[int]) -> Callable[[], object]:
    """Decoding alone: the encoded frames are in memory."""
    content = video.file.read(video.number)
    payload = Payload(Place(video.file.path, video.number, 0), len(content), content=content)
    features = example_features(payload)
    encoded = [bytes_values(payload, features[name])[index] for name in names for index in indices]
    return lambda: [decode_planes(picture, "frame") for picture in encoded]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--variant", default="movi_e")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--records", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def videos(verify: Verify, *, labels: bool = True, flow: bool = False) -> list[MoviVideo]:
        found = MoviDataset(
            arguments.root,
            variant=arguments.variant,
            split=arguments.split,
            resolution=arguments.resolution,
            labels=labels,
            flow=flow,
            verify=verify,
        ).videos()
        return [video for video in found if isinstance(video, MoviVideo)][: arguments.records]

    base = videos("none")
    contents = [video.file.read(video.number) for video in base]
    size = statistics.median(map(len, contents)) / 1e6
    frames = len(base[0])
    four = list(range(min(4, frames)))
    print(f"{len(base)} records of {size:.1f} MB, {frames} frames of {base[0].native_size}, labels read too")

    def clips(found: list[MoviVideo], indices: list[int]) -> list[Callable[[], object]]:
        return [partial(video.clip, indices) for video in found]

    def visits(found: list[MoviVideo]) -> list[Callable[[], object]]:
        return [partial(enter, video) for video in found]

    def enter(video: MoviVideo) -> None:
        with video.file.visit(video.number):
            pass

    names = ("video", "segmentations")
    all_frames = list(range(frames))
    known = videos("none")
    rows = {
        "index of one shard": milliseconds([partial(scan_records, base[0].file.path)]),
        "CRC-32C of bytes in memory": milliseconds([partial(crc32c, content) for content in contents]),
        "check of a record in its file": milliseconds(visits(videos("all"))),
        "4 frames, not checked, first visit": milliseconds(clips(known, four), rounds=1),
        "4 frames, not checked, later visits": milliseconds(clips(known, four)),
        "4 frames, checked (each first visit)": milliseconds(clips(videos("all"), four)),
        "4 frames, floor: PNGs alone": milliseconds([floor_visit(video, names, four) for video in base]),
        "4 frames with flow, later visits": milliseconds(clips(videos("none", flow=True), four)),
        "whole video, not checked": milliseconds(clips(known, all_frames)),
        "whole video, checked": milliseconds(clips(videos("all"), all_frames)),
        "whole video, floor: PNGs alone": milliseconds(
            [floor_visit(video, names, all_frames) for video in base]
        ),
    }
    whole = ("CRC-32C of bytes in memory", "check of a record in its file")
    for name, took in rows.items():
        speed = f"{1000 * size / took:8.0f} MB/s" if name in whole else ""
        print(f"{name:40} {took:8.2f} ms {1000 / took:8.1f} /s {speed}")


if __name__ == "__main__":
    main()
