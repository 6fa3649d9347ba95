from __future__ import annotations

import torch

from tests.layers.goldens import filled
from vosssl.clip import Batch
from vosssl.layers.frame_encoders import CNNEncoder
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import SlotMixer
from vosssl.layers.slot_groups import ForegroundGroups
from vosssl.layers.slot_initializers import RandomInit
from vosssl.layers.slot_network import Encoded, SlotNetwork, trace_batch
from vosssl.layers.time_decoders import AttentionTimeDecoder, LinearTimeDecoder, SharedTimeDecoder
from vosssl.layers.transformer import TransformerEncoder


def _network(**options: object) -> SlotNetwork:
    network = SlotNetwork(
        encoder=CNNEncoder(channels=8, downsamplings=1, size=(8, 8)),
        initializer=RandomInit(4, 12),
        corrector=SlotAttention(8, 12, iterations=1),
        predictor=TransformerEncoder(12, 1),
        decoder=SlotMixer(12, 5, grid=(8, 8), hidden_dims=(16,)),
        first_iterations=3,
        **options,  # type: ignore[arg-type]
    )
    filled(network)
    return network


def test_a_trace_has_the_shapes_it_promises() -> None:
    trace = _network()(torch.rand(2, 3, 3, 16, 16))
    assert trace.slots.shape == (2, 3, 4, 12)
    assert trace.masks.shape == trace.attention.shape == (2, 3, 4, 8, 8)
    assert trace.reconstruction.shape == (2, 3, 64, 5)
    assert trace.features.shape == (2, 3, 256, 3)
    assert torch.allclose(trace.masks.sum(2), torch.ones(2, 3, 8, 8), atol=1e-5)


@torch.no_grad()
def test_frame_by_frame_equals_the_whole_clip() -> None:
    network = _network()
    frames, noise = torch.rand(2, 3, 3, 16, 16), torch.randn(2, 4, 12)
    trace = network(frames, noise=noise)
    slots = network.initial_slots(2, noise=noise)
    for time in range(3):
        encoded = network.encode(frames[:, time])
        slots, attention = network.correct(slots, encoded.inputs, first=time == 0)
        assert torch.allclose(slots, trace.slots[:, time], atol=1e-5)
        assert torch.allclose(attention, trace.attention[:, time].flatten(-2), atol=1e-5)
        masks = network.decode(slots, encoded.grid).masks
        assert torch.allclose(masks, trace.masks[:, time].flatten(-2), atol=1e-5)
        slots = network.predict(slots)


@torch.no_grad()
def test_permuting_the_noise_permutes_slots_and_masks() -> None:
    network = _network()
    frames, noise, order = torch.rand(1, 3, 3, 16, 16), torch.randn(1, 4, 12), torch.tensor([2, 0, 3, 1])
    straight, permuted = network(frames, noise=noise), network(frames, noise=noise[:, order])
    assert torch.allclose(straight.masks[:, :, order], permuted.masks, atol=1e-5)
    assert torch.allclose(straight.reconstruction, permuted.reconstruction, atol=1e-5)


@torch.no_grad()
def test_the_number_of_slots_is_free_at_test_time() -> None:
    assert _network()(torch.rand(1, 2, 3, 16, 16), num_slots=9).masks.shape == (1, 2, 9, 8, 8)


@torch.no_grad()
def test_random_slots_depend_on_the_sample_alone() -> None:
    network = _network()
    frames = torch.rand(3, 2, 3, 16, 16)
    whole = network(frames, seeds=torch.tensor([5, 6, 7]))
    alone = network(frames[1:2], seeds=torch.tensor([6]))
    assert torch.allclose(whole.slots[1:2], alone.slots, atol=1e-5)


@torch.no_grad()
def test_encoded_frames_need_no_encoder() -> None:
    network = _network()
    frames, noise = torch.rand(1, 2, 3, 16, 16), torch.randn(1, 4, 12)
    encoded = network.encode(frames.flatten(0, 1))
    straight, given = network(frames, noise=noise), network(frames, noise=noise, encoded=encoded)
    assert torch.equal(straight.masks, given.masks)


@torch.no_grad()
def test_a_batch_is_traced_with_its_own_seeds() -> None:
    network = _network()
    batch = Batch(frames=torch.rand(2, 2, 3, 16, 16), seeds=torch.tensor([3, 4]))
    assert torch.equal(trace_batch(network, batch).slots, network(batch.frames, seeds=batch.seeds).slots)


def test_image_models_have_names_without_the_wrapper_over_time() -> None:
    names = set(_network(video=False).state_dict())
    assert {"processor.corrector.to_k.weight", "decoder.pos_emb", "encoder.backbone.0.weight"} <= names
    assert "decoder.module.pos_emb" in _network().state_dict()


@torch.no_grad()
def test_the_first_time_step_gives_the_masks_and_all_of_them_the_future() -> None:
    for decoder in (
        LinearTimeDecoder(12, (0, 1)),
        AttentionTimeDecoder(12, (0, 1)),
        SharedTimeDecoder((0, 1)),
    ):
        network = _network(time_decoder=decoder)
        trace = network(torch.rand(1, 2, 3, 16, 16))
        assert trace.future is not None and trace.future.shape == (1, 2, 2, 64, 5)
        assert torch.equal(trace.future[:, :, 0], trace.reconstruction)
        decoded = network.decode(trace.slots.flatten(0, 1), (8, 8))
        assert torch.allclose(decoded.masks, trace.masks.flatten(0, 1).flatten(-2), atol=1e-6)
        shared = isinstance(decoder, SharedTimeDecoder)
        assert torch.equal(trace.future[:, :, 0], trace.future[:, :, 1]) == shared


@torch.no_grad()
def test_groups_share_no_patch_and_may_mix_after_the_first_frame() -> None:
    looked_at = torch.zeros(2, 1, 64)
    looked_at[:, :, :20] = 1.0  # the class token looks at the first 20 patches
    encoded = Encoded(torch.randn(2, 64, 8), torch.randn(2, 64, 3), (8, 8), cls_attention=looked_at)
    frames = torch.zeros(1, 2, 3, 16, 16)
    always = _network(groups=ForegroundGroups(12, counts=(1, 3)))
    attention = always(frames, encoded=encoded).attention.flatten(-2)
    assert attention[0, :, :1, :20].sum() == 0 and attention[0, :, 1:, 20:].sum() == 0
    initial = _network(groups=ForegroundGroups(12, counts=(1, 3), strategy="initial"))
    attention = initial(frames, encoded=encoded).attention.flatten(-2)
    assert attention[0, 0, 1:, 20:].sum() == 0 and attention[0, 1, 1:, 20:].sum() > 0
