from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.layers.goldens import arrays, filled, filled_as_dinosaur, names_and_shapes, official
from vosssl.layers.slot_decoders import MLPDecoder, SlotMixer, SpatialBroadcastDecoder


def _mlp() -> nn.Module:
    return MLPDecoder(24, 20, hidden_dims=(32, 40, 32), grid=(6, 6))


def _mixer(**options: object) -> nn.Module:
    return SlotMixer(24, 20, grid=(6, 6), hidden_dims=(40, 40), **options)  # type: ignore[arg-type]


DECODERS = {
    "mlp": (_mlp, (6, 6)),
    "mlp_eval8x8": (_mlp, (8, 8)),
    "mixer": (_mixer, (6, 6)),
    "mixer_plain": (lambda: _mixer(layer_norms=False, positions="none"), (6, 6)),
    "mixer_concat": (lambda: _mixer(norm_memory=False, positions="concat", temperature=2.0), (6, 6)),
}


def test_two_equal_slots_share_every_patch() -> None:
    for decoder in (_mlp(), _mixer()):
        masks = decoder(torch.randn(1, 1, 24).expand(1, 2, 24), (6, 6)).masks
        assert torch.allclose(masks, torch.full((1, 2, 36), 0.5), atol=1e-6)


def test_the_mlp_decoder_equals_blending_the_outputs_of_each_slot() -> None:
    decoder = _mlp()
    slots = torch.randn(2, 5, 24)
    outputs = decoder.mlp(slots[:, :, None] + decoder.pos_emb)  # (B, K, P, C + 1)
    masks = outputs[..., -1:].softmax(dim=1)
    decoded = decoder(slots, (6, 6))
    assert torch.allclose(decoded.reconstruction, (outputs[..., :-1] * masks).sum(1), atol=1e-5)
    assert torch.allclose(decoded.masks, masks.squeeze(-1), atol=1e-6)


@pytest.mark.parametrize("make", [_mlp, _mixer, lambda: SpatialBroadcastDecoder(24, 3, channels=4)])
def test_permuting_the_slots_permutes_the_masks_and_keeps_the_reconstruction(make) -> None:  # type: ignore[no-untyped-def]
    decoder = make()
    slots, order = torch.randn(2, 5, 24), torch.tensor([3, 1, 4, 0, 2])
    grid = (16, 32) if isinstance(decoder, SpatialBroadcastDecoder) else (6, 6)
    straight, permuted = decoder(slots, grid), decoder(slots[:, order], grid)
    assert torch.allclose(straight.masks[:, order], permuted.masks, atol=1e-5)
    assert torch.allclose(straight.reconstruction, permuted.reconstruction, atol=1e-5)
    assert torch.allclose(straight.masks.sum(1), torch.ones(2, straight.masks.shape[-1]), atol=1e-5)


def test_an_output_that_upsampling_cannot_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of 16"):
        SpatialBroadcastDecoder(24, 3)(torch.randn(1, 2, 24), (20, 20))


@pytest.mark.parametrize("name", DECODERS)
def test_the_official_patch_decoders_agree(name: str) -> None:
    golden = arrays()
    make, grid = DECODERS[name]
    decoder = filled(make())
    assert names_and_shapes(decoder) == official(f"stage/dec_{name}")
    decoded = decoder(golden["dec/slots"], grid)
    assert torch.allclose(decoded.reconstruction, golden[f"dec/{name}/reconstruction"], atol=1e-5, rtol=0)
    assert torch.allclose(decoded.masks, golden[f"dec/{name}/masks"], atol=1e-5, rtol=0)


def test_the_official_broadcast_decoder_agrees() -> None:
    golden = arrays()
    decoder = filled(SpatialBroadcastDecoder(24, 3, channels=16, upsamplings=1, scale=2))
    assert names_and_shapes(decoder) == official("stage/dec_broadcast")
    decoded = decoder(golden["dec/slots"], (8, 8))
    assert decoded.grid == (16, 16)
    image = decoded.reconstruction.transpose(1, 2).unflatten(-1, (16, 16))
    assert torch.allclose(image, golden["dec/broadcast/reconstruction"], atol=1e-5, rtol=0)
    assert torch.allclose(
        decoded.masks.unflatten(-1, (16, 16)), golden["dec/broadcast/masks"], atol=1e-5, rtol=0
    )


def test_dinosaurs_patch_decoder_agrees() -> None:
    golden = arrays("dinosaur")
    decoder = filled_as_dinosaur(
        MLPDecoder(24, 20, hidden_dims=(32, 32), grid=(6, 6), input_dim=28), "dinosaur/patch_decoder"
    )
    decoded = decoder(golden["sa/slots"], (6, 6))
    assert torch.allclose(decoded.reconstruction, golden["patch_decoder/reconstruction"], atol=1e-5, rtol=0)
    assert torch.allclose(decoded.masks, golden["patch_decoder/masks"], atol=1e-5, rtol=0)
