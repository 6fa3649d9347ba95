r"""Counts what the sampler of VOS training clips draws: gaps, directions, frames hit, objects.

    python scripts/sampler_statistics.py                     # made videos of 12 to 90 frames
    python scripts/sampler_statistics.py --root DAVIS --images JPEGImages/480p \
        --annotations Annotations/480p --binary              # videos on disk

Draws are planned from label files alone; no image is decoded. The last lines compare batches read by 0, 1 and
4 workers, and those of a loader that starts in the middle of an epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import warnings
from collections import Counter

import torch
from torch import Tensor

from vosssl.clip import Batch, Clip
from vosssl.data.folders import FolderDataset
from vosssl.data.sampling import ClipLoader
from vosssl.data.sources import Video
from vosssl.data.video import clip_video
from vosssl.data.vos_clips import ClipPlan, VosClips
from vosssl.data.warps import cutie_video

CURRICULUM = [[0, 5], [1000, 10], [3000, 15], [8000, 5]]  # Cutie's, at a hundredth of its steps
BATCHES, BATCH_SIZE = 6, 4  # compared between numbers of workers
SIDE = 64  # pixels of the crops in the compared batches


def made_videos() -> list[Video]:
    """Eight videos of 12 to 90 frames with 1 to 8 objects, all of them in every frame."""
    videos = []
    for number, length in enumerate((12, 16, 20, 27, 36, 50, 70, 90)):
        labels = torch.zeros(length, 12, 16, dtype=torch.uint8)
        labels[:, 2:10, : number + 1] = torch.arange(1, number + 2, dtype=torch.uint8)
        frames = torch.zeros(length, 3, 12, 16, dtype=torch.uint8)
        videos.append(clip_video(Clip(f"made{number}", frames, labels)))
    return videos


def plans_of(dataset: VosClips, count: int, *, start_step: int) -> list[ClipPlan]:
    """Plans of consecutive steps of a loader."""
    loader = ClipLoader(dataset, batch_size=BATCH_SIZE)
    steps = range(start_step, start_step + count // BATCH_SIZE)
    return [dataset.plan(draw) for step in steps for draw in loader.draws(step)]


def gap_table(plans: list[ClipPlan]) -> str:
    gaps = [abs(b - a) for plan in plans for a, b in itertools.pairwise(plan.frames)]
    counts = Counter(gaps)
    shares = " ".join(f"{gap}:{counts[gap] / len(gaps):.3f}" for gap in sorted(counts))
    return f"mean {sum(gaps) / len(gaps):.2f}, share of each: {shares}"


def hits(plans: list[ClipPlan], lengths: list[int], *, first: bool) -> Tensor:
    """(10,) share of the frames drawn that lie in each tenth of their video, 1 for an even share."""
    places = torch.tensor(
        [
            (frame + 0.5) / lengths[plan.video] * 10
            for plan in plans
            for frame in (plan.frames[:1] if first else plan.frames)
        ]
    )
    return places.long().bincount(minlength=10) / len(places) * 10


def even_share(lengths: list[int], weights: list[int]) -> Tensor:
    """(10,) what `hits` would be if every frame were drawn as often as any other of its video."""
    share = torch.zeros(10)
    for length, weight in zip(lengths, weights, strict=True):
        tenths = ((torch.arange(length) + 0.5) / length * 10).long().bincount(minlength=10)
        share += weight * tenths / length
    return share / share.sum() * 10


def digests(batches: list[Batch]) -> list[str]:
    found = []
    for batch in batches:
        assert batch.labels is not None
        whole = [batch.frames, batch.labels, batch.num_objects, batch.seeds]
        raw = b"".join(tensor.contiguous().numpy().tobytes() for tensor in whole if tensor is not None)
        found.append(hashlib.sha256(raw).hexdigest())
    return found


def read(dataset: VosClips, *, workers: int, start: int = 0, count: int = BATCHES) -> list[str]:
    iterator = ClipLoader(dataset, batch_size=BATCH_SIZE, workers=workers).batches(start)
    batches = list(itertools.islice(iterator, count))
    iterator.close()  # type: ignore[attr-defined]
    return digests(batches)


def report(videos: list[Video], *, frames: int, objects: int, draws: int) -> None:
    dataset = VosClips(
        videos,
        num_frames=frames,
        max_jump=CURRICULUM,
        max_objects=objects,
        clips_per_video=None,
        size=SIDE,
        transform=cutie_video(SIDE),
    )
    lengths = [len(video) for video in dataset.videos()]
    print(
        f"\n{frames} frames, at most {objects} objects, {len(lengths)} videos, {len(dataset)} clips an epoch"
    )
    for step, _ in CURRICULUM:
        largest = dataset.max_jump(step)
        plans = plans_of(dataset, draws, start_step=step)
        longest = max(abs(b - a) for plan in plans for a, b in itertools.pairwise(plan.frames))
        back = sum(plan.frames[0] > plan.frames[-1] for plan in plans) / len(plans)
        first, any_frame = (hits(plans, lengths, first=flag) for flag in (True, False))
        even = even_share(lengths, [sum(plan.video == n for plan in plans) for n in range(len(lengths))])
        print(f"step {step}: max_jump {largest}, longest gap {longest}; backwards {back:.3f}")
        print(f"  gaps: {gap_table(plans)}")
        print("  first frames per tenth of the video:", " ".join(f"{v:.2f}" for v in first / even))
        print("  all frames per tenth of the video:  ", " ".join(f"{v:.2f}" for v in any_frame / even))
        early = sum(f < lengths[plan.video] / 2 for plan in plans for f in plan.frames)
        middle = sum(f == (lengths[plan.video] - 1) / 2 for plan in plans for f in plan.frames)
        print(f"  share in the first half: {(early - middle / 2) / len(plans) / frames:.4f}")
    counts = Counter(min(objects, len(plan.objects)) for plan in plans)
    print("objects of a clip:", ", ".join(f"{n}: {counts[n] / len(plans):.3f}" for n in sorted(counts)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores is what is asked for
        reference = read(dataset, workers=0)
        for workers in (1, 4):
            print(
                f"{workers} workers: batches equal those of 0:", read(dataset, workers=workers) == reference
            )
        rest = read(dataset, workers=1, start=3, count=BATCHES - 3)
        print("resumed at step 3 with 1 worker: equal:", rest == reference[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root")
    parser.add_argument("--images", default="JPEGImages")
    parser.add_argument("--annotations", default="Annotations")
    parser.add_argument("--binary", action="store_true")
    parser.add_argument("--draws", type=int, default=4000)
    options = parser.parse_args()
    videos = made_videos()
    if options.root:
        videos = FolderDataset(
            options.root, images=options.images, annotations=options.annotations, binary=options.binary
        ).videos()
    report(videos, frames=3, objects=2, draws=options.draws)
    report(videos, frames=8, objects=3, draws=options.draws)


if __name__ == "__main__":
    main()
