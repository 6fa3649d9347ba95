"""Boxes of what a text names, by GroundingDINO from the `transformers` library: the extra `vosssl[text]`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from vosssl.engine.drawing import as_bytes
from vosssl.propagation.segmenter import Box

MODEL = "IDEA-Research/grounding-dino-tiny"


class GroundingDino:
    """Finds what a text names; the network is loaded with the first question.

    Args:
        model: a name on the Hugging Face hub, or a folder that holds model and processor.
        device: where it runs.
        threshold: smallest score of a box.
        overlap: of two boxes with a larger intersection over union, the better one is kept.

    Source: Liu et al., "Grounding DINO: marrying DINO with grounded pre-training for open-set object
        detection", 2023; thresholds as in its demo (0.35 and 0.25).
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "cpu",
        threshold: float = 0.35,
        text_threshold: float = 0.25,
        overlap: float = 0.7,
    ) -> None:
        self.model = model or MODEL
        self.device = device
        self.threshold = threshold
        self.text_threshold = text_threshold
        self.overlap = overlap
        self._loaded: tuple[Any, Any] | None = None  # processor, network

    @torch.inference_mode()
    def __call__(self, image: Tensor, text: str) -> list[tuple[Box, float]]:
        """Boxes of what the text names.

        Args:
            image: (3, H, W) RGB, uint8 or float in [0, 1].
            text: such as "a dog"; several things are parted by full stops.

        Returns:
            Boxes in pixels with their scores, best first.

        Raises:
            ValueError: the extra is not installed, the model cannot be loaded, or reads no text so long.
        """
        processor, network = self._loaded or self._load()
        prompt = text.strip().lower().rstrip(".") + "."  # the form it was trained with
        pixels = as_bytes(image).permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        inputs = processor(
            images=pixels, text=prompt, return_tensors="pt", input_data_format="channels_last"
        ).to(self.device)  # said, since a frame of 3 lines would be taken for one of 3 channels
        words, most = inputs["input_ids"].shape[-1], network.config.max_text_len
        if words > most:
            raise ValueError(
                f"the text has {words} parts of words, expected at most {most}; say less at once"
            )
        (found,) = processor.post_process_grounded_object_detection(
            network(**inputs),
            inputs["input_ids"],
            threshold=self.threshold,
            text_threshold=self.text_threshold,
            target_sizes=[tuple(image.shape[-2:])],
        )
        boxes, scores = found["boxes"].float().cpu(), found["scores"].float().cpu()  # (N, 4), (N,)
        height, width = image.shape[-2:]
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        kept = [row for row in nms(boxes, scores, self.overlap).tolist() if _has_area(boxes[row])]
        return [(Box(*boxes[row].tolist()), float(scores[row])) for row in kept]

    def _load(self) -> tuple[Any, Any]:
        try:
            from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
        except ImportError as error:
            raise ValueError(
                "finding objects by text needs the transformers library: pip install 'vosssl[text]'"
            ) from error
        try:
            processor = AutoProcessor.from_pretrained(self.model)
            network = AutoModelForZeroShotObjectDetection.from_pretrained(self.model).to(self.device).eval()
        except OSError as error:
            raise ValueError(
                f"{self.model} cannot be loaded ({' '.join(str(error).split())[:200]}); download it where "
                "there is a network and pass its folder: annotate.text=FOLDER"
            ) from error
        self._loaded = (processor, network)
        return self._loaded


def _has_area(box: Tensor) -> bool:
    left, top, right, bottom = box.tolist()
    return right - left >= 1 and bottom - top >= 1
