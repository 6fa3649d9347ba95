"""The ViT that comes with the library: it loads by its name and beats an untrained one."""

from __future__ import annotations

from pathlib import Path

import torch

import vosssl
from vosssl.backbones.weights import SHIPPED, read_checkpoint
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine.evaluator import evaluate_lock_on
from vosssl.engine.protocol import LOCK_ON
from vosssl.modes.build import create_model, create_segmenter


def test_the_weights_are_small_and_load_by_their_name() -> None:
    path = SHIPPED / "dino-tiny.pt"
    assert path.stat().st_size < 5e6
    state = read_checkpoint(path)
    assert all(tensor.dtype == torch.float16 for tensor in state.values())
    network = create_model("dino-tiny", weights="dino-tiny")
    assert torch.equal(network.patch_embed.proj.weight, state["patch_embed.proj.weight"].float())
    assert network(torch.randn(1, 3, 32, 48)).patches.shape == (1, 24, 128)


def test_it_has_a_card() -> None:
    card = (SHIPPED / "dino-tiny.md").read_text()
    for word in ("**Data.**", "**Command.**", "**Numbers.**", "licence"):
        assert word in card


def test_it_follows_masks_better_than_an_untrained_one(tmp_path: Path) -> None:
    videos = list(SyntheticClips(size=128, frames=4, count=2, split="val", flow=False).videos())
    torch.manual_seed(0)
    untrained = create_segmenter("dino-tiny", network=create_model("dino-tiny"), size=128, device="cpu")
    trained = vosssl.create_segmenter("dino-tiny", size=128, device="cpu")
    scores = [
        evaluate_lock_on(segmenter, videos, protocol=LOCK_ON, progress=False).means()["J&F"]
        for segmenter in (untrained, trained)
    ]
    assert scores[1] > scores[0] + 0.05
