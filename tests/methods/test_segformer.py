"""SegFormer against the outputs of Hugging Face's implementation, and published weights as a start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fill import filled
from vosssl.backbones.mit import MixTransformer
from vosssl.backbones.weights import load_weights
from vosssl.methods.segformer import SegFormer
from vosssl.modes.build import build, method_config

GOLDENS = Path(__file__).parents[1] / "goldens" / "segformer" / "transformers.npz"
SMALL = {"widths": (8, 8, 10, 8), "depths": (1, 1, 1, 1), "head_width": 8}


def published(name: str, *, num_classes: int) -> SegFormer:
    network: SegFormer = build(method_config(f"segformer-{name}").network, num_classes=num_classes)
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()


@pytest.mark.parametrize("name", ["b0", "b2"])
@torch.no_grad()
def test_outputs_and_keys_are_those_of_transformers(name: str) -> None:
    with np.load(GOLDENS) as goldens:
        expected = {key: goldens[key] for key in goldens.files if key.startswith(name)}
    network = published(name, num_classes=5)
    assert list(network.state_dict()) == str(expected[f"{name}/keys"]).split("\n")
    normal = np.random.RandomState(0).standard_normal((1, 3, 75, 101))
    image = torch.tensor(normal, dtype=torch.float32)
    for level, maps in enumerate(network.frame_features(image)):
        assert np.allclose(maps[0, :8], expected[f"{name}/level{level}"], atol=2e-5)
    assert np.allclose(network(image)[0], expected[f"{name}/logits"], atol=2e-5)


@torch.no_grad()
def test_frames_of_clips_are_segmented_one_by_one() -> None:
    network = SegFormer(**SMALL).eval()
    clips = torch.randn(2, 3, 3, 32, 40)
    logits = network(clips)
    assert logits.shape == (2, 3, 2, 8, 10)
    assert torch.allclose(logits[1, 2], network(clips[1, 2:])[0], atol=1e-5)
    newest = network.newest_logits([network.frame_features(clips[0, :1])])
    assert torch.allclose(newest[0], logits[0, 0], atol=1e-5)


def test_stochastic_depth_leaves_branches_out_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = MixTransformer(widths=SMALL["widths"], depths=(1, 1, 1, 2), drop_path=0.9)
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(encoder(images)[-1], encoder(images)[-1])
    encoder.eval()
    assert torch.equal(encoder(images)[-1], encoder(images)[-1])


def imagenet(network: SegFormer) -> dict[str, Tensor]:
    """The file of an encoder with its classifier of images, as `nvidia/mit-b0`."""
    state = {key: value + 1 for key, value in network.state_dict().items() if key.startswith("segformer.")}
    return state | {"classifier.weight": torch.zeros(1000, 8), "classifier.bias": torch.zeros(1000)}


def test_an_encoder_of_images_is_a_start_and_the_head_stays() -> None:
    network = SegFormer(**SMALL)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_weights(network, imagenet(network))
    for key, value in network.state_dict().items():
        expected = before[key] + 1 if key.startswith("segformer.") else before[key]
        assert torch.equal(value, expected)


def test_other_classes_leave_the_last_layer_fresh_and_nothing_else() -> None:
    network, other = SegFormer(**SMALL), SegFormer(**SMALL, num_classes=150)
    last = network.decode_head.classifier.weight.detach().clone()
    load_weights(network, other.state_dict())
    assert torch.equal(network.decode_head.classifier.weight, last)
    assert torch.equal(network.decode_head.linear_fuse.weight, other.decode_head.linear_fuse.weight)


def test_weights_that_lack_anything_else_are_refused() -> None:
    network = SegFormer(**SMALL)
    state = imagenet(network)
    del state["segformer.encoder.layer_norm.3.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(segformer.encoder.layer_norm.3.bias\)"):
        load_weights(network, state)
    with pytest.raises(ValueError, match="of another shape"):
        load_weights(
            SegFormer(widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), head_width=8), network.state_dict()
        )


def test_images_that_are_not_normalised_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="minus IMAGENET_MEAN"):
        SegFormer(**SMALL)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected four of each"):
        MixTransformer(widths=(8, 8), depths=(1, 1))
    with pytest.raises(ValueError, match="multiples of the heads"):
        MixTransformer(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))
