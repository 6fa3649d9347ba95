"""Clips of any labelled dataset with some of their objects as targets: training without videos on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import torch

from vosssl.clip import Clip
from vosssl.data.objects import EVERY_PIXEL, AreaRule, Others, shuffled, target_ids, with_targets
from vosssl.data.sampling import (
    ClipDataset,
    Draw,
    as_draw,
    fingerprint_of,
    generator_of,
    mixed_seed,
    read_draws,
)
from vosssl.data.vos_clips import curriculum, draw_frames

DRAWS = 20  # clips that are tried until one shows a target in its first frame


class TargetClips:
    """Some frames of labelled clips, with at most `max_objects` of the objects in the first of them.

    For clips that exist only as they are drawn (generated ones); videos are drawn from by `VosClips`.
    A clip without a target is drawn anew with another seed. Everything is decided by the draw.

    Args:
        dataset: labelled clips of one length.
        num_frames: T; None: all of them, in order.
        max_jump: largest distance between neighbouring frames, or pairs (step, distance): a curriculum.
        max_objects: N, objects of a clip, chosen at random from those in the first frame; None: all.
        others: what happens to the rest, see `with_targets`.
        min_areas: (more_than, certain, grown) of an AreaRule.
        reverse: draw clips that run backwards too.

    Raises:
        ValueError: arguments out of range.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        *,
        num_frames: int | None = 3,
        max_jump: int | Sequence[Sequence[int]] = 3,
        max_objects: int | None = 2,
        others: Others = "background",
        min_areas: Sequence[int] = EVERY_PIXEL,
        reverse: bool = True,
    ) -> None:
        if (num_frames is not None and num_frames < 1) or (max_objects is not None and max_objects < 1):
            raise ValueError(
                f"clips of {num_frames} frames with {max_objects} objects were asked for, expected 1 or more "
                "of each"
            )
        self.dataset = dataset
        self.num_frames = num_frames
        self.curriculum = curriculum(max_jump)
        self.max_objects = max_objects
        self.others: Others = others
        self.rule = AreaRule(*min_areas)
        self.reverse = reverse

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw | int) -> Clip:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw | int]) -> list[Clip]:
        """Many clips, each of them a function of its draw alone.

        Raises:
            ValueError: clips without labels, with too few frames, or hardly one that shows a target.
        """
        wanted = [as_draw(draw) for draw in draws]
        found: list[Clip | None] = [None] * len(wanted)
        for attempt in range(DRAWS):
            missing = [place for place, clip in enumerate(found) if clip is None]
            if not missing:
                break
            anew = [_anew(wanted[place], attempt) for place in missing]
            for place, draw, clip in zip(missing, anew, read_draws(self.dataset, anew), strict=True):
                found[place] = self._chosen(clip, draw)
        clips = [clip for clip in found if clip is not None]
        if len(clips) < len(found):
            raise ValueError(
                f"{DRAWS} clips drawn for {wanted[found.index(None)]} show no target in their first frame; "
                "check that their labels hold objects, and that min_areas is not too large"
            )
        return clips

    def max_jump(self, step: int) -> int:
        """Largest distance between neighbouring frames at a training step."""
        return next(jump for start, jump in reversed(self.curriculum) if start <= step)

    def _chosen(self, clip: Clip, draw: Draw) -> Clip | None:
        """Some frames and objects of a clip; None where the first frame shows no target."""
        if clip.labels is None:
            raise ValueError(f"clip {clip.name} has no labels; targets are chosen from labelled clips")
        generator = generator_of(mixed_seed(draw.seed, draw.index, 3))
        if self.num_frames is not None:
            clip = _frames_of(clip, self._places(len(clip), self.num_frames, draw.step, generator, clip.name))
        assert clip.labels is not None
        order = shuffled(target_ids(clip.labels, rule=self.rule), generator)
        return with_targets(clip, order, max_objects=self.max_objects, others=self.others, rule=self.rule)

    def _places(self, length: int, count: int, step: int, generator: torch.Generator, name: str) -> list[int]:
        """Frames of a clip, from any start that leaves room for them."""
        starts = [
            start
            for start in range(length)
            if length - start >= count or (self.reverse and start >= count - 1)
        ]
        if not starts:
            raise ValueError(f"clip {name} has {length} frames, expected at least {count}; make longer clips")
        start = starts[int(torch.randint(len(starts), (), generator=generator))]
        return draw_frames(start, length, count, self.max_jump(step), generator, reverse=self.reverse)

    def fingerprint(self) -> str:
        """A hash that changes when the clips may; features are cached as of step 0."""
        settings = (self.num_frames, self.max_jump(0), self.max_objects, self.others, self.rule, self.reverse)
        return sha256(repr((settings, fingerprint_of(self.dataset))).encode()).hexdigest()


def _anew(draw: Draw, attempt: int) -> Draw:
    """The same item with another seed; the first attempt is the draw itself."""
    return draw if attempt == 0 else draw._replace(seed=mixed_seed(draw.seed, attempt))


def _frames_of(clip: Clip, places: Sequence[int]) -> Clip:
    """Some frames of a clip in the order given; flow and features, which are of all, are left out."""
    assert clip.labels is not None
    return replace(
        clip,
        frames=clip.frames[list(places)],
        labels=clip.labels[list(places)],
        labelled=None if clip.labelled is None else clip.labelled[list(places)],
        frame_names=tuple(clip.frame_names[place] for place in places) if clip.frame_names else (),
        flow=None,
        features={},
    )
