"""GrabCut: masks from clicks and boxes by colour alone; the floor of promptable networks, with no weights.

What differs from its surroundings in colour comes out well, what does not, does not.

Source: Rother et al., "GrabCut: interactive foreground extraction using iterated graph cuts", SIGGRAPH 2004,
as OpenCV implements it. Clicks are not in the paper: without a box or mask the first guess is what is
connected with the clicks through similar colours, and the middle of a box is taken to be the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from vosssl.layers.prompt_encoder import NEGATIVE, POSITIVE
from vosssl.ops.images import as_float
from vosssl.ops.resize import Size, resize_image, resize_masks, resize_to_longest
from vosssl.propagation.image_prompting import EncodedImage, ImagePrompter, MaskCandidates, PromptRows

LOGIT = 8.0  # of what is inside; what is outside gets its negative
CORE = 0.15  # of a box's sides: half axes of the ellipse in its middle that is taken to be the object
BINS = 8  # of each colour channel, where colours are compared


class GrabCut:
    """A "network" that `ImagePrompter` can ask.

    Args:
        side: longer side of the image that is cut, in pixels.
        iterations: of the cut.
        tolerances: colour distances (CIELAB, 8 bits a channel) of the first guesses from clicks; one
            candidate mask for each.
        radius: pixels of the cut image around a click that are certain.
    """

    def __init__(
        self,
        *,
        side: int = 256,
        iterations: int = 3,
        tolerances: Sequence[float] = (12.0, 24.0, 48.0),
        radius: int = 2,
    ) -> None:
        if side < 16 or iterations < 1 or not tolerances:
            raise ValueError(
                f"side is {side}, iterations {iterations}, tolerances {list(tolerances)}; expected at least "
                "16, 1 and one tolerance"
            )
        self.side = side
        self.iterations = iterations
        self.tolerances = tuple(tolerances)
        self.radius = radius

    @property
    def mask_prompt_size(self) -> Size:
        """(h, w) of mask prompts: a square that the image fills from the upper left corner."""
        return self.side, self.side

    def encode_image(self, image: Tensor) -> EncodedImage:
        """The image, smaller; see `PromptableNetwork`."""
        small = as_float(resize_to_longest(image.cpu(), self.side))
        return EncodedImage(
            (small[None],), (image.shape[-2], image.shape[-1]), (small.shape[-2], small.shape[-1])
        )

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """Masks of prompts, one for each tolerance where a prompt is clicks alone and `multimask`."""
        scaled = prompts.scaled_to(image)
        bgr = (image.features[0][0].flip(0).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
        count = next(len(values) for values in scaled if values is not None)
        tolerances = self.tolerances if multimask else self.tolerances[len(self.tolerances) // 2 :][:1]
        logits = torch.full((count, len(tolerances), self.side, self.side), -LOGIT)
        quality = torch.zeros(count, len(tolerances))
        for row in range(count):
            for column, tolerance in enumerate(tolerances):
                mask = self._cut(bgr, scaled.part(slice(row, row + 1)), tolerance)
                logits[row, column, : mask.shape[0], : mask.shape[1]][torch.from_numpy(mask)] = LOGIT
                quality[row, column] = contrast(bgr, mask)
        return MaskCandidates(logits, quality)

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """(P, M, side, side) to (P, M, H, W)."""
        return resize_masks(logits[..., : image.inner[0], : image.inner[1]], image.size)

    def _cut(self, bgr: np.ndarray, prompt: PromptRows, tolerance: float) -> np.ndarray:
        """(h, w) bool of one prompt."""
        height, width = bgr.shape[:2]
        guess = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
        earlier = np.zeros((height, width), bool)
        on, off = _points(prompt, (height, width))
        if prompt.masks is not None:
            square = resize_image(prompt.masks[0].float().cpu(), self.mask_prompt_size)[0]
            earlier = square[:height, :width].numpy() > 0
            guess[earlier] = cv2.GC_PR_FGD
        if prompt.boxes is not None:
            left, top, right, bottom = prompt.boxes[0].round().int().tolist()
            inside = np.zeros((height, width), bool)
            inside[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)] = True
            guess[inside & (guess == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
            guess[~inside] = cv2.GC_BGD
            if not on:  # or the cut often finds that all is background
                axes = (max(1, round(CORE * (right - left))), max(1, round(CORE * (bottom - top))))
                cv2.ellipse(
                    guess, ((left + right) // 2, (top + bottom) // 2), axes, 0, 0, 360, cv2.GC_FGD, -1
                )
        for points, kind in ((on, cv2.GC_PR_FGD), (off, cv2.GC_PR_BGD)):
            fresh = [(x, y) for x, y in points if guess[y, x] != kind]
            guess[connected(bgr, fresh, tolerance) & (guess != cv2.GC_BGD)] = kind
        for points, kind in ((on, cv2.GC_FGD), (off, cv2.GC_BGD)):
            for x, y in points:
                cv2.circle(guess, (x, y), self.radius, kind, -1)
        known = earlier | (guess == cv2.GC_FGD)
        mask = self._converged(bgr, guess)
        return overlapping(mask, known) if on else mask

    def _converged(self, bgr: np.ndarray, guess: np.ndarray) -> np.ndarray:
        inside = (guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)
        if not inside.any() or inside.all():  # there are no two sets of colours to tell apart
            return inside
        cv2.setRNGSeed(0)
        models: tuple[np.ndarray, np.ndarray] = (np.zeros((1, 65)), np.zeros((1, 65)))
        cv2.grabCut(bgr, guess, (0, 0, 1, 1), *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        found = (guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)
        return found if found.any() else inside


def grab_cut_prompter(
    *,
    side: int = 256,
    iterations: int = 3,
    tolerances: Sequence[float] = (12.0, 24.0, 48.0),
    radius: int = 2,
) -> ImagePrompter:
    """A prompter that needs no weights.

    Args:
        side, iterations, tolerances, radius: see `GrabCut`.
    """
    return ImagePrompter(GrabCut(side=side, iterations=iterations, tolerances=tolerances, radius=radius))


def _points(prompt: PromptRows, size: Size) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pixels (x, y) on the object and beside it."""
    found: dict[int, list[tuple[int, int]]] = {POSITIVE: [], NEGATIVE: []}
    if prompt.points is not None and prompt.labels is not None:
        for (x, y), label in zip(prompt.points[0].tolist(), prompt.labels[0].tolist(), strict=True):
            if label in found:
                found[label].append((min(max(round(x), 0), size[1] - 1), min(max(round(y), 0), size[0] - 1)))
    return found[POSITIVE], found[NEGATIVE]


def connected(bgr: np.ndarray, points: Sequence[tuple[int, int]], tolerance: float) -> np.ndarray:
    """Pixels that hang together with one of the points and are like it in colour.

    Args:
        bgr: (h, w, 3) uint8.
        points: x and y.
        tolerance: largest distance in CIELAB.

    Returns:
        (h, w) bool.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(bgr, (5, 5), 0), cv2.COLOR_BGR2LAB).astype(np.float32)
    found = np.zeros(bgr.shape[:2], bool)
    for x, y in points:
        near = np.linalg.norm(lab - lab[y, x], axis=-1) <= tolerance
        _, parts = cv2.connectedComponents(near.astype(np.uint8))
        found |= parts == parts[y, x]
    return found


def overlapping(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The connected parts of a mask (h, w) bool that meet what is known to be the object, (h, w) bool."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.isin(parts, np.unique(parts[known & mask])) & mask


def contrast(bgr: np.ndarray, mask: np.ndarray) -> float:
    """How unlike the colours inside a mask are to those just around it: 0 the same, 1 none in common."""
    if not mask.any():
        return 0.0
    radius = max(2, round(0.2 * float(np.sqrt(mask.sum()))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    around = cv2.dilate(mask.astype(np.uint8), disk).astype(bool) & ~mask
    if not around.any():
        return 0.0
    codes = (bgr.astype(np.int64) * BINS // 256) @ np.array([1, BINS, BINS**2])
    inner, outer = (np.bincount(codes[area], minlength=BINS**3) / area.sum() for area in (mask, around))
    return float(1 - np.minimum(inner, outer).sum())
