"""Slots as a segmenter: discovery, lock-on, order over time."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import MLPDecoder
from vosssl.layers.slot_groups import ForegroundGroups
from vosssl.layers.slot_initializers import ConditionalInit, ConditionKind, LearnedInit
from vosssl.layers.slot_network import Encoded, SlotNetwork
from vosssl.layers.time_decoders import LinearTimeDecoder
from vosssl.propagation.slot_tracking import SlotTracker, patch_owners

GRID = (4, 6)


class Masks(NamedTuple):
    reconstruction: Tensor
    masks: Tensor


class ColourSlots(nn.Module):
    """A slot network by hand: a slot is a colour, its mask where the frame is nearest to it.

    Colours move to the mean of what they win, as in k-means. With `swap` the slots change places every frame.
    """

    num_slots = 3
    slot_dim = 3
    first_iterations = 4

    def __init__(self, *, swap: bool = False) -> None:
        super().__init__()
        self.initializer = nn.Module()
        self.initializer.needs_noise = True  # type: ignore[assignment]
        self.swap = swap
        self.iterations: list[int] = []

    def encode(self, frames: Tensor) -> Encoded:
        patches = nn.functional.adaptive_avg_pool2d(frames, GRID).flatten(2).transpose(1, 2)  # (1, P, 3)
        return Encoded(inputs=patches, features=patches, grid=GRID)

    def initial_slots(
        self, batch_size: int, *, num_slots: int, noise: Tensor | None, condition: Tensor | None = None
    ) -> Tensor:
        assert noise is not None
        return 0.5 + 0.2 * noise

    def correct(
        self, slots: Tensor, inputs: Tensor, *, first: bool, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        count = self.first_iterations if first else 1
        self.iterations.append(count)
        self.frame = inputs
        for _ in range(count):
            logits = -100 * torch.cdist(slots, inputs).square()
            if visible is not None:
                logits = logits.masked_fill(~visible, -1e9)
            attention = logits.softmax(dim=1)
            weights = attention + 1e-8
            slots = weights @ inputs / weights.sum(dim=-1, keepdim=True)
        return slots, attention

    def predict(self, slots: Tensor) -> Tensor:
        return slots.roll(1, dims=1) if self.swap else slots

    def decode(self, slots: Tensor, grid: tuple[int, int]) -> Masks:
        masks = (-100 * torch.cdist(slots, self.frame).square()).softmax(dim=1)
        return Masks(masks.transpose(1, 2) @ slots, masks)


def tracker(network: ColourSlots | None = None, **options: object) -> SlotTracker:
    return SlotTracker(network or ColourSlots(), **options)  # type: ignore[arg-type]


def scene(time: int = 0) -> tuple[Tensor, Tensor]:
    """A red and a green square on black, moving right by a patch per frame: frame and labels."""
    labels = torch.zeros(32, 48, dtype=torch.uint8)
    labels[0:8, 8 * time : 8 * time + 16] = 1
    labels[16:32, 8 * time : 8 * time + 8] = 2
    colours = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return colours[labels.long()].permute(2, 0, 1).contiguous(), labels  # (H, W, 3) -> (3, H, W)


def test_every_pixel_belongs_to_a_slot_in_discovery() -> None:
    segmenter = tracker()
    labels = segmenter.step(scene()[0])
    assert int(labels.min()) >= 1
    assert segmenter.object_ids == (1, 2, 3)
    assert segmenter.probabilities.shape == (4, 32, 48)
    torch.testing.assert_close(segmenter.probabilities.sum(dim=0), torch.ones(32, 48))


def test_the_number_of_slots_is_free_at_test_time() -> None:
    segmenter = tracker(num_slots=5)
    segmenter.step(scene()[0])
    assert segmenter.object_ids == (1, 2, 3, 4, 5)
    assert segmenter.slots.shape == (5, 3)


def test_lock_on_follows_the_objects_that_were_given() -> None:
    segmenter = tracker()
    for time in range(4):
        frame, truth = scene(time)
        labels = segmenter.step(frame, truth if time == 0 else None)
        assert (labels == truth).float().mean() > 0.95, time
    assert segmenter.object_ids == (1, 2)


def test_lock_on_keeps_odd_ids_and_several_slots_each() -> None:
    segmenter = tracker(slots_per_object=2, num_background_slots=2, num_extra_slots=1)
    frame, truth = scene()
    names = torch.tensor([0, 40, 9], dtype=torch.uint8)[truth.long()]
    labels = segmenter.step(frame, names)
    assert segmenter.object_ids == (9, 40)
    assert len(segmenter.slots) == 2 + 4 + 1
    assert (labels == names).float().mean() > 0.9
    torch.testing.assert_close(segmenter.probabilities.sum(dim=0), torch.ones(32, 48))


def test_a_later_prompt_adds_slots() -> None:
    segmenter = tracker()
    frame, truth = scene()
    segmenter.step(frame, truth * (truth == 1))
    assert segmenter.object_ids == (1,)
    frame, truth = scene(1)
    labels = segmenter.step(frame, truth * (truth == 2))
    assert segmenter.object_ids == (1, 2)
    assert (labels == truth).float().mean() > 0.95


def test_the_first_frame_may_have_its_own_iterations_and_the_network_keeps_its_own() -> None:
    network = ColourSlots()
    segmenter = tracker(network, first_iterations=7)
    segmenter.step(scene(0)[0])
    segmenter.step(scene(1)[0])
    assert network.iterations == [7, 1]
    assert network.first_iterations == 4


@pytest.mark.parametrize("reorder", ["overlap", "similarity"])
def test_slots_that_change_places_are_put_back(reorder: str) -> None:
    plain, ordered = tracker(ColourSlots(swap=True)), tracker(ColourSlots(swap=True), reorder=reorder)
    for time in range(3):
        frame, _ = scene(time)
        swapped, straight = plain.step(frame), ordered.step(frame)
        if time == 0:
            first = straight
    corner = (slice(24, 32), slice(40, 48))  # background in every frame
    assert int(straight[corner][0, 0]) == int(first[corner][0, 0])
    assert int(swapped[corner][0, 0]) != int(first[corner][0, 0])
    assert not torch.equal(plain.slots, ordered.slots)
    torch.testing.assert_close(plain.slots.sort(dim=0).values, ordered.slots.sort(dim=0).values)


def test_the_same_video_gives_the_same_labels_after_a_reset() -> None:
    segmenter = tracker()
    before = [segmenter.step(scene(time)[0]) for time in range(3)]
    segmenter.reset()
    after = [segmenter.step(scene(time)[0]) for time in range(3)]
    assert torch.equal(torch.stack(before), torch.stack(after))


def test_attention_may_give_the_masks() -> None:
    segmenter = tracker(output="attention")
    segmenter.step(scene()[0])
    assert torch.equal(segmenter.masks, segmenter.attention)


def test_small_objects_keep_one_patch() -> None:
    labels = torch.zeros(32, 48, dtype=torch.uint8)
    labels[9:11, 9:11] = 6
    labels[16:24, 0:8] = 2
    owners = patch_owners(labels, (2, 6), GRID).view(GRID)
    assert int((owners == 6).sum()) == 1 and int(owners[1, 1]) == 6
    assert int((owners == 2).sum()) == 1 and int(owners[2, 0]) == 2


def test_a_prompt_after_discovery_turns_what_was_found_into_background() -> None:
    segmenter = tracker()
    segmenter.step(scene(0)[0])
    frame, truth = scene(1)
    labels = segmenter.step(frame, truth)
    assert segmenter.object_ids == (1, 2)
    assert (labels == truth).float().mean() > 0.95


class Patches(nn.Module):
    """An encoder: linear patch embeddings; the class token looks at what is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 8, stride=8)

    def forward(self, frames: Tensor) -> Encoded:
        features = self.embed(frames).flatten(2).transpose(1, 2)
        bright = F.adaptive_avg_pool2d(frames.mean(dim=1), GRID).flatten(1)[:, None]  # (N, 1, P)
        return Encoded(inputs=features, features=features, grid=GRID, cls_attention=bright)


def real_network(initializer: nn.Module, **parts: nn.Module) -> SlotNetwork:
    torch.manual_seed(0)
    return SlotNetwork(
        encoder=Patches(),
        initializer=initializer,
        corrector=SlotAttention(12, 16, iterations=2),
        predictor=None,
        decoder=MLPDecoder(16, 12, hidden_dims=(24,), grid=GRID),
        first_iterations=3,
        **parts,
    ).eval()


@pytest.mark.parametrize("strategy", [None, "always", "initial"])
def test_a_real_slot_network_is_tracked_like_its_forward_pass(strategy: Any) -> None:
    parts: dict[str, nn.Module] = {}
    if strategy is not None:
        parts["groups"] = ForegroundGroups(16, counts=(1, 3), strategy=strategy)
        parts["time_decoder"] = LinearTimeDecoder(16, (0, 1))
    network = real_network(LearnedInit(4, 16), **parts)
    frames = torch.stack([scene(time)[0] for time in range(3)])
    with torch.inference_mode():
        masks = network(frames[None]).masks[0]
    segmenter = SlotTracker(network)
    for time, frame in enumerate(frames):
        segmenter.step(frame)
        torch.testing.assert_close(segmenter.masks, masks[time])


@pytest.mark.parametrize("kind", ["boxes", "centres", "masks"])
def test_a_conditional_network_starts_from_the_prompt(kind: ConditionKind) -> None:
    segmenter = SlotTracker(real_network(ConditionalInit(5, 16, kind=kind)))
    frame, truth = scene()
    names = torch.tensor([0, 40, 9], dtype=torch.uint8)[truth.long()]
    segmenter.step(frame, names)
    segmenter.step(scene(1)[0])
    assert segmenter.object_ids == (9, 40)
    assert len(segmenter.slots) == 5
    torch.testing.assert_close(segmenter.probabilities.sum(dim=0), torch.ones(32, 48))
    with pytest.raises(ValueError, match="takes a prompt there only"):
        segmenter.step(frame, names)


def test_a_conditional_network_asks_for_its_prompt() -> None:
    with pytest.raises(ValueError, match="give the first frame's labels"):
        SlotTracker(real_network(ConditionalInit(5, 16))).step(scene()[0])
