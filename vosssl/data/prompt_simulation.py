"""Prompts that a person might give, made from masks: which frames get which, clicks on errors, loose boxes.

Everything follows from numbers that the caller draws, so that prompts belong to a sample and not to a
process. Points are x and y of pixels' centres, counted from the centre of the first pixel.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.2.1, and its official
training program; boxes: Kirillov et al., "Segment Anything", ICCV 2023, appendix A ("Training algorithm").
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

import cv2
import torch
from torch import Tensor

Kind = Literal["mask", "click", "box"]


class PromptPlan(NamedTuple):
    """What is said about the objects of a clip, and where.

    Attributes:
        first: frames that begin with a prompt, before anything is followed, and its kind: all masks, or
            clicks and boxes. The clip's first frame is one of them.
        corrected: frames in which clicks follow on what is wrong; none where masks were given.
    """

    first: dict[int, Kind]
    corrected: tuple[int, ...]


class PromptRule(NamedTuple):
    """How prompts are drawn; the defaults are the published ones.

    Attributes:
        mask_probability: of masks; of clips of one frame they are none.
        box_probability: of a box where there are no masks; the rest are single clicks on the object.
        prompted_frames: at most so many frames begin with a prompt.
        corrected_frames: at most so many get clicks on errors, those that began with one among them.
        corrections: clicks on errors in each of these, one after the other.
        from_truth: how often such a click is on the object instead, wrong or not.
    """

    mask_probability: float = 0.5
    box_probability: float = 0.5
    prompted_frames: int = 2
    corrected_frames: int = 2
    corrections: int = 7
    from_truth: float = 0.1


def checked_rule(rule: PromptRule) -> PromptRule:
    """The rule itself.

    Raises:
        ValueError: no probability, no frame, or more frames that begin with a prompt than are corrected.
    """
    chances = (rule.mask_probability, rule.box_probability, rule.from_truth)
    if not all(0 <= chance <= 1 for chance in chances):
        raise ValueError(f"probabilities of prompts are {chances}, expected numbers in [0, 1]")
    if not 1 <= rule.prompted_frames <= rule.corrected_frames or rule.corrections < 0:
        raise ValueError(
            f"prompted_frames is {rule.prompted_frames}, corrected_frames {rule.corrected_frames} and "
            f"corrections {rule.corrections}; expected 1 <= prompted <= corrected, and 0 clicks or more"
        )
    return rule


def draw_plan(rule: PromptRule, frames: int, *, seed: int) -> PromptPlan:
    """Draws what is said about a clip.

    Args:
        rule: the probabilities.
        frames: T of the clip.
        seed: decides everything.

    Returns:
        The plan.
    """
    draw = random.Random(seed)
    masks = frames > 1 and draw.random() < rule.mask_probability
    prompted = draw.randint(1, min(rule.prompted_frames, frames))
    corrected = draw.randint(prompted, max(prompted, min(rule.corrected_frames, frames)))
    order = [0, *draw.sample(range(1, frames), corrected - 1)]
    first: dict[int, Kind] = {}
    for frame in order[:prompted]:
        box = draw.random() < rule.box_probability
        first[frame] = "mask" if masks else "box" if box else "click"
    return PromptPlan(first, () if masks or not rule.corrections else tuple(order))


def click_in_errors(truth: Tensor, predicted: Tensor | None, draws: Tensor) -> tuple[Tensor, Tensor]:
    """A click anywhere in what is wrong: on what is missing of the object, or beside it on what is too much.

    Args:
        truth: (N, H, W) bool.
        predicted: (N, H, W) bool; None: nothing was, so that the click is on the object.
        draws: (N,) in [0, 1), which of the wrong pixels.

    Returns:
        (N, 2) points, and (N,) bool whether they are on the object. Where nothing is wrong, a click beside
        the object.
    """
    wrong = truth if predicted is None else truth ^ predicted
    candidates = torch.where(wrong.flatten(1).any(dim=1)[:, None, None], wrong, ~truth).flatten(1)
    counts = candidates.sum(dim=1).clamp(min=1)
    wanted = (draws.to(counts.device).double() * counts).floor().clamp(max=counts - 1).long()
    place = torch.searchsorted(candidates.int().cumsum(dim=1), wanted[:, None] + 1)[:, 0]
    place = place.clamp(max=candidates.shape[1] - 1)  # all is the object, and found: any pixel
    points = torch.stack([place % truth.shape[-1], place // truth.shape[-1]], dim=1).float()
    return points, truth.flatten(1).gather(1, place[:, None])[:, 0]


def click_at_error_centre(truth: Tensor, predicted: Tensor | None) -> tuple[Tensor, Tensor]:
    """A click where what is wrong is widest, as evaluations do it.

    Args:
        truth: (N, H, W) bool.
        predicted: (N, H, W) bool; None: nothing was.

    Returns:
        As `click_in_errors`; where nothing is wrong, the first pixel.

    Source: Sofiiuk et al., "Reviving Iterative Training with Mask Guidance for Interactive Segmentation"
        (RITM), ICIP 2022; both kinds of error are looked at apart.
    """
    found = torch.zeros_like(truth) if predicted is None else predicted
    points, positive = [], []
    for true, own in zip(truth.cpu(), found.cpu(), strict=True):
        missing, excess = _depth(true & ~own), _depth(own & ~true)
        on_object = bool(missing.max() > excess.max())
        place = int((missing if on_object else excess).argmax())
        points.append([place % truth.shape[-1], place // truth.shape[-1]])
        positive.append(on_object)
    return torch.tensor(points, device=truth.device).float(), torch.tensor(positive, device=truth.device)


def _depth(mask: Tensor) -> Tensor:
    """(H, W) distance of each pixel of a mask to what is not the mask; the border counts as that."""
    framed = cv2.copyMakeBorder(mask.byte().numpy(), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return torch.from_numpy(cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))[1:-1, 1:-1]


def loose_boxes(truth: Tensor, draws: Tensor, *, share: float = 0.1, limit: float = 20.0) -> Tensor:
    """Boxes around masks whose sides are off by up to a share of the box.

    Args:
        truth: (N, H, W) bool.
        draws: (N, 4) in [0, 1): left, top, right, bottom; 0.5 is exact.
        share: largest error in widths and heights of the box.
        limit: largest error in pixels.

    Returns:
        (N, 4) left, top, right, bottom, inside the image; zeros for empty masks.
    """
    height, width = truth.shape[-2:]
    columns, rows = truth.any(dim=1), truth.any(dim=2)  # (N, W), (N, H)
    ends = [_first(columns), _first(rows), width - 1 - _first(columns.flip(1))]
    ends.append(height - 1 - _first(rows.flip(1)))
    boxes = torch.stack(ends, dim=1).float()  # (N, 4)
    spans = (boxes[:, 2:] - boxes[:, :2]).mul(share).clamp(min=0, max=limit).repeat(1, 2)
    boxes = boxes + (2 * draws.to(boxes) - 1) * spans
    largest = boxes.new_tensor([width - 1, height - 1] * 2)
    inside = torch.minimum(boxes.clamp(min=0), largest)
    return torch.where(truth.flatten(1).any(dim=1)[:, None], inside, 0.0)


def _first(flags: Tensor) -> Tensor:
    """(N,) index of the first True of each row of (N, L)."""
    return flags.int().argmax(dim=1)
