"""SAM 2 over clips with simulated prompts, differentiable: made of the steps that it follows video with.

All objects of a batch go through each step together, whatever was said about them: a *row* is one object of
one clip.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.2.1, and its official
training program. As at inference, and unlike there, pointers of frames ahead are not read, and an earlier
result that accompanies clicks is clamped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vosssl.data.prompt_simulation import PromptPlan, PromptRule, click_in_errors, loose_boxes
from vosssl.layers.prompt_encoder import ABSENT, NEGATIVE, POSITIVE, boxes_as_points
from vosssl.methods.sam2.memory_selection import pointer_reach, recall
from vosssl.methods.sam2.network import SAM2, Decoded, EncodedImage
from vosssl.methods.sam2.object_memory import ObjectTrack, gathered, outputs_of
from vosssl.ops.resize import resize_image, resize_masks

CLAMP = 32.0  # of an earlier result that accompanies clicks
NUMBERS = 6  # random ones of a row in a frame and for a click: where, its kind, and a box


class Step(NamedTuple):
    """One time that masks were decoded.

    Attributes:
        rows: (n,) int64 objects.
        frames: (n,) int64, the frame of each.
        masks: (n, M, 4h, 4w) logits of the candidates that count for these prompts: 3, or 1.
        quality: (n, M).
        object_score: (n, 1).
    """

    rows: Tensor
    frames: Tensor
    masks: Tensor
    quality: Tensor
    object_score: Tensor


@dataclass(frozen=True)
class Rows:
    """Objects of a batch of clips, and what is said about them.

    Attributes:
        clips: the clip of each of R rows.
        truth: (R, T, h, w) bool, of any size.
        plans: of each row; alike for the objects of one clip.
        draws: (R, T, 1 + corrections, NUMBERS) in [0, 1).
        rule: how prompts are drawn.
    """

    clips: Sequence[int]
    truth: Tensor
    plans: Sequence[PromptPlan]
    draws: Tensor
    rule: PromptRule


class ClipFollower:
    """Follows the rows of one batch.

    Args:
        network: in training or evaluation mode.
        images: (B, T, 3, H, W) RGB in [0, 1].
        rows: R objects.
        checkpointing: keep no activations inside of steps, compute them again for gradients.
    """

    def __init__(self, network: SAM2, images: Tensor, rows: Rows, *, checkpointing: bool = False) -> None:
        self.network = network
        self.rows = rows
        self.checkpointing = checkpointing
        self.length = images.shape[1]
        self.tracks = [ObjectTrack() for _ in rows.plans]
        self.steps: list[Step] = []
        self.frames = self._encoded(images)

    def follow(self) -> list[Step]:
        """All steps that have something to learn, in order; masks that were given are not among them."""
        self._begin()
        for frame in range(1, self.length):
            rows = [row for row, plan in enumerate(self.rows.plans) if frame not in plan.first]
            if rows:
                self._track(rows, frame)
        return self.steps

    def _encoded(self, images: Tensor) -> list[EncodedImage]:
        """Each frame of all clips; together, unless memory is to be saved."""
        learns = any(weight.requires_grad for weight in self.network.image_encoder.parameters())
        if self.checkpointing and learns:
            return [self.recomputed(self.network.encode_image, frame) for frame in images.unbind(1)]
        clips = len(images)
        encoded = self.network.encode_image(images.transpose(0, 1).flatten(0, 1))  # -> (T * B, 3, H, W)
        parts = [slice(time * clips, (time + 1) * clips) for time in range(self.length)]
        return [_rows_of(encoded, part) for part in parts]

    def _begin(self) -> None:
        """The frames that begin with a prompt, of all rows at once."""
        pairs = [(row, frame) for row, plan in enumerate(self.rows.plans) for frame in plan.first]
        kinds = [self.rows.plans[row].first[frame] for row, frame in pairs]
        masked = [pair for pair, kind in zip(pairs, kinds, strict=True) if kind == "mask"]
        pointed = [pair for pair, kind in zip(pairs, kinds, strict=True) if kind != "mask"]
        if masked:
            image = self._image(masked)
            given = resize_image(self._truth(masked)[:, None].float(), image.size) >= 0.5
            decoded = self.recomputed(self.network.accept_masks, image, given)
            self._remember(image, decoded, masked, prompted=True)
        if pointed:
            image = self._image(pointed)
            features = self.network.condition_on_memory(image, None)
            boxed = [kind == "box" for kind in kinds if kind != "mask"]
            points, labels, single = self._first_points(pointed, torch.tensor(boxed, device=features.device))
            decoded = self._decode(image, features, points, labels, multimask=single)
            for kind in (False, True):  # a click may mean several things, a box means one
                self._note(decoded, pointed, [own == kind for own in boxed], several=not kind)
            decoded = self._correct(image, features, decoded, pointed, points, labels)
            self._remember(image, decoded, pointed, prompted=True)

    def _track(self, rows: Sequence[int], frame: int) -> None:
        """One frame of rows that memory knows, with clicks on errors where the plan has them."""
        pairs = [(row, frame) for row in rows]
        image = self._image(pairs)
        features = self._conditioned(image, pairs)
        decoded = self._decode(image, features, None, None, multimask=True)
        self._note(decoded, pairs, [True] * len(pairs), several=True)
        wrong = [index for index, row in enumerate(rows) if frame in self.rows.plans[row].corrected]
        right = [index for index in range(len(rows)) if index not in wrong]
        for part, corrected in ((wrong, True), (right, False)):
            if not part:
                continue
            own, own_image, own_pairs = _some(decoded, part), _rows_of(image, part), [pairs[i] for i in part]
            if corrected:
                own = self._correct(own_image, features[part], own, own_pairs, None, None)
            if frame + 1 < self.length:  # nothing looks back at the last frame
                self._remember(own_image, own, own_pairs, prompted=corrected)

    def _first_points(self, pairs: Sequence[tuple[int, int]], boxed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A click or a box each: (n, 2, 2) points, (n, 2) labels, and (n,) bool whether it is a click."""
        truth, draws = self._truth(pairs), self._draws(pairs, 0)
        boxed = boxed & truth.flatten(1).any(dim=1)  # nothing to draw a box around: a click beside it
        clicks, positive = click_in_errors(truth, None, draws[:, 0])
        corners, kinds = boxes_as_points(loose_boxes(truth, draws[:, 2:]))
        labels = torch.where(positive, POSITIVE, NEGATIVE)[:, None].to(kinds)
        points = torch.where(boxed[:, None, None], corners, clicks[:, None].expand(-1, 2, -1))
        points = self._in_pixels(points)
        labels = torch.cat([labels, torch.full_like(labels, ABSENT)], dim=1)
        return points, torch.where(boxed[:, None], kinds, labels), ~boxed

    def _correct(
        self,
        image: EncodedImage,
        features: Tensor,
        decoded: Decoded,
        pairs: Sequence[tuple[int, int]],
        points: Tensor | None,
        labels: Tensor | None,
    ) -> Decoded:
        """Clicks on errors, one after the other, each with the result before it."""
        if not any(frame in self.rows.plans[row].corrected for row, frame in pairs):
            return decoded
        truth = self._truth(pairs)
        for click in range(1, 1 + self.rows.rule.corrections):
            draws = self._draws(pairs, click)
            size = (truth.shape[-2], truth.shape[-1])
            found = resize_masks(decoded.masks.detach(), size)[:, 0] > 0
            honest = draws[:, 1] < self.rows.rule.from_truth
            place, positive = click_in_errors(truth, found & ~honest[:, None, None], draws[:, 0])
            kind = torch.where(positive, POSITIVE, NEGATIVE)[:, None].int()
            place = self._in_pixels(place)[:, None]
            points = place if points is None else torch.cat([points, place], dim=1)
            labels = kind if labels is None else torch.cat([labels, kind.to(labels)], dim=1)
            earlier = decoded.masks.clamp(-CLAMP, CLAMP)
            single = points.shape[1] == 1  # the first click on a followed object may mean several things
            decoded = self._decode(image, features, points, labels, masks=earlier, multimask=single)
            self._note(decoded, pairs, [True] * len(pairs), several=single)
        return decoded

    def _decode(
        self,
        image: EncodedImage,
        features: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        *,
        masks: Tensor | None = None,
        multimask: bool | Tensor,
    ) -> Decoded:
        def decode(features: Tensor, masks: Tensor | None) -> Decoded:
            return self.network.decode_prompts(
                image,
                features,
                points=points,
                labels=labels,
                points_present=None if labels is None or labels.shape[1] == 1 else labels != ABSENT,
                masks=masks,
                multimask=multimask,
                require_stable=False,
            )

        return self.recomputed(decode, features, masks)

    def _note(
        self, decoded: Decoded, pairs: Sequence[tuple[int, int]], which: Sequence[bool], *, several: bool
    ) -> None:
        """Keeps what some rows have to learn from: candidates 1 to 3, or only the first."""
        candidates = decoded.candidates
        assert candidates is not None
        part = [index for index, wanted in enumerate(which) if wanted]
        if not part:
            return
        kept = slice(1, None) if several else slice(0, 1)
        rows, frames = torch.tensor([pairs[index] for index in part]).T
        masks, quality = candidates.masks[:, kept], candidates.quality[:, kept]
        score = candidates.object_score
        if len(part) < len(pairs):
            masks, quality, score = masks[part], quality[part], score[part]
        self.steps.append(Step(rows, frames, masks, quality, score))

    def _remember(
        self,
        image: EncodedImage,
        decoded: Decoded,
        pairs: Sequence[tuple[int, int]],
        *,
        prompted: bool,
    ) -> None:
        if self.length == 1:
            return
        memories = self.recomputed(self.network.encode_memory, image, decoded.masks, decoded.object_score)
        for (row, frame), output in zip(pairs, outputs_of(decoded, memories), strict=True):
            track = self.tracks[row]
            place = track.conditioning if prompted else track.tracked
            place[frame] = output

    def _conditioned(self, image: EncodedImage, pairs: Sequence[tuple[int, int]]) -> Tensor:
        tracks = [self.tracks[row] for row, _ in pairs]
        recalls = [
            recall(frame, conditioning=track.conditioning, tracked=track.tracked, length=self.length)
            for track, (_, frame) in zip(tracks, pairs, strict=True)
        ]
        memories = gathered(tracks, recalls, reach=pointer_reach(self.length))
        return self.recomputed(self.network.condition_on_memory, image, memories)

    def _image(self, pairs: Sequence[tuple[int, int]]) -> EncodedImage:
        """The encoded frame of each pair, a row each."""
        clips = self.rows.clips
        frames = {frame for _, frame in pairs}
        if len(frames) == 1:
            return _rows_of(self.frames[frames.pop()], [clips[row] for row, _ in pairs])
        parts = [_rows_of(self.frames[frame], [clips[row]]) for row, frame in pairs]
        return EncodedImage(
            torch.cat([part.features for part in parts]),
            (torch.cat([part.skips[0] for part in parts]), torch.cat([part.skips[1] for part in parts])),
            parts[0].positions,
            parts[0].prompt_positions,
        )

    def _in_pixels(self, points: Tensor) -> Tensor:
        """Points (..., 2) in pixels of the truth to pixels of the encoded images."""
        (height, width), size = self.rows.truth.shape[-2:], self.frames[0].size
        return (points + 0.5) * points.new_tensor([size[1] / width, size[0] / height]) - 0.5

    def _truth(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """(n, h, w) bool."""
        return torch.stack([self.rows.truth[row, frame] for row, frame in pairs])

    def _draws(self, pairs: Sequence[tuple[int, int]], click: int) -> Tensor:
        """(n, NUMBERS)."""
        return torch.stack([self.rows.draws[row, frame, click] for row, frame in pairs])

    def recomputed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function; to save memory its activations are computed again when they are needed."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def _rows_of(image: EncodedImage, rows: slice | Sequence[int]) -> EncodedImage:
    """Some rows of encoded images; those of all rows in order are no copy."""
    if not isinstance(rows, slice) and list(rows) == list(range(len(image.features))):
        return image
    return image._replace(features=image.features[rows], skips=(image.skips[0][rows], image.skips[1][rows]))


def _some(decoded: Decoded, rows: Sequence[int]) -> Decoded:
    """Some rows of what was decoded, without candidates."""
    if len(rows) == len(decoded.masks):
        return decoded._replace(candidates=None)
    masks, quality, pointer, score = (
        part[list(rows)] for part in (decoded.masks, decoded.quality, decoded.pointer, decoded.object_score)
    )
    return Decoded(masks, quality, pointer, score, None)
