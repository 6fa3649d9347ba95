"""vosssl: learn objects in video without labels, beside the supervised baselines, under one evaluator.

import vosssl
vosssl.list_models()
network = vosssl.create_model("dino-vits16", weights="dino-vits16")
segmenter = vosssl.create_segmenter("slots-synthetic", weights="runs/…/best.ckpt", device="cpu")
labels = segmenter.step(frame)
clip = vosssl.load_clip("video.mp4", frames=16)
report = vosssl.evaluate("predictions", "truth", protocol="davis17-val")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vosssl.clip import Batch, Clip, Frame
    from vosssl.data.video import load_clip, open_video
    from vosssl.engine.file_scoring import evaluate
    from vosssl.modes.build import create_model, create_prompter, create_segmenter, list_models
    from vosssl.propagation.click_and_track import ClickAndTrack

__version__ = "0.1.0"

_HOMES = {  # public name -> the module that defines it, imported when first asked for
    "Batch": "vosssl.clip",
    "ClickAndTrack": "vosssl.propagation.click_and_track",
    "Clip": "vosssl.clip",
    "Frame": "vosssl.clip",
    "create_model": "vosssl.modes.build",
    "create_prompter": "vosssl.modes.build",
    "create_segmenter": "vosssl.modes.build",
    "evaluate": "vosssl.engine.file_scoring",
    "list_models": "vosssl.modes.build",
    "load_clip": "vosssl.data.video",
    "open_video": "vosssl.data.video",
}

__all__ = [
    "Batch",
    "ClickAndTrack",
    "Clip",
    "Frame",
    "create_model",
    "create_prompter",
    "create_segmenter",
    "evaluate",
    "list_models",
    "load_clip",
    "open_video",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vosssl' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
