"""Cutie's network beside what the official code computed, and what must hold for any weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vosssl
from tests.fill import box_mask, noise_video
from tests.methods.cutie_models import (
    BACKBONES,
    arrays,
    assert_agrees,
    cutie_filled,
    index,
    keys,
    official_cutie,
    tiny_cutie,
)
from vosssl.backbones.weights import load_weights
from vosssl.methods.cutie.network import Cutie
from vosssl.methods.cutie.object_transformer import MultiHeadAttention, attention_masks
from vosssl.ops.memory_reading import memory_features, query_features, top_readout, top_softmax
from vosssl.propagation.memory_network import Carry, EncodedFrame


def tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)


def frame_of(frames: EncodedFrame, number: int) -> EncodedFrame:
    part = slice(number, number + 1)
    assert frames.shrinkage is not None and frames.selection is not None
    features = tuple(maps[part] for maps in frames.features)
    return EncodedFrame(frames.key[part], frames.shrinkage[part], frames.selection[part], features)


@contextmanager
def watched(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """What modules are given and give while the block runs, by the names given here."""
    seen: dict[str, tuple[Any, Any]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, given: Any, result: Any) -> None:
            seen[name] = (given, result)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def attention_weights(module: MultiHeadAttention, given: tuple[Any, ...]) -> Tensor:
    """(N, heads, L, M) of one call."""
    query, key, _, allowed = (*given, None)[:4]
    weight, bias = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    heads = [
        nn.functional.linear(part, weight[i], bias[i]).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        for i, part in enumerate((query, key))
    ]
    scores = heads[0] @ heads[1].transpose(2, 3) / heads[0].shape[-1] ** 0.5
    return (scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)).softmax(dim=-1)


def two_frames(variant: str) -> tuple[Cutie, Tensor, Tensor, EncodedFrame]:
    inputs = index()[f"{variant}/stage/INPUT"]
    video = noise_video(*inputs["video"])
    labels = box_mask(*video.shape[-2:], inputs["boxes"])
    masks = torch.stack([labels == 1, labels == 2])[None].float()
    network = official_cutie(variant)
    return network, video, masks, network.encode_frame(video)


def encoding(variant: str) -> dict[str, Tensor]:
    network, video, masks, frames = two_frames(variant)
    maps4, maps8, maps16 = network.pixel_encoder.pyramid((video - network.pixel_mean) / network.pixel_std)
    first = frame_of(frames, 0)
    with watched({"trunk": network.mask_encoder.fuser, "summaries": network.object_summarizer}) as seen:
        values, carry = network.memorise(video[:1], first, masks, network.fresh_carry(first, 2))
    summarizer = network.object_summarizer
    logits = summarizer.weights_pred(summarizer.tokens(values))
    positions = summarizer.pos_enc(6, 8).unflatten(0, (6, 8))
    assert frames.shrinkage is not None and frames.selection is not None
    return {
        "f16": maps16,
        "f8": maps8,
        "f4": maps4,
        "pix_feat": frames.features[0],
        "key": frames.key,
        "shrinkage": frames.shrinkage,
        "selection": frames.selection,
        "mask_encoder_layer3": seen["trunk"][0][1],
        "mask_value": values,
        "sensory_after_deep_update": carry["sensory"],
        "object_summaries": carry["summaries"],
        "summary_weight_logits": logits.unflatten(0, (1, 2)).unflatten(2, (6, 8)),
        "summarizer_pos_enc": positions[None, None],
        "spatial_pe": network.object_transformer.spatial_pe(6, 8).unflatten(0, (6, 8)).expand(2, -1, -1, -1),
    }


def reading(first: EncodedFrame, second: EncodedFrame, values: Tensor) -> dict[str, Tensor]:
    assert first.shrinkage is not None and second.selection is not None
    queries = query_features(tokens(second.key), tokens(second.selection))
    memory = memory_features(tokens(first.key), tokens(first.shrinkage), selects=True)
    scores = queries @ memory.transpose(1, 2)  # (1, Q, M)
    best = top_softmax(scores[0], 30)
    affinity = torch.zeros(48, 48).scatter_(1, best.places, best.weights)
    readout = top_readout(best, tokens(values.flatten(1, 2))[0])  # (Q, N * C)
    return {
        "similarity": scores.transpose(1, 2),
        "affinity_full": scores.softmax(dim=2).transpose(1, 2),
        "affinity_top30": affinity.T[None],
        "usage": affinity.sum(dim=0)[None],
        "visual_readout": readout.T.reshape(1, 2, 256, 6, 8),
    }


def segmentation(variant: str) -> dict[str, Tensor]:
    network, video, masks, frames = two_frames(variant)
    first, second = frame_of(frames, 0), frame_of(frames, 1)
    values, carry = network.memorise(video[:1], first, masks, network.fresh_carry(first, 2))
    found = reading(first, second, values)
    readout = found["visual_readout"]
    transformer, decoder = network.object_transformer, network.mask_decoder
    blocks = {f"block{i}": block for i, block in enumerate(transformer.blocks)}
    last: Any = transformer.blocks[-1]
    attentions = {"q": last.read_from_pixel.cross_attn, "p": last.read_from_query.cross_attn}
    steps = {"decoder_up_16_8": decoder.up_16_8, "decoder_up_8_4": decoder.up_8_4}
    with watched(blocks | attentions | steps) as seen:
        fused = network.fuse(second, readout, carry["sensory"], masks)
        features, levels = network.read_objects(fused, carry["summaries"])
        auxiliary = network.auxiliary_logits(second, carry["sensory"], features, levels)
        logits, sensory = network.decode(second, features, carry["sensory"])
    found |= {
        "pixel_fusion": fused,
        "object_readout": features,
        "decoder_pred_logits": logits[0].unsqueeze(1),
    }
    for name in blocks:
        queries, pixels = seen[name][1]
        found |= {f"{name}_query": queries, f"{name}_pixel": pixels.unsqueeze(0)}
    for level, maps in enumerate([*levels, transformer.level_logits(features, 3)]):
        allowed = attention_masks(maps, 16).expand(-1, 8, -1, -1).flatten(0, 1)
        found |= {f"query_mask_logits_l{level}": maps, f"attn_mask_l{level}": (~allowed).byte()}
    weights = {name: attention_weights(module, seen[name][0]) for name, module in attentions.items()}
    weights["p"] = weights["p"].transpose(2, 3)
    found |= {
        f"{name}_weights_last": value.unflatten(-1, (6, 8)).unsqueeze(0) for name, value in weights.items()
    }
    found |= {name: seen[name][1].unsqueeze(0) for name in steps}
    probabilities, after = network.predict(second, [readout], carry, masks)
    assert torch.equal(after["sensory"], sensory)
    values, final = network.memorise(video[1:], second, probabilities[:, 1:], after)
    return found | {
        "sensory_after_segment": sensory,
        "segment_logits": network.compete(logits),
        "segment_prob": probabilities,
        "mask_value_1": values,
        "sensory_after_deep_update_1": final["sensory"],
        "object_summaries_1": final["summaries"] - carry["summaries"],
        "aux_sensory_logits": auxiliary.sensory,
        "aux_query_logits": auxiliary.queries,
    }


@pytest.mark.parametrize("variant", BACKBONES)
def test_every_stage_computes_what_the_official_code_computes(variant: str) -> None:
    with torch.no_grad():
        found = encoding(variant) | segmentation(variant)
    recorded = {name.rpartition("/")[2] for name in arrays() if name.startswith(f"{variant}/stage/")}
    assert set(found) == recorded
    for name, values in found.items():
        assert_agrees(values, f"{variant}/stage/{name}", relative=3e-5)


@pytest.mark.parametrize("variant", BACKBONES)
def test_the_state_has_the_official_names_in_their_order(variant: str) -> None:
    state = official_cutie(variant).state_dict()
    own = [
        [name, list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()
    ]
    assert own == [[name, shape, kind.removeprefix("torch.")] for name, shape, kind in keys()[variant]]


def video_memory(
    network: Cutie, objects: int, seed: int = 3, videos: int = 1
) -> tuple[EncodedFrame, Tensor, Carry, Tensor, Tensor]:
    """A frame, a readout, what objects carry and their masks: (H, W) = (48, 64)."""
    images = noise_video(videos, 48, 64, seed)
    frame = network.encode_frame(images)
    masks = torch.rand(videos, objects, 48, 64, generator=torch.Generator().manual_seed(seed)) / objects
    values, carry = network.memorise(images, frame, masks, network.fresh_carry(frame, objects))
    return frame, values, carry, masks, images


def test_the_order_of_objects_is_that_of_their_masks() -> None:
    network = tiny_cutie()
    with torch.no_grad():
        frame, readout, carry, masks, _ = video_memory(network, 4)
        straight, kept = network.predict(frame, [readout], carry, masks)
        order = torch.tensor([2, 0, 3, 1])
        shuffled = {name: value[:, order] for name, value in carry.items()}
        permuted, moved = network.predict(frame, [readout[:, order]], shuffled, masks[:, order])
    torch.testing.assert_close(permuted[:, 1:], straight[:, 1:][:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved["sensory"], kept["sensory"][:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_size_of_chunks_changes_nothing(size: int) -> None:
    network = tiny_cutie()
    with torch.no_grad():
        frame, readout, carry, masks, images = video_memory(network, 5, videos=2)
        parts = [readout[:, :2], readout[:, 2:]]
        whole, kept = network.predict(frame, parts, carry, masks)
        values, after = network.memorise(images, frame, masks, carry)
        chunked, also = network.predict(frame, parts, carry, masks, chunk_size=size)
        chunk_values, then = network.memorise(images, frame, masks, carry, chunk_size=size)
    for ours, theirs in ((chunked, whole), (chunk_values, values)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for name in carry:
        torch.testing.assert_close(also[name], kept[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(then[name], after[name], rtol=1e-4, atol=1e-5)


def test_videos_of_a_batch_know_nothing_of_each_other() -> None:
    network = tiny_cutie()
    with torch.no_grad():
        frame, readout, carry, masks, _ = video_memory(network, 2, videos=3)
        together, _ = network.predict(frame, [readout], carry, masks)
        alone, _ = network.predict(
            frame_of(frame, 1),
            [readout[1:2]],
            {name: value[1:2] for name, value in carry.items()},
            masks[1:2],
        )
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_objects_read_apart_do_not_compete_for_attention() -> None:
    network = tiny_cutie()
    with torch.no_grad():
        frame, readout, carry, masks, _ = video_memory(network, 3)
        apart, kept = network.predict(frame, [readout[:, :1], readout[:, 1:]], carry, masks)
        alone, lonely = network.predict(
            frame, [readout[:, :1]], {name: value[:, :1] for name, value in carry.items()}, masks[:, :1]
        )
        together, _ = network.predict(frame, [readout], carry, masks)
    torch.testing.assert_close(kept["sensory"][:, :1], lonely["sensory"], rtol=1e-4, atol=1e-5)
    assert (apart - together).abs().max() > 1e-4
    torch.testing.assert_close(apart.sum(dim=1), torch.ones(1, 48, 64))
    assert alone.shape == (1, 2, 48, 64)


def test_an_object_that_is_not_there_changes_nothing_for_the_others() -> None:
    network = tiny_cutie()
    with torch.no_grad():
        frame, readout, carry, masks, _ = video_memory(network, 3)
        masks[:, 2] = 0
        selector = torch.tensor([[1.0, 1.0, 0.0]])
        fused = network.fuse(frame, readout, carry["sensory"], masks)
        features, levels = network.read_objects(fused, carry["summaries"], selector=selector)
        logits, _ = network.decode(frame, features, carry["sensory"])
        three = network.compete(logits, selector=selector).softmax(dim=1)
        pair = {name: value[:, :2] for name, value in carry.items()}
        two, _ = network.predict(frame, [readout[:, :2]], pair, masks[:, :2])
        auxiliary = network.auxiliary_logits(frame, carry["sensory"], features, levels, selector=selector)
    torch.testing.assert_close(three[:, :3], two, rtol=1e-4, atol=1e-5)
    assert auxiliary.sensory.shape == (1, 4, 3, 4)
    assert auxiliary.queries.shape == (1, 4, 3, 3, 4)
    assert (auxiliary.queries.softmax(dim=1)[:, 3] < 1e-5).all()


def test_every_weight_learns_from_two_frames() -> None:
    network = tiny_cutie().train()
    frame, _, _, masks, images = video_memory(network, 2)
    values, carry = network.memorise(images, frame, masks, network.fresh_carry(frame, 2))
    fused = network.fuse(frame, values, carry["sensory"], masks)
    features, levels = network.read_objects(fused, carry["summaries"])
    auxiliary = network.auxiliary_logits(frame, carry["sensory"], features, levels)
    logits, sensory = network.decode(frame, features, carry["sensory"])
    assert frame.shrinkage is not None and frame.selection is not None
    reached = (
        network.compete(logits),
        *auxiliary,
        sensory,
        frame.key,
        frame.shrinkage,
        frame.selection,
    )
    sum(maps.square().mean() for maps in reached).backward()  # type: ignore[union-attr]
    idle = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert idle == []


def test_masks_are_the_same_with_and_without_gradients() -> None:
    network = tiny_cutie()
    frame, readout, carry, masks, _ = video_memory(network, 3)
    with_gradients, _ = network.predict(frame, [readout], carry, masks)
    with torch.inference_mode():
        frame, readout, carry, masks, _ = video_memory(network, 3)
        without, _ = network.predict(frame, [readout], carry, masks)
    torch.testing.assert_close(with_gradients, without)


@pytest.mark.parametrize("train_norms", [False, True])
def test_batch_norms_keep_their_statistics_in_training_unless_told_otherwise(train_norms: bool) -> None:
    network = tiny_cutie(train_norms=train_norms).train()
    before = network.mask_encoder.bn1.running_mean.clone()  # type: ignore[union-attr]
    video_memory(network, 2)
    after = network.mask_encoder.bn1.running_mean
    assert torch.equal(before, after) is not train_norms  # type: ignore[arg-type]


def test_queries_of_an_object_that_is_nowhere_strongest_look_everywhere() -> None:
    logits = torch.tensor([[[[5.0, -5.0]], [[-5.0, -5.0]]]])  # the second object has no pixel
    allowed = attention_masks(logits, 2)  # (2, 1, 2, 2)
    assert allowed[0, 0].tolist() == [[True, False], [False, True]]
    assert allowed[1, 0].tolist() == [[True, True], [True, True]]


def test_missing_keys_are_named() -> None:
    network = tiny_cutie()
    state = network.state_dict()
    del state["mask_decoder.pred.weight"]
    with pytest.raises(ValueError, match=r"1 missing \(mask_decoder.pred.weight\)"):
        load_weights(network, state)


def test_weights_of_the_other_variant_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit Cutie"):
        load_weights(tiny_cutie(), tiny_cutie(backbone="resnet50").state_dict())


@pytest.mark.parametrize("new_channels", ["zeros", "orthogonal"])
def test_weights_of_a_single_object_network_grow_by_one_channel(
    new_channels: str, caplog: pytest.LogCaptureFixture
) -> None:
    single = tiny_cutie(single_object=True)
    several = tiny_cutie(new_channels=new_channels)
    with caplog.at_level(logging.INFO):
        load_weights(several, single.state_dict())
    assert "mask_encoder.conv1.weight" in caplog.text and "sensory_compress" in caplog.text
    for key in ("mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight"):
        grown, before = several.state_dict()[key], single.state_dict()[key]
        assert torch.equal(grown[:, :-1], before)
        assert (grown[:, -1] == 0).all().item() is (new_channels == "zeros")
    if new_channels == "zeros":
        with torch.no_grad():
            one, _ = single.predict(*single_memory(single))
            many, _ = several.predict(*single_memory(several))
        torch.testing.assert_close(one, many)


def single_memory(network: Cutie) -> tuple[EncodedFrame, list[Tensor], Carry, Tensor]:
    frame, readout, carry, masks, _ = video_memory(network, 2)
    return frame, [readout], carry, masks


def test_weights_for_several_objects_are_not_cut_for_one() -> None:
    with pytest.raises(ValueError, match=r"would lose the channel of the others' masks"):
        load_weights(tiny_cutie(single_object=True), tiny_cutie().state_dict())


def test_a_file_to_resume_official_training_gives_its_weights() -> None:
    network = tiny_cutie()
    state = {
        name: value + 1 if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    load_weights(network, {"it": 7, "weights": state, "optimizer": {}, "scheduler": {}})
    assert torch.equal(network.state_dict()["pix_feat_proj.bias"], state["pix_feat_proj.bias"])


@pytest.mark.parametrize(
    "options",
    [
        {"queries": 5},
        {"transformer_blocks": 0},
        {"width": 30, "heads": 2},
        {"backbone": "resnet34"},
        {"backbone_blocks": (2, 2)},
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        tiny_cutie(**options)


def test_the_filled_weights_keep_the_wave_lengths() -> None:
    state = official_cutie("small").state_dict()
    name = "object_transformer.spatial_pe.inv_freq"
    assert torch.equal(state[name], cutie_filled(state)[name])
    assert state[name][0] == 1


@pytest.mark.parametrize("variant", BACKBONES)
def test_both_variants_are_built_by_name(variant: str) -> None:
    network = vosssl.create_model(f"cutie-{variant}")
    assert [name for name, *_ in keys()[variant]] == list(network.state_dict())


def test_a_segmenter_by_name_takes_options_by_their_official_names() -> None:
    segmenter = vosssl.create_segmenter(
        "cutie-small",
        network=tiny_cutie(),
        device="cpu",
        mem_every=2,
        top_k=4,
        use_long_term=True,
        num_prototypes=8,
    )
    frames = noise_video(5, 50, 66, 1)
    prompt = box_mask(50, 66, [(10, 10, 40, 30)]).byte() * 7
    labels = [segmenter.step(frame, prompt if number == 0 else None) for number, frame in enumerate(frames)]
    assert segmenter.object_ids == (7,)
    assert all(frame.shape == (50, 66) for frame in labels)


def test_attention_of_few_queries_or_keys_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(32, 4)
    nn.init.normal_(attention.in_proj_bias)
    few, many, allowed = torch.randn(2, 3, 32), torch.randn(2, 40, 32), torch.rand(2, 1, 3, 40) > 0.5
    torch.testing.assert_close(
        attention(few, many, many + 1, allowed, few="queries"), attention(few, many, many + 1, allowed)
    )
    torch.testing.assert_close(attention(many, few, few + 1, few="keys"), attention(many, few, few + 1))
