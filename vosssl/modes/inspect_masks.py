"""What models without slots made of a video: masks with how sure they are, and features as colours."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from vosssl.clip import Frame
from vosssl.data.video import Video
from vosssl.engine.drawing import component_pictures
from vosssl.engine.evaluator import LabelVideo
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.engine.prompting import FirstMasks
from vosssl.engine.sprite_sheets import fit
from vosssl.ops.resize import resize_image
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.label_propagation import FeatureMap, LabelPropagation
from vosssl.propagation.segmenter import VideoSegmenter

MASK_SIDE = 64  # pixels of the longer side of the masks that are kept


class RememberedMap:
    """A feature map that keeps what it gave last.

    Args:
        feature_map: gives it.
    """

    def __init__(self, feature_map: FeatureMap) -> None:
        self.feature_map = feature_map
        self.newest = torch.empty(0)

    def __call__(self, network: nn.Module, image: Tensor) -> Tensor:
        """(h, w, D) of an image (1, 3, H, W)."""
        self.newest = self.feature_map(network, image)
        return self.newest


def watched_masks(
    segmenter: VideoSegmenter | LabelVideo, video: Video, *, frames: int | None = None, merge: bool = False
) -> InspectedClip:
    """Runs a model without slots over a video and keeps what there is to look at.

    A method that does not discover gets each object's mask in the first frame that shows it. Where a video
    has no labels nothing can be followed; the features of label propagation are shown all the same.

    Args:
        segmenter: any method; of one that looks at whole videos there are labels alone.
        video: with or without truth.
        frames: only the first so many.
        merge: given masks are one object, whatever their ids.

    Returns:
        The clip, without scores; "confidence" of a frame is the mean of each pixel's strongest probability.
    """
    if not isinstance(segmenter, VideoSegmenter):
        steps = list(islice(segmenter(video), frames))
        return _clip(video.name, [frame for frame, _ in steps], [labels for _, labels in steps])
    remembered = None
    if isinstance(segmenter, LabelPropagation):
        segmenter = copy.copy(segmenter)
        segmenter.feature_map = remembered = RememberedMap(segmenter.feature_map)
    prompts = None if segmenter.discovers else FirstMasks(late=True, merge=merge)
    is_followed = prompts is None or video.labelled is not None
    seen: list[Frame] = []
    predicted, features = [], []
    masks: list[dict[int, Tensor]] = []
    confidence: list[float] = []
    segmenter.reset()
    for frame in islice(video, frames):
        blank = torch.zeros(frame.image.shape[-2:], dtype=torch.uint8)
        if not is_followed:
            segmenter.step(frame.image, None if seen else blank + 1)  # a network is asked only about objects
            predicted.append(blank)
        else:
            step = segmenter.step(frame.image) if prompts is None else prompts.step(segmenter, frame)
            predicted.append(step.cpu())
            masks.append(_small_masks(segmenter))
            confidence.append(float(segmenter.probabilities.amax(0).mean()) if masks[-1] else float("nan"))
        if remembered is not None and remembered.newest.numel():
            features.append(remembered.newest.float().cpu())
        seen.append(frame)
    return _clip(
        video.name,
        seen,
        predicted,
        masks=masks,
        features=component_pictures(torch.stack(features)) if len(features) == len(seen) else None,
        frame_metrics={"confidence": confidence} if is_followed else {},
        named="class" if isinstance(segmenter, ClassSegmenter) else "object",
    )


def _small_masks(segmenter: VideoSegmenter) -> dict[int, Tensor]:
    """By id, 0 the background, the probabilities (h, w) of the newest frame; nothing before the first."""
    if not segmenter.frame_index:
        return {}
    rows = segmenter.probabilities.float()
    small = resize_image(rows, fit((rows.shape[-2], rows.shape[-1]), MASK_SIDE)).cpu()
    return dict(zip((0, *segmenter.object_ids), small, strict=True))


def _clip(
    name: str,
    seen: Sequence[Frame],
    predicted: Sequence[Tensor],
    *,
    masks: Sequence[Mapping[int, Tensor]] = (),
    features: Tensor | None = None,
    frame_metrics: Mapping[str, Sequence[float]] | None = None,
    named: str = "object",
) -> InspectedClip:
    blank = torch.zeros_like(predicted[0])
    truth = [blank if frame.labels is None else frame.labels for frame in seen]
    labelled = torch.tensor([frame.labels is not None for frame in seen])
    ids = sorted({identity for rows in masks for identity in rows})
    nothing = torch.zeros(next((rows[0].shape for rows in masks if rows), blank.shape))
    stacks = [torch.stack([rows.get(identity, nothing) for identity in ids]) for rows in masks if ids]
    return InspectedClip(
        name=name,
        frames=torch.stack([frame.image for frame in seen]),
        predicted=torch.stack(list(predicted)),
        truth=torch.stack(truth) if labelled.any() else None,
        labelled=labelled,
        masks=torch.stack(stacks) if stacks else None,
        slot_ids=ids,
        slot_names=[f"{named} {identity}" if identity else "background" for identity in ids],
        features=features,
        frame_metrics=frame_metrics or {},
    )
