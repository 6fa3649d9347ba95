"""Networks with a memory on video: prompts at any frame, removal, budgets, bad input, saved sessions."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fill import box_mask, noise_video
from tests.methods.cutie_models import tiny_cutie
from tests.methods.stcn_models import small
from vosssl.ops.masks import soft_aggregate
from vosssl.propagation.long_term import LongTerm
from vosssl.propagation.memory_segmenter import MemorySegmenter

VIDEO = noise_video(8, 48, 64, 1)
BOXES = [(4, 4, 24, 28), (26, 34, 44, 60), (2, 40, 18, 58)]
ALL = box_mask(48, 64, BOXES).byte()
TWO = ALL * (ALL < 3)

Make = Callable[..., MemorySegmenter]


@pytest.fixture(params=["cutie", "stcn"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a segmenter with a little network that is the same each time."""
    network = tiny_cutie() if request.param == "cutie" else small()

    def made(**options: Any) -> MemorySegmenter:
        return MemorySegmenter(network, **{"mem_every": 2, "top_k": 20} | options)

    return made


def follow(segmenter: MemorySegmenter, prompts: dict[int, Any], frames: int = 6) -> list[Tensor]:
    """Probabilities of each frame."""
    rows = []
    for number in range(frames):
        segmenter.step(VIDEO[number], prompts.get(number))
        rows.append(segmenter.probabilities)
    return rows


def assert_same(mine: list[Tensor], theirs: list[Tensor], *, atol: float = 1e-5) -> None:
    for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=lambda text, n=number: f"frame {n}: {text}")


def test_a_given_mask_comes_back_as_it_is(make: Make) -> None:
    assert torch.equal(make().step(VIDEO[0], ALL), ALL)


def test_a_mask_of_some_objects_leaves_the_others_as_segmented(make: Make) -> None:
    plain = follow(make(), {0: TWO}, 4)
    segmenter = make()
    follow(segmenter, {0: TWO}, 3)
    moved = box_mask(48, 64, [(0, 0, 0, 0), (28, 30, 46, 56)]).byte()
    labels = segmenter.step(VIDEO[3], moved)
    assert segmenter.object_ids == (1, 2)
    inside = moved == 2
    assert (labels[inside] == 2).all() and not (labels[~inside] == 2).any()
    expected = soft_aggregate(torch.stack([plain[3][1] * ~inside, inside.float()]))
    torch.testing.assert_close(segmenter.probabilities, expected, rtol=0, atol=1e-5)


def test_ids_and_their_order_do_not_matter(make: Make) -> None:
    renamed = torch.tensor([0, 200, 7, 31], dtype=torch.uint8)
    rows = follow(make(), {0: TWO, 3: ALL * (ALL == 3)})
    other = make()
    theirs = follow(other, {0: renamed[TWO.long()], 3: renamed[(ALL * (ALL == 3)).long()]})
    assert other.object_ids == (7, 200, 31)
    for mine, found in zip(rows, theirs, strict=True):
        order = [0, 2, 1, 3][: len(found)]
        torch.testing.assert_close(mine, found[order], rtol=0, atol=1e-5)


def test_soft_masks_are_prompts_at_any_frame(make: Make) -> None:
    hard = follow(make(), {0: TWO, 3: ALL * (ALL == 3)})
    soft = follow(make(), {0: {1: (ALL == 1).float(), 2: (ALL == 2).float()}, 3: {3: (ALL == 3).float()}})
    assert_same(hard, soft)
    segmenter = make()
    segmenter.step(VIDEO[0], {1: 0.8 * (ALL == 1)})
    assert float(segmenter.probabilities[1].max()) == pytest.approx(16 / 17)  # odds of 4 against 1/4
    assert segmenter.step(VIDEO[1]).shape == (48, 64)


def test_images_smaller_than_top_k_places(make: Make) -> None:
    segmenter = make(top_k=30)
    tiny = VIDEO[:, :, :32, :32]
    segmenter.step(tiny[0], ALL[:32, :32])
    assert torch.isfinite(segmenter.probabilities).all()
    segmenter.step(tiny[1])
    assert torch.isfinite(segmenter.probabilities).all()


def test_a_removed_object_comes_back_as_a_new_one(make: Make) -> None:
    def again(identity: int) -> list[Tensor]:
        segmenter = make()
        follow(segmenter, {0: TWO}, 3)
        segmenter.remove_objects([1])
        assert segmenter.object_ids == (2,) and segmenter.probabilities.shape[0] == 2
        segmenter.step(VIDEO[3], (ALL == 3).byte() * identity)
        rows = []
        for frame in VIDEO[4:]:
            segmenter.step(frame)
            rows.append(segmenter.probabilities)
        return rows

    assert_same(again(1), again(9))


def test_removing_an_object_does_not_give_its_mask_to_another(make: Make) -> None:
    segmenter = make()
    before = follow(segmenter, {0: TWO}, 3)
    segmenter.remove_objects([1])
    assert torch.equal(segmenter.probabilities[1], before[2][2])
    assert segmenter._masks is not None
    torch.testing.assert_close(segmenter._masks[0, 0], before[2][2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunks_change_nothing(make: Make, chunk_size: int) -> None:
    prompts = {0: TWO, 2: ALL * (ALL == 3)}
    assert_same(follow(make(), prompts), follow(make(chunk_size=chunk_size), prompts))


def test_mirrored_videos_give_mirrored_masks_with_flip_aug(make: Make) -> None:
    straight, mirrored = make(flip_aug=True), make(flip_aug=True)
    for number in range(4):
        straight.step(VIDEO[number], TWO if number == 0 else None)
        mirrored.step(VIDEO[number].flip(-1), TWO.flip(-1) if number == 0 else None)
        torch.testing.assert_close(straight.probabilities, mirrored.probabilities.flip(-1), rtol=0, atol=1e-4)


def test_smaller_frames_inside_and_the_same_size_outside(make: Make) -> None:
    segmenter = make(max_internal_size=32)
    assert segmenter.step(VIDEO[0], ALL).shape == (48, 64)
    assert segmenter.step(VIDEO[1]).shape == (48, 64)
    assert segmenter._masks is not None and segmenter._masks.shape[-2:] == (32, 48)  # 32 x 42, padded


@pytest.mark.parametrize(
    ("frame", "prompt", "complaint"),
    [
        (VIDEO[3], ALL[:40], r"prompt is \(40, 64\), expected \(48, 64\)"),
        (VIDEO[3], ALL.long() * 100, r"ids from 0 to 300, expected 0 \(background\), 1..254"),
        (VIDEO[3], torch.zeros_like(ALL), "names no object"),
        (VIDEO[3], ALL.float(), "expected uint8 ids"),
        (VIDEO[3], {1: 3.0 * (ALL == 1)}, "values from 0 to 3"),
        (VIDEO[3], {300: (ALL == 1).float()}, "an id of 1..254"),
        (VIDEO[3, :, :40], None, r"\(40, 64\), the video so far is \(48, 64\)"),
        (VIDEO[3] * torch.nan, None, "values from nan to nan"),
        (VIDEO[3] * 255, None, r"expected \[0, 1\]; divide by 255"),
        (VIDEO[3, 0], None, r"expected \(3, H, W\)"),
    ],
)
def test_bad_input_is_named_and_the_session_goes_on(
    make: Make, frame: Tensor, prompt: Any, complaint: str
) -> None:
    plain = follow(make(), {0: TWO})
    segmenter = make()
    rows = follow(segmenter, {0: TWO}, 3)
    with pytest.raises(ValueError, match=complaint):
        segmenter.step(frame, prompt)
    for number in range(3, 6):
        segmenter.step(VIDEO[number])
        rows.append(segmenter.probabilities)
    assert_same(rows, plain, atol=0)


def test_without_an_object_everything_is_background(make: Make) -> None:
    segmenter = make()
    assert not segmenter.step(VIDEO[0]).any()
    segmenter.step(VIDEO[1], TWO)
    segmenter.remove_objects([1, 2])
    assert not segmenter.step(VIDEO[2]).any()
    with pytest.raises(ValueError, match=r"objects \[1\] are not followed"):
        segmenter.remove_objects([1])
    assert torch.equal(segmenter.step(VIDEO[3], ALL), ALL)


def test_void_in_a_prompt_stays_as_segmented(make: Make) -> None:
    segmenter = make()
    follow(segmenter, {0: TWO}, 3)
    unknown = TWO.clone()
    unknown[:, 48:] = 255
    segmenter.step(VIDEO[3], unknown)
    plain, void = follow(make(), {0: TWO}, 4)[3], unknown == 255
    given = torch.stack([unknown == 1, unknown == 2]).float()
    expected = soft_aggregate(torch.where(void, plain[1:], given))
    torch.testing.assert_close(segmenter.probabilities, expected, rtol=0, atol=1e-5)


def test_a_saved_session_goes_on_as_if_nothing_had_happened(make: Make) -> None:
    options = {"max_mem_frames": 2, "include_last": True}
    segmenter = make(**options)
    follow(segmenter, {0: TWO, 2: ALL * (ALL == 3)}, 4)
    stored = io.BytesIO()
    torch.save(segmenter.state_dict(), stored)
    stored.seek(0)
    other = make(**options)
    other.load_state_dict(torch.load(stored, weights_only=True))
    for frame in VIDEO[4:]:
        assert torch.equal(segmenter.step(frame), other.step(frame))
        assert torch.equal(segmenter.probabilities, other.probabilities)


@pytest.mark.parametrize("options", [{}, {"max_mem_mb": 1.0, "max_mem_frames": None}, {"include_last": True}])
def test_memory_does_not_grow_with_the_video(make: Make, options: dict[str, Any]) -> None:
    segmenter = make(mem_every=1, max_mem_frames=options.pop("max_mem_frames", 4), **options)
    sizes = []
    for number in range(40):
        segmenter.step(VIDEO[number % 8], TWO if number == 0 else None)
        sizes.append(segmenter.memory.megabytes)
    assert max(sizes[20:]) == min(sizes[20:])
    assert segmenter.memory.max_mem_mb is None or max(sizes) <= segmenter.memory.max_mem_mb


def test_corrected_frames_stay_for_good_when_asked(make: Make) -> None:
    segmenter = make(max_mem_frames=3, mem_every=1, permanent_prompts=True)
    follow(segmenter, {0: TWO, 2: TWO, 4: ALL * (ALL == 3)}, 8)
    assert [len(group.permanent) for group in segmenter.memory.groups] == [3, 1]
    segmenter.keep_next()
    segmenter.step(VIDEO[0])
    assert [len(group.permanent) for group in segmenter.memory.groups] == [4, 2]


def test_long_term_memory_needs_a_network_that_selects() -> None:
    segmenter = MemorySegmenter(small(), long_term=LongTerm())
    with pytest.raises(ValueError, match="long-term memory needs"):
        segmenter.step(VIDEO[0], TWO)


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="mem_every=0"):
        MemorySegmenter(small(), mem_every=0)
    with pytest.raises(ValueError, match="precision is 'int8'"):
        MemorySegmenter(small(), precision="int8")  # type: ignore[arg-type]
