"""Label propagation against the official programs' numbers, and what must hold for any network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fill import noise_video, vit_filled
from vosssl.backbones.vit import VisionTransformer, dino
from vosssl.ops.resize import resize_labels
from vosssl.propagation.label_propagation import (
    Attend,
    LabelPropagation,
    SourceMemory,
    channel_map,
    crw_propagation,
    dino_labels,
    dino_propagation,
    dinov3_propagation,
    fitted_side,
    mask_to_grid,
    propagate,
    stretched_over_classes,
)
from vosssl.propagation.segmenter import Prompted

GOLDENS = Path(__file__).parents[1] / "goldens" / "label_propagation"
DINO: dict[str, dict[str, Any]] = {
    "default": {},
    "r3_n2": {"radius": 3, "context": 2},
    "nomask_k1": {"radius": 0, "top_k": 1},
    "k20": {"radius": 5, "top_k": 20},
}
CRW: dict[str, dict[str, Any]] = {
    "default": {},
    "r3_n2": {"radius": 3, "context": 2},
    "k5_r5_nolong": {"context": 4, "top_k": 5, "radius": 5, "temperature": 0.07, "keep_prompted": False},
    "norm_mask": {},
}
CRW_SETTINGS: dict[str, Any] = {
    "context": 20,
    "top_k": 10,
    "radius": 12,
    "temperature": 0.05,
    "shape": "disc",
    "restrict_kept": False,
    "repeat_first": True,
    "most_kept": 1,
}


@cache
def goldens(name: str) -> dict[str, Tensor]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def given() -> tuple[Tensor, Tensor]:
    """Features (6, 16, 30, 32) of unit length and the first frame's soft labels (16, 30, 3)."""
    arrays = goldens("dino")
    features = F.normalize(arrays["dino/given/features"].permute(0, 2, 3, 1), dim=-1)
    return features, F.one_hot(arrays["dino/given/mask"].long(), 3).float()


def followed(attend: Attend) -> Tensor:
    """(5, 3, 16, 30) soft labels of frames 1 to 5."""
    features, labels = given()
    memory = SourceMemory(attend)
    memory.add(features[0], labels, None, keep=True)
    found = []
    for frame in features[1:]:
        soft = propagate(frame, memory)
        memory.add(frame, soft, None, keep=False)
        found.append(soft.permute(2, 0, 1))
    return torch.stack(found)


@pytest.mark.parametrize("variant", DINO)
def test_dino_soft_and_hard_labels_are_the_official_ones(variant: str) -> None:
    soft = followed(Attend(**DINO[variant]))
    arrays = goldens("dino")
    torch.testing.assert_close(soft, arrays[f"dino/given/{variant}/soft"], atol=1e-5, rtol=0)
    hard = torch.stack([dino_labels(rows, (128, 240), (128, 240)) for rows in soft])
    assert (hard != arrays[f"dino/given/{variant}/hard"]).float().mean() <= 1e-3


def test_dino_labels_come_to_any_frame_size() -> None:
    hard = torch.stack([dino_labels(rows, (128, 240), (101, 199)) for rows in followed(Attend())])
    assert (hard != goldens("dino")["dino/given/default/hard_101x199"]).float().mean() <= 1e-3


def test_dino_reads_the_first_mask_as_the_official_reader() -> None:
    labels = torch.zeros(480, 854, dtype=torch.uint8)
    labels[102:260, 90:333] = 1  # the official fixture's boxes
    labels[255:470, 400:777] = 2
    resized = resize_labels(labels, (30, 52))
    assert torch.equal(resized, goldens("dino")["dino/read_seg_480x854_p16"])


@pytest.mark.parametrize("variant", ["default", "r2"])
def test_dino_with_its_vit_agrees_frame_by_frame(variant: str) -> None:
    arrays = goldens("dino")
    frames, height, width, seed = arrays["dino/vit/input"].tolist()
    network = dino(patch_size=16)
    network.load_state_dict(vit_filled(network.state_dict()))
    segmenter = dino_propagation(network.eval(), size=None, radius=12 if variant == "default" else 2)
    first = noise_video(1, height, width, seed)[0]
    mask = resize_labels(arrays["dino/vit/mask"], (height, width)).byte()
    for time in range(frames):
        frame = torch.roll(first, (3 * time, 5 * time), (1, 2))
        labels = segmenter.step(frame, mask if time == 0 else None)
        if time == 0:
            assert torch.equal(labels, mask)
            continue
        soft = segmenter.memory.labels[segmenter.memory.kept + time - 1].permute(2, 0, 1)
        close = (soft - arrays[f"dino/vit/{variant}/soft"][time - 1]).abs() < 1e-4
        assert close.float().mean() >= 0.99
        assert (labels != arrays[f"dino/vit/{variant}/hard"][time - 1]).float().mean() <= 0.01


@pytest.mark.parametrize("variant", CRW)
def test_crw_soft_labels_are_the_official_ones(variant: str) -> None:
    soft = followed(Attend(**{**CRW_SETTINGS, **CRW[variant]}))
    if variant == "norm_mask":
        soft = torch.stack([stretched_over_classes(rows) for rows in soft])
    torch.testing.assert_close(soft, goldens("crw")[f"crw/propagate/{variant}/soft"][1:], atol=1e-5, rtol=0)


def test_crw_long_memory_of_two_frames_is_the_official_one() -> None:
    context = goldens("crw")["crw/propagate/long02/context"].tolist()  # padded by two copies of frame 0
    features, labels = given()
    settings = {**CRW_SETTINGS, "context": 2, "most_kept": 2, "temperature": 0.07}
    memory = SourceMemory(Attend(**settings))
    memory.add(features[0], labels, None, keep=True)
    memory.keep(features[0], labels, None)  # the official program's stand-in until frame 3 is far enough back
    known = [labels]
    for time, frame in enumerate(features[1:]):
        if context[time + 1][1] == 5:
            memory.keep(features[3], known[3], None)
        soft = propagate(frame, memory)
        memory.add(frame, soft, None, keep=False)
        known.append(soft)
    found = torch.stack([rows.permute(2, 0, 1) for rows in known])
    torch.testing.assert_close(found, goldens("crw")["crw/propagate/long02/soft"], atol=1e-5, rtol=0)


class Pixels(nn.Module):
    """A network whose features are colours of 4 x 4 patches and a constant."""

    def forward(self, images: Tensor) -> Tensor:
        means = F.avg_pool2d(images, 4)
        return torch.cat([means, torch.full_like(means[:, :1], 0.2)], dim=1)


def moving_square(time: int, *, places: tuple[tuple[int, int], ...] = ((8, 4),)) -> tuple[Tensor, Tensor]:
    """A frame (3, 48, 64) and labels: squares of pure colours that move two pixels right a frame."""
    frame, labels = torch.full((3, 48, 64), 0.1), torch.zeros(48, 64, dtype=torch.uint8)
    for number, (top, left) in enumerate(places):
        rows, columns = slice(top, top + 12), slice(left + 2 * time, left + 2 * time + 12)
        frame[:, rows, columns] = 0
        frame[number % 3, rows, columns] = 1
        labels[rows, columns] = number + 1
    return frame, labels


def of_pixels(**options: Any) -> LabelPropagation:
    settings: dict[str, Any] = {
        "feature_map": channel_map,
        "size": None,
        "multiple": 4,
        "mean": None,
        **options,
    }
    return LabelPropagation(Pixels(), **settings)


def overlap(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_follows_a_moving_square() -> None:
    segmenter = of_pixels()
    segmenter.step(*moving_square(0))
    for time in range(1, 12):
        frame, truth = moving_square(time)
        labels = segmenter.step(frame)
    assert overlap(labels == 1, truth == 1) > 0.7


def test_objects_may_come_later_and_keep_their_ids() -> None:
    places = ((4, 4), (30, 8))
    segmenter = of_pixels()
    frame, truth = moving_square(0, places=places)
    segmenter.step(frame, torch.where(truth == 1, 7, 0).byte())
    for time in range(1, 4):
        segmenter.step(moving_square(time, places=places)[0])
    frame, truth = moving_square(4, places=places)
    given_labels = torch.where(truth == 2, 3, 0).byte()
    labels = segmenter.step(frame, given_labels)
    assert segmenter.object_ids == (7, 3)
    assert torch.equal(labels == 3, truth == 2)
    assert overlap(labels == 7, truth == 1) > 0.7
    frame, truth = moving_square(5, places=places)
    labels = segmenter.step(frame)
    assert overlap(labels == 7, truth == 1) > 0.7
    assert overlap(labels == 3, truth == 2) > 0.7


def test_void_in_a_prompt_votes_for_nothing() -> None:
    frame, labels = moving_square(0)
    labels[:, 40:] = 255
    segmenter = of_pixels()
    segmenter.step(frame, labels)
    assert segmenter.memory.labels[0, :, 10:].sum() == 0
    assert not bool((segmenter.step(frame) == 255).any())


def test_order_of_ids_changes_nothing() -> None:
    places = ((4, 4), (30, 8))
    frame, truth = moving_square(0, places=places)
    swapped = torch.where(truth == 0, 0, 3 - truth.int()).byte()
    first, second = of_pixels(), of_pixels()
    first.step(frame, truth)
    second.step(frame, swapped)
    after = moving_square(1, places=places)[0]
    one, other = first.step(after), second.step(after)
    assert torch.equal(one == 1, other == 2)


def test_memory_does_not_grow_with_the_video() -> None:
    segmenter = of_pixels(attend=Attend(context=3, most_kept=2))
    sizes = set()
    for time in range(30):
        frame, truth = moving_square(time % 10)
        segmenter.step(frame, truth if time % 5 == 0 else None)
        sizes.add((segmenter.memory.features.numel(), segmenter.memory.labels.numel()))
        assert len(segmenter.memory) <= 5
    assert len(sizes) == 1


def test_first_kept_frame_is_never_pushed_out() -> None:
    memory = SourceMemory(Attend(context=2, most_kept=2))
    for number in range(6):
        memory.add(torch.full((2, 2, 1), float(number)), torch.zeros(2, 2, 1), None, keep=number % 2 == 0)
    assert memory.sources()[0][:, 0, 0, 0].tolist() == [0, 4, 5, 3]


def test_uniform_gate_changes_nothing() -> None:
    plain, gated = of_pixels(), of_pixels(gate=lambda frame: torch.full((4, 6, 8), 0.25))
    for time in range(4):
        frame, truth = moving_square(time)
        prompt = truth if time == 0 else None
        assert torch.equal(plain.step(frame, prompt), gated.step(frame, prompt))


def test_half_precision_changes_little() -> None:
    full, half = of_pixels(), of_pixels(precision="bf16")
    for time in range(5):
        frame, truth = moving_square(time)
        prompt = truth if time == 0 else None
        first, second = full.step(frame, prompt), half.step(frame, prompt)
    assert (first != second).float().mean() < 0.05


def test_sides_become_multiples_by_each_rule() -> None:
    assert fitted_side((480, 854), 480, fit="dino", multiple=16) == (480, 832)
    assert fitted_side((854, 480), 480, fit="dino", multiple=16) == (832, 480)
    assert fitted_side((480, 854), 480, fit="patches", multiple=16) == (480, 848)
    assert fitted_side((480, 854), 480, fit="patches", multiple=14) == (476, 854)
    assert fitted_side((480, 854), 960, fit="dinov3", multiple=16) == (960, 1712)
    assert fitted_side((480, 854), 320, fit="square", multiple=8) == (320, 320)
    assert fitted_side((481, 855), None, fit="patches", multiple=8) == (480, 856)


def test_given_masks_come_to_the_grid_by_area_or_nearest() -> None:
    labels = torch.zeros(8, 8, dtype=torch.uint8)
    labels[:4, :6] = 1
    prompted = Prompted((1,), labels=labels, masks=(labels == 1)[None], native=labels)
    area = mask_to_grid(prompted, (2, 2), mask="area")[0]
    assert 0.8 < area[0, 0] <= 1 and 0.3 < area[0, 1] < 0.7 and area[1].max() < 0.2
    assert set(mask_to_grid(prompted, (2, 2), mask="nearest").flatten().tolist()) <= {0.0, 1.0}


def test_presets_differ_where_the_official_programs_do() -> None:
    network = dino(patch_size=16, width=32, heads=2, depth=1)
    assert isinstance(network, VisionTransformer)
    first, second, third = dino_propagation(network), dinov3_propagation(network), crw_propagation(Pixels())
    assert (first.attend.shape, second.attend.shape, third.attend.shape) == ("square", "circle", "disc")
    assert first.attend.restrict_kept and not third.attend.restrict_kept
    with pytest.raises(ValueError, match="precision is 'int8'"):
        LabelPropagation(network, precision="int8")  # type: ignore[arg-type]
