from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.fill import noise_video
from tests.layers.goldens import arrays, filled, names_and_shapes, official
from vosssl.layers.frame_encoders import BackboneEncoder, CNNEncoder, pixel_target


class _Dense(NamedTuple):
    patches: Tensor
    keys: Tensor
    grid: tuple[int, int]
    cls_attention: Tensor | None


class _Backbone(nn.Module):
    """Hands on each pixel as a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def dense(self, images: Tensor, *, cls_attention: bool = False) -> _Dense:
        patches = (images * self.weight).flatten(2).transpose(1, 2)
        seen = patches[..., 0][:, None] if cls_attention else None
        return _Dense(patches, 2 * patches, (images.shape[-2], images.shape[-1]), seen)


def test_frames_are_normalised_for_the_backbone_whatever_their_dtype() -> None:
    encoder = BackboneEncoder(_Backbone(), features_dim=3, output_dim=5, keys=True)
    frames = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    encoded, same = encoder(frames), encoder(frames.float() / 255)
    assert encoded.grid == (4, 6)
    assert torch.allclose(encoded.features, same.features)
    assert encoded.features[0, 0, 0] == pytest.approx(
        (frames[0, 0, 0, 0].item() / 255 - 0.485) / 0.229, abs=1e-5
    )
    assert torch.allclose(encoded.keys, 2 * encoded.features)
    assert encoded.cls_attention is None


def test_the_backbone_stays_frozen_and_in_evaluation_mode() -> None:
    encoder = BackboneEncoder(_Backbone(), features_dim=3, output_dim=5).train()
    encoded = encoder(torch.rand(1, 3, 4, 4))
    assert not encoder.backbone.training and not encoder.backbone.model.training
    assert not encoded.features.requires_grad and encoded.inputs.requires_grad
    assert not any(p.requires_grad for p in encoder.backbone.parameters())


def test_an_encoder_without_a_backbone_asks_for_features() -> None:
    with pytest.raises(ValueError, match="pass features="):
        BackboneEncoder(None, features_dim=3, output_dim=5)(torch.rand(1, 3, 4, 4))


def test_the_cnn_reconstructs_pixels_and_takes_other_sizes() -> None:
    encoder = CNNEncoder(channels=4, downsamplings=1, size=(8, 8))
    encoded = encoder(torch.rand(1, 3, 16, 32))
    assert encoded.grid == (8, 16)
    assert encoded.inputs.shape == (1, 128, 4)
    assert encoded.features.shape == (1, 512, 3)


def test_pixel_targets_are_rows_of_colours() -> None:
    frames = torch.rand(2, 3, 4, 6)
    assert torch.equal(pixel_target(frames, (4, 6))[1, 7], frames[1, :, 1, 1])
    assert pixel_target(frames, (2, 3)).shape == (2, 6, 3)


def test_savis_cnn_agrees_with_the_official_code() -> None:
    golden = arrays()
    encoder = filled(CNNEncoder(output_dim=16, channels=16, size=(16, 16), hidden_dim=24))
    assert names_and_shapes(encoder) == official("stage/enc_savi_cnn")
    frames = noise_video(2, 32, 32, 7)
    assert torch.allclose(encoder(frames).inputs, golden["enc_savi/features"], atol=1e-5, rtol=0)
    features = encoder.backbone(frames * 2 - 1).flatten(2).transpose(1, 2)
    assert torch.allclose(features, golden["enc_savi/backbone_features"], atol=1e-5, rtol=0)
