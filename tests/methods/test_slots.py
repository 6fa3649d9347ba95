"""Our slots: seeds, masks, streaming, the agreement loss and the loader of the first stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vosssl.clip import collate
from vosssl.data.synthetic import SyntheticClips
from vosssl.layers.patch_embedding import PatchEmbedding
from vosssl.methods.slots import Objective, Slots, farthest_patches, load_features, motion_agreement
from vosssl.ops.motion_affinity import MotionPairs


def small(**options: object) -> Slots:
    torch.manual_seed(0)
    return Slots(features=None, num_slots=4, slot_dim=32, width=8, dim=16, depth=1, **options)  # type: ignore[arg-type]


def test_the_farthest_patches_are_one_of_each_kind() -> None:
    kinds = torch.eye(4)[torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])]
    chosen, scores = farthest_patches(kinds[None], 4)
    assert sorted(kinds[chosen[0]].argmax(-1).tolist()) == [0, 1, 2, 3]
    assert chosen[0, 0] < 4  # the most typical comes first
    assert (scores >= 0).all()


def test_seeds_stay_among_visible_patches() -> None:
    kinds = torch.eye(4)[torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])]
    visible = torch.zeros(1, 2, 8, dtype=torch.bool)
    visible[0, 0, 7], visible[0, 1, 4:6] = True, True
    chosen, _ = farthest_patches(kinds[None], 2, visible=visible)
    assert chosen[0, 0] == 7
    assert chosen[0, 1] in (4, 5)


def test_masks_sum_to_one_and_shapes_hold_for_any_number_of_slots() -> None:
    network = small()
    for count in (2, 7):
        trace = network(torch.rand(2, 3, 3, 32, 48), num_slots=count)
        assert trace.masks.shape == (2, 3, count, 16, 24)
        assert torch.allclose(trace.masks.sum(2), torch.ones(2, 3, 16, 24), atol=1e-5)
        assert trace.reconstruction.shape == trace.features.shape == (2, 3, 16 * 24, 19)
        assert not trace.features.requires_grad


def test_streaming_gives_the_masks_of_the_whole_clip() -> None:
    network = small()
    frames = torch.rand(2, 3, 3, 32, 32)
    trace = network(frames)
    slots = network.initial_slots(2)
    for time in range(3):
        encoded = network.encode(frames[:, time])
        slots = network.predict(slots) if time else slots
        slots, masks = network.correct(slots, encoded.inputs, first=time == 0)
        assert torch.allclose(masks, trace.masks[:, time].flatten(-2), atol=1e-5)


def test_a_patch_belongs_only_to_slots_that_may_see_it() -> None:
    network = small()
    encoded = network.encode(torch.rand(1, 3, 32, 32))
    visible = torch.ones(1, 4, 256, dtype=torch.bool)
    visible[0, 1:, :100] = False
    _, masks = network.correct(network.initial_slots(1), encoded.inputs, first=True, visible=visible)
    assert torch.allclose(masks[0, 0, :100], torch.ones(100))


def test_agreement_is_zero_for_right_masks_and_large_for_wrong_ones() -> None:
    right = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])  # two objects of two patches
    same = torch.tensor([[[True, True, False, False]]])
    pairs = MotionPairs(torch.tensor([[0]]), same, ~same, torch.ones(1, 1))
    assert motion_agreement(right, right, pairs).item() == pytest.approx(0, abs=0.01)
    merged = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 0, 0]]])
    split = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 1, 1]]])
    assert motion_agreement(merged, merged, pairs) > 3
    assert motion_agreement(split, split, pairs) > 2
    flipped = right.flip(1)
    assert motion_agreement(flipped, flipped, pairs).item() == pytest.approx(0, abs=0.01)  # order is free


def test_unknown_pairs_carry_no_gradient() -> None:
    masks = torch.rand(1, 2, 4).softmax(1).requires_grad_()
    none = torch.zeros(1, 1, 4, dtype=torch.bool)
    loss = motion_agreement(masks, masks, MotionPairs(torch.tensor([[0]]), none, none, torch.ones(1, 1)))
    loss.backward()
    assert masks.grad is not None
    assert masks.grad.abs().max() == 0


def test_a_few_steps_lower_the_loss() -> None:
    network = small()
    clips = SyntheticClips(size=32, frames=2, count=4).__getitems__(list(range(4)))
    batch, objective = collate(clips, seeds=[0, 1, 2, 3]), Objective(anchors=32)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(15):
        terms = objective(network, batch, step)
        assert set(terms) == {"agreement_within", "agreement_across", "reconstruction"}
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.8 * losses[0]


def test_frames_without_flow_are_learned_from_by_estimated_flow() -> None:
    clips = SyntheticClips(size=32, frames=2, count=2, flow=False).__getitems__([0, 1])
    terms = Objective(anchors=32)(small(), collate(clips), 0)
    assert all(torch.isfinite(term) for term in terms.values())


def test_the_loss_of_a_batch_is_the_mean_over_its_samples() -> None:
    network, objective = small(), Objective(anchors=32)
    clips = SyntheticClips(size=32, frames=3, count=4).__getitems__(list(range(4)))
    whole = objective(network, collate(clips, seeds=[0, 1, 2, 3]), 0)
    halves = [
        objective(network, collate(clips[:2], seeds=[0, 1]), 0),
        objective(network, collate(clips[2:], seeds=[2, 3]), 0),
    ]
    for term, value in whole.items():
        mean = (halves[0][term] + halves[1][term]) / 2
        assert value.item() == pytest.approx(mean.item(), rel=1e-4)


def test_the_frozen_first_stage_gets_no_gradient() -> None:
    network = small(frozen=True)
    assert not any(weight.requires_grad for weight in network.encoder.embedding.parameters())  # type: ignore[union-attr]
    assert network(torch.rand(1, 1, 3, 16, 16)).masks.requires_grad


def test_shipped_features_load_by_name() -> None:
    embedding = PatchEmbedding()
    load_features(embedding, "motion_features")
    assert next(embedding.parameters()).dtype == torch.float32


def test_features_load_from_a_checkpoint_and_wrong_ones_are_named(tmp_path: Path) -> None:
    saved = PatchEmbedding(width=8, dim=16, depth=1)
    torch.save({"format": "vosssl/1", "network": saved.state_dict(), "ema": None}, tmp_path / "last.ckpt")
    loaded = PatchEmbedding(width=8, dim=16, depth=1)
    load_features(loaded, str(tmp_path / "last.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(ValueError, match="keys differ"):
        load_features(PatchEmbedding(width=8, dim=16, depth=2), str(tmp_path / "last.ckpt"))
    with pytest.raises(ValueError, match="motion_features"):
        load_features(loaded, "nowhere")


def test_wrong_use_is_refused() -> None:
    network = small()
    with pytest.raises(ValueError, match="attention"):
        network.decode(torch.zeros(1, 4, 32), (8, 8))
    with pytest.raises(ValueError, match="cache"):
        network(torch.rand(1, 1, 3, 16, 16), features={"features": torch.zeros(1)})
    with pytest.raises(ValueError, match="at most"):
        network.initial_slots(1, num_slots=1000)
