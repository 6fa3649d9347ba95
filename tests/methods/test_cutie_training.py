"""Training of Cutie: the official losses and gradients, what is drawn, clips that do not touch each other."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.fill import box_mask, noise_video
from tests.methods.cutie_models import BACKBONES, arrays, assert_agrees, index, official_cutie, tiny_cutie
from vosssl.clip import Batch
from vosssl.methods.cutie.network import Cutie
from vosssl.methods.cutie.objective import Objective
from vosssl.methods.cutie.unroll import ClipLogits
from vosssl.ops.masks import labels_to_masks
from vosssl.propagation.memory_bank import MemoryBank

CASES = [(variant, deep) for variant in BACKBONES for deep in (0, 1)]
ZERO_GRADIENT = 1e-6  # of key biases: they cancel in a softmax over places, what is recorded is rounding


class Step(NamedTuple):
    """A training step on the batch of the goldens."""

    logits: ClipLogits
    terms: dict[str, Tensor]
    gradients: dict[str, Tensor]


def recorded_batch(variant: str) -> Batch:
    """Two clips of three frames; boxes move by (2, 3) pixels a frame, the second clip lacks one of them."""
    recorded: dict[str, Any] = index()[f"{variant}/train/INPUT"]
    labels = torch.zeros(2, 3, 96, 96, dtype=torch.uint8)
    for time in range(3):
        shift = np.array([2, 3, 2, 3]) * time
        boxes = [tuple(int(edge) for edge in np.array(box) + shift) for box in recorded["boxes"]]
        both = box_mask(96, 96, boxes)  # type: ignore[arg-type]
        labels[0, time], labels[1, time] = both, torch.where(both == 2, 0, both)
    frames = torch.stack([noise_video(*video) for video in recorded["videos"]])
    return Batch(frames, labels, num_objects=torch.tensor([2, 1]), seeds=torch.arange(2))


@cache
def recorded_step(variant: str, deep: int) -> Step:
    network = Cutie(backbone=BACKBONES[variant])  # type: ignore[arg-type]
    network.load_state_dict(official_cutie(variant).state_dict())
    objective = Objective(train_num_points=index()[f"{variant}/train/INPUT"]["num_points"])
    batch = recorded_batch(variant)
    assert batch.labels is not None
    logits = network.train()(
        batch.frames,
        labels_to_masks(batch.labels[:, 0], (1, 2)).float(),
        torch.tensor([[True, True], [True, False]]),
        references=objective.references(batch.seeds, 3),
        deep_updates=[bool(deep)],
    )
    one = torch.Generator().manual_seed(7)  # the official program draws for all clips from one generator
    terms = objective.losses(logits, batch.labels, [2, 1], generators=[one, one])
    torch.stack(list(terms.values())).sum().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return Step(logits, terms, gradients)


@pytest.mark.parametrize(("variant", "deep"), CASES)
def test_masks_and_auxiliary_logits_are_the_official_ones(variant: str, deep: int) -> None:
    logits = recorded_step(variant, deep).logits
    for time in (1, 2):
        case = f"{variant}/train_deep{deep}"
        found = {"logits": logits.masks, "aux_sensory": logits.sensory, "aux_query": logits.queries}
        for name, values in found.items():
            recorded = torch.from_numpy(arrays()[f"{case}/{name}_{time}"]).reshape(-1)
            stride = index()[f"{case}/{name}_{time}"]["stride"]
            own = values[:, time - 1].detach().reshape(-1)[::stride]
            assert (
                own - recorded
            ).abs().max() < 0.2  # near +-16 a float holds hardly any digit of a probability
            assert (own.sigmoid() - recorded.sigmoid()).abs().max() < 3e-4
        assert_agrees(logits.masks[:, time - 1].softmax(dim=1)[:, 1:], f"{case}/masks_{time}")


@pytest.mark.parametrize(("variant", "deep"), CASES)
def test_all_twelve_terms_are_the_official_ones(variant: str, deep: int) -> None:
    terms = recorded_step(variant, deep).terms
    parts = ["", "sensory_", "queries0_", "queries1_", "queries2_", "queries3_"]
    assert list(terms) == [f"{part}{kind}" for part in parts for kind in ("cross_entropy", "dice")]
    own = [term.item() for term in terms.values()]
    recorded = arrays()[f"{variant}/train_deep{deep}/loss_values"].tolist()
    assert [*own, sum(own)] == pytest.approx(recorded, rel=2e-3)


@pytest.mark.parametrize(("variant", "deep"), CASES)
def test_the_gradient_of_every_parameter_is_the_official_one(variant: str, deep: int) -> None:
    case, gradients = f"{variant}/train_deep{deep}", recorded_step(variant, deep).gradients
    recorded = arrays()[f"{case}/grad_norm"]
    assert len(gradients) == len(recorded) == index()[f"{case}/GRAD"]["params"]
    for (name, gradient), norm in zip(gradients.items(), recorded.tolist(), strict=True):
        assert gradient.double().norm().item() == pytest.approx(norm, rel=3e-3, abs=ZERO_GRADIENT), name
    stored = [name for name in index() if name.startswith(f"{case}/grad/")]
    assert deep or len(stored) == 5
    for name in stored:
        assert_agrees(gradients[name.removeprefix(f"{case}/grad/")], name, relative=2e-3)


def small_batch(clips: int = 2, frames: int = 4, objects: int = 2) -> Batch:
    """Random frames, and squares that move a pixel a frame."""
    labels = torch.zeros(clips, frames, 48, 48, dtype=torch.uint8)
    for clip in range(clips):
        for number in range(1, objects + 1):
            for time in range(frames):
                top, left = 4 + 5 * clip + time, 20 * number - 14 + 2 * time
                labels[clip, time, top : top + 16, left : left + 14] = number
    images = torch.rand(clips, frames, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    images[:, :, 0] = 0.5 * images[:, :, 0] + 0.25 * labels
    return Batch(images, labels, num_objects=torch.full((clips,), objects), seeds=torch.arange(5, 5 + clips))


def trained_network() -> nn.Module:
    torch.manual_seed(0)
    return tiny_cutie(train_norms=False).requires_grad_(True).train()


def total(objective: Objective, network: nn.Module, batch: Batch) -> Tensor:
    return torch.stack(list(objective(network, batch, 0).values())).sum()


def test_batch_norms_keep_their_statistics() -> None:
    network = trained_network()
    before = {name: value.clone() for name, value in network.named_buffers()}
    total(Objective(train_num_points=64), network, small_batch()).backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_a_clip_is_trained_on_as_if_it_were_alone() -> None:
    network, objective = trained_network(), Objective(train_num_points=64, deep_update_prob=1.0)
    both = small_batch()
    labels = both.labels.clone()
    labels[1][labels[1] == 2] = 0
    both = Batch(both.frames, labels, num_objects=torch.tensor([2, 1]), seeds=both.seeds)
    alone = [
        Batch(both.frames[c : c + 1], labels[c : c + 1], num_objects=both.num_objects[c : c + 1], seeds=seed)
        for c, seed in enumerate(both.seeds.split(1))
    ]
    losses = objective(network, both, 0)
    parts = [objective(network, batch, 0) for batch in alone]
    for name, term in losses.items():
        assert term.item() == pytest.approx(sum(part[name].item() for part in parts) / 2, rel=1e-4), name


def test_frames_are_drawn_where_there_are_more_than_a_frame_reads() -> None:
    objective, seeds = Objective(num_ref_frames=2), torch.arange(300)
    drawn = objective.references(seeds, 6)
    assert [tuple(frames.shape) for frames in drawn] == [(300, 1), *[(300, 2)] * 4]
    assert (drawn[1] == torch.tensor([0, 1])).all()
    for time, frames in enumerate(drawn[2:], start=3):
        assert (frames[:, 0] != frames[:, 1]).all()
        counts = frames.flatten().bincount()
        assert len(counts) == time and (counts.float() / 600 - 1 / time).abs().max() < 0.08
    again = Objective(num_ref_frames=2).references(seeds.flip(0), 6)
    assert all(torch.equal(one, two.flip(0)) for one, two in zip(drawn, again, strict=True))


def test_deep_updates_come_as_often_as_asked_for() -> None:
    drawn = [update for seed in range(200) for update in Objective().deep_updates(torch.tensor([seed]), 8)]
    assert len(drawn) == 200 * 6
    assert abs(sum(drawn) / len(drawn) - 0.2) < 3 * math.sqrt(0.2 * 0.8 / len(drawn))
    assert Objective(deep_update_prob=0).deep_updates(torch.arange(2), 8) == [False] * 6
    assert Objective(deep_update_prob=1).deep_updates(torch.arange(2), 3) == [True]


def test_the_same_seeds_give_the_same_loss_whatever_was_drawn_before() -> None:
    network, objective, batch = trained_network(), Objective(train_num_points=64), small_batch(frames=6)
    first = total(objective, network, batch)
    torch.rand(11)
    assert torch.equal(first, total(objective, network, batch))
    other = Batch(batch.frames, batch.labels, num_objects=batch.num_objects, seeds=batch.seeds + 100)
    assert not torch.equal(first, total(objective, network, other))


def test_training_follows_clips_as_a_full_memory_does_in_use() -> None:
    network, batch = trained_network(), small_batch(clips=1, frames=4)
    first = labels_to_masks(batch.labels[:, 0], (1, 2)).float()
    references = [torch.arange(time)[None] for time in (1, 2, 3)]
    logits = network(batch.frames, first, torch.ones(1, 2), references=references, deep_updates=[True, True])
    bank, masks = MemoryBank(top_k=None, differentiable=True), first
    carry = network.fresh_carry(network.encode_frame(batch.frames[:, 0]), 2)
    for time in range(3):
        frame, following = (network.encode_frame(batch.frames[:, place]) for place in (time, time + 1))
        values, carry = network.memorise(batch.frames[:, time], frame, masks, carry)
        bank.append(frame, values, (1, 2))
        probabilities, carry = network.predict(following, bank.read(following), carry, masks)
        masks = probabilities[:, 1:]
        assert (logits.masks[:, time].softmax(dim=1) - probabilities).abs().max() < 1e-4


@pytest.mark.parametrize(("options", "stride"), [({"first_stride": 1}, 8), ({"pool": False}, 8), (None, 4)])
def test_a_finer_network_is_trained_and_predicts_at_the_frames_size(
    options: dict[str, Any] | None, stride: int
) -> None:
    finest: dict[str, Any] = {"first_stride": 1, "pool": False}
    network = tiny_cutie(**(finest if options is None else options)).requires_grad_(True).train()
    batch = small_batch(clips=1, frames=3)
    assert network.stride == stride
    total(Objective(train_num_points=64), network, batch).backward()
    assert all(weight.grad is not None for weight in network.parameters())
    network.requires_grad_(False).eval()
    frame, masks = (
        network.encode_frame(batch.frames[:, 0]),
        labels_to_masks(batch.labels[:, 0], (1, 2)).float(),
    )
    assert frame.key.shape[-2:] == (48 // stride, 48 // stride)
    values, carry = network.memorise(batch.frames[:, 0], frame, masks, network.fresh_carry(frame, 2))
    assert network.predict(frame, [values], carry, masks)[0].shape == (1, 3, 48, 48)


def test_only_the_frames_that_are_named_are_read() -> None:
    network, batch = trained_network().requires_grad_(False), small_batch(clips=1, frames=4)
    masks = labels_to_masks(batch.labels[:, 0], (1, 2)).float()

    def last(*read: int) -> Tensor:
        references = [torch.tensor([[0]]), torch.tensor([[0]]), torch.tensor([read])]
        logits = network(
            batch.frames, masks, torch.ones(1, 2), references=references, deep_updates=[False, False]
        )
        return logits.masks[:, -1].softmax(dim=1)

    assert (last(0, 2) - last(2, 0)).abs().max() < 1e-5
    assert (last(0, 2) - last(0, 1)).abs().max() > 1e-4


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    network = tiny_cutie(train_norms=True).requires_grad_(True).train()
    for part in network.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    objective, batch = Objective(train_num_points=256), small_batch(frames=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = total(objective, network, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "changes", [{"labels": None}, {"num_objects": None}, {"frames": torch.zeros(2, 1, 3, 48, 48)}]
)
def test_clips_that_nothing_can_be_learned_from_are_refused(changes: dict[str, Any]) -> None:
    batch = small_batch()
    parts = {"frames": batch.frames, "labels": batch.labels, "num_objects": batch.num_objects} | changes
    with pytest.raises(ValueError, match="learns from clips of two frames or more"):
        Objective()(trained_network(), Batch(**parts), 0)


@pytest.mark.parametrize(
    "wrong", [{"num_ref_frames": 0}, {"deep_update_prob": 1.2}, {"importance_sample_ratio": 2.0}]
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected 1"):
        Objective(**wrong)
