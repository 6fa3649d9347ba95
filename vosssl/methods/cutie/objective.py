"""What Cutie learns from: masks followed through clips, compared with the truth where they are in doubt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.losses.point_sampled_masks import point_sampled_loss, truth_masks
from vosssl.losses.point_sampling import PointRule, checked_rule
from vosssl.methods.cutie.unroll import ClipLogits
from vosssl.ops.masks import labels_to_masks
from vosssl.ops.noise import mix

_CHOICES = 0x63757469  # keeps the draws of frames and updates apart from those of points


class Objective:
    """Cross-entropy and Dice of the masks, and of what the sensory memory and the object queries say alone.

    All draws follow from the samples' seeds: which earlier frames are read, whether the sensory memory is
    updated deeply (once for a batch), and the points.

    Args:
        num_ref_frames: earlier frames that a frame reads; of more, so many are drawn for each clip.
        deep_update_prob: how often a frame's values update the sensory memory; the first frame's always do.
        train_num_points: points of a frame.
        oversample_ratio: candidates for each of them.
        importance_sample_ratio: share of the points that are chosen by doubt.
        sensory_weight: of the loss of the sensory memory's masks.
        query_weight: of the loss of the masks at each level of the object transformer.

    Raises:
        ValueError: arguments out of range.

    Source: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024, section
        4.1 and supplement (auxiliary losses), and its official program, whose names these are.
    """

    def __init__(
        self,
        *,
        num_ref_frames: int = 3,
        deep_update_prob: float = 0.2,
        train_num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        sensory_weight: float = 0.01,
        query_weight: float = 0.01,
    ) -> None:
        if num_ref_frames < 1 or not 0 <= deep_update_prob <= 1:
            raise ValueError(
                f"num_ref_frames is {num_ref_frames} and deep_update_prob {deep_update_prob}, expected 1 or "
                "more and a probability"
            )
        self.num_ref_frames = num_ref_frames
        self.deep_update_prob = deep_update_prob
        self.rule = checked_rule(PointRule(train_num_points, oversample_ratio, importance_sample_ratio))
        self.sensory_weight, self.query_weight = sensory_weight, query_weight

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted terms, means over clips.

        Raises:
            ValueError: clips of one frame, without labels, or not sampled for training on objects.
        """
        if batch.labels is None or batch.num_objects is None or batch.frames.shape[1] < 2:
            given = [name for name in ("labels", "num_objects") if getattr(batch, name) is not None]
            raise ValueError(
                "Cutie learns from clips of two frames or more with labels and num_objects, got frames "
                f"{tuple(batch.frames.shape)} (B, T, 3, H, W) and {' and '.join(given) or 'no labels'}; use "
                "vosssl.data's VosClips, StaticImages or TargetClips"
            )
        seeds = batch.seeds if len(batch.seeds) else torch.arange(len(batch))
        counts = batch.num_objects.tolist()
        ids = torch.arange(1, max(counts) + 1, device=batch.labels.device)
        logits: ClipLogits = network(
            batch.frames,
            labels_to_masks(batch.labels[:, 0], range(1, max(counts) + 1)).float(),
            ids <= batch.num_objects[:, None],
            references=[frames.to(ids.device) for frames in self.references(seeds, batch.frames.shape[1])],
            deep_updates=self.deep_updates(seeds, batch.frames.shape[1]),
        )
        device = logits.masks.device
        generators = [torch.Generator(device).manual_seed(int(seed)) for seed in mix(seeds.cpu())]
        return self.losses(logits, batch.labels, counts, generators=generators)

    def references(self, seeds: Tensor, frames: int) -> list[Tensor]:
        """Which earlier frames each frame from the second on reads.

        Args:
            seeds: (B,) of the samples.
            frames: T.

        Returns:
            (B, R) int64 each: all earlier frames, or `num_ref_frames` of them in a random order.
        """
        generators = [torch.Generator().manual_seed(int(seed)) for seed in mix(seeds.cpu() ^ _CHOICES)]
        chosen = []
        for time in range(1, frames):
            if time <= self.num_ref_frames:
                chosen.append(torch.arange(time).expand(len(seeds), -1))
            else:
                orders = [torch.randperm(time, generator=generator) for generator in generators]
                chosen.append(torch.stack(orders)[:, : self.num_ref_frames])
        return chosen

    def deep_updates(self, seeds: Tensor, frames: int) -> list[bool]:
        """Whether each frame from the second to the last but one updates the sensory memory deeply."""
        generator = torch.Generator().manual_seed(int(mix(mix(seeds.cpu()).sum() ^ _CHOICES)))
        drawn = torch.rand(max(0, frames - 2), generator=generator)
        return (drawn < self.deep_update_prob).tolist()

    def losses(
        self,
        logits: ClipLogits,
        labels: Tensor,
        counts: Sequence[int],
        *,
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """The terms of what was predicted for clips.

        Points are drawn for one clip after the other: for the masks, the sensory memory, then each level.

        Args:
            logits: of B clips.
            labels: (B, T, H, W) uint8: 0, 1..counts, 255 void; the first frame does not count.
            counts: B numbers of objects.
            generators: B, on the logits' device.

        Returns:
            Scalars, weighted.
        """
        terms: dict[str, Tensor] = {}

        def add(name: str, found: Tensor, *, clip: int, truth: Tensor, weight: float) -> None:
            loss = point_sampled_loss(found.float(), truth, self.rule, generator=generators[clip])
            for kind, value in loss._asdict().items():
                key, share = f"{name}{kind}", weight / len(labels) * value
                terms[key] = terms[key] + share if key in terms else share

        with torch.autocast(logits.masks.device.type, enabled=False):
            for clip, count in enumerate(counts):
                truth = truth_masks(labels[clip, 1:], count)
                masks, sensory, queries = (kind[clip, :, : count + 1] for kind in logits)
                add("", masks, clip=clip, truth=truth, weight=1.0)
                add("sensory_", sensory, clip=clip, truth=truth, weight=self.sensory_weight)
                for level, found in enumerate(queries.unbind(2)):
                    add(f"queries{level}_", found, clip=clip, truth=truth, weight=self.query_weight)
        return terms
