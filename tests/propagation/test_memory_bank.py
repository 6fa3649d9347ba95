"""The memory of a video: what is kept, what is read, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vosssl.ops.memory_reading import memory_features, query_features
from vosssl.propagation.long_term import LongTerm
from vosssl.propagation.memory_bank import MemoryBank
from vosssl.propagation.memory_network import EncodedFrame

LONG_TERM = LongTerm(max_mem_frames=4, min_mem_frames=2, num_prototypes=5, max_num_tokens=16, buffer_tokens=3)


def frame(seed: int, *, batch: int = 1, side: int = 3, plain: bool = False) -> EncodedFrame:
    """A random key of 4 channels, with shrinkage and selection unless it is plain."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(batch, 4, side, side, generator=generator)
    if plain:
        return EncodedFrame(key, None, None, ())
    shrinkage = 1 + torch.rand(batch, 1, side, side, generator=generator)
    selection = torch.rand(batch, 4, side, side, generator=generator)
    return EncodedFrame(key, shrinkage, selection, ())


def values(seed: int, objects: int, *, batch: int = 1, side: int = 3) -> Tensor:
    """(B, N, 2, h, w)."""
    return torch.randn(batch, objects, 2, side, side, generator=torch.Generator().manual_seed(100 + seed))


def bank(**options: Any) -> MemoryBank:
    return MemoryBank(**{"top_k": 4, "max_mem_frames": None} | options)


def slow_read(query: EncodedFrame, frames: list[EncodedFrame], held: list[Tensor], top_k: int) -> Tensor:
    """(B, n, V, h, w) by the definition: every similarity, the best of them, their softmax."""
    key = torch.stack([entry.key for entry in frames], 2).flatten(2)  # (B, C, M)
    difference = query.key.flatten(2)[:, :, None] - key[..., None]  # (B, C, M, Q)
    selection = 1 if query.selection is None else query.selection.flatten(2)[:, :, None]
    scores = -(selection * difference.square()).sum(1) / 2  # over the root of 4 channels
    if frames[0].shrinkage is not None:
        scores *= torch.stack([entry.shrinkage for entry in frames], 2).flatten(2).transpose(1, 2)
    limit = scores.topk(min(top_k, scores.shape[1]), dim=1).values.amin(1, keepdim=True)
    weights = scores.masked_fill(scores < limit, -torch.inf).softmax(1)  # (B, M, Q)
    memory = torch.stack(held, 3).flatten(3)  # (B, n, V, M)
    return (memory @ weights[:, None]).unflatten(-1, query.key.shape[-2:])


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("top_k", [4, 1000])
def test_a_read_is_the_softmax_of_the_best_matches(plain: bool, top_k: int) -> None:
    memory = bank(top_k=top_k)
    frames = [frame(seed, batch=2, plain=plain) for seed in range(3)]
    held = [values(seed, 2, batch=2) for seed in range(3)]
    for entry, value in zip(frames, held, strict=True):
        memory.append(entry, value, [7, 3])
    query = frame(9, batch=2, plain=plain)
    (found,) = memory.read(query)
    torch.testing.assert_close(found, slow_read(query, frames, held, top_k), rtol=1e-4, atol=1e-5)


def test_reading_everything_in_training_is_reading_enough_matches() -> None:
    trained, used = MemoryBank(top_k=None, differentiable=True), bank(top_k=1000)
    for seed in range(3):
        trained.append(frame(seed), values(seed, 2), [1, 2])
        used.append(frame(seed), values(seed, 2), [1, 2])
    torch.testing.assert_close(trained.read(frame(9))[0], used.read(frame(9))[0], rtol=1e-4, atol=1e-5)


def test_gradients_reach_what_a_training_memory_holds() -> None:
    memory = MemoryBank(top_k=None, differentiable=True)
    key, value = torch.randn(1, 4, 3, 3, requires_grad=True), values(0, 2).requires_grad_()
    memory.append(EncodedFrame(key, None, None, ()), value, [1, 2])
    memory.append(frame(1, plain=True), values(1, 2), [1, 2])
    memory.read(frame(2, plain=True))[0].square().sum().backward()
    assert key.grad is not None and value.grad is not None
    assert key.grad.abs().sum() > 0 and value.grad.abs().sum() > 0


def test_the_similarity_is_the_negative_distance_that_the_query_selects() -> None:
    key, query = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    selection, shrinkage = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0]])
    score = query_features(query, selection) @ memory_features(key, shrinkage, selects=True).T
    assert float(score) == pytest.approx(-2.0 * (1.0 * 4 + 0.5 * 9) / 2**0.5)


def test_the_first_frame_stays_and_the_oldest_others_go() -> None:
    memory = bank(max_mem_frames=3, top_k=1000)
    held = []
    for seed in range(6):
        memory.append(frame(seed), values(seed, 1), [1])
        held.append(values(seed, 1))
        assert len(memory) <= 3
    query = frame(9)
    kept = [0, 4, 5]
    expected = slow_read(query, [frame(seed) for seed in kept], [held[seed] for seed in kept], 1000)
    torch.testing.assert_close(memory.read(query)[0], expected, rtol=1e-4, atol=1e-5)


def test_frames_that_are_permanent_are_not_replaced() -> None:
    memory = bank(max_mem_frames=2, top_k=1000)
    for seed in range(5):
        memory.append(frame(seed), values(seed, 1), [1], permanent=seed == 2)
    kept = [0, 2, 4]
    expected = slow_read(frame(9), [frame(seed) for seed in kept], [values(seed, 1) for seed in kept], 1000)
    torch.testing.assert_close(memory.read(frame(9))[0], expected, rtol=1e-4, atol=1e-5)


def test_a_temporary_frame_is_replaced_by_the_next_one() -> None:
    memory = bank(top_k=1000)
    for seed in range(4):
        memory.append(frame(seed), values(seed, 1), [1], temporary=seed in (1, 2))
    expected = slow_read(frame(9), [frame(0), frame(3)], [values(0, 1), values(3, 1)], 1000)
    assert len(memory) == 2
    torch.testing.assert_close(memory.read(frame(9))[0], expected, rtol=1e-4, atol=1e-5)


def test_late_objects_read_the_frames_since_they_came_and_share_their_storage() -> None:
    memory = bank(top_k=1000)
    memory.append(frame(0), values(0, 1), [5])
    memory.append(frame(1), values(1, 2), [5, 2])
    memory.append(frame(2), values(2, 2), [5, 2])
    early, late = memory.read(frame(9))
    assert len(memory) == 3 and memory.ids == [5, 2]
    torch.testing.assert_close(
        early,
        slow_read(
            frame(9),
            [frame(s) for s in range(3)],
            [values(0, 1), values(1, 2)[:, :1], values(2, 2)[:, :1]],
            1000,
        ),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        late,
        slow_read(frame(9), [frame(1), frame(2)], [values(1, 2)[:, 1:], values(2, 2)[:, 1:]], 1000),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_removed_object_leaves_nothing_and_may_come_back() -> None:
    memory = bank(top_k=1000)
    memory.append(frame(0), values(0, 1), [5])
    memory.append(frame(1), values(1, 2), [5, 2])
    memory.remove([5])
    assert memory.ids == [2] and len(memory) == 1
    memory.append(frame(2), values(2, 2), [2, 5])
    expected = slow_read(frame(9), [frame(2)], [values(2, 2)[:, 1:]], 1000)
    torch.testing.assert_close(memory.read(frame(9))[1], expected, rtol=1e-4, atol=1e-5)
    memory.remove([2, 5])
    assert len(memory) == 0 and memory.megabytes == 0
    with pytest.raises(ValueError, match="nothing is remembered"):
        memory.read(frame(9))


def test_storage_does_not_grow_with_the_video_and_is_not_copied() -> None:
    memory = bank(max_mem_frames=4)
    for seed in range(5):
        memory.append(frame(seed), values(seed, 2), [1, 2])
    stored, megabytes = memory.storage.values[1].data_ptr(), memory.megabytes
    for seed in range(5, 300):
        memory.append(frame(seed % 7), values(seed % 7, 2), [1, 2])
    assert memory.storage.values[1].data_ptr() == stored and memory.megabytes == megabytes


@pytest.mark.parametrize("long_term", [None, LONG_TERM])
@pytest.mark.parametrize("temporary", [True, False])
def test_a_budget_in_megabytes_is_kept(long_term: LongTerm | None, temporary: bool) -> None:
    budget = 0.02
    memory = bank(max_mem_mb=budget, long_term=long_term)
    for seed in range(80):
        objects = 1 + (seed > 40)
        held = values(seed, objects)
        memory.append(frame(seed), held, [1, 2][:objects], temporary=temporary and seed % 3 > 0)
        memory.read(frame(seed + 1))
        assert memory.megabytes <= budget
    assert len(memory) > 2


def test_a_budget_too_small_for_what_has_to_stay_is_said_and_changes_nothing() -> None:
    memory = bank(max_mem_mb=0.003)
    memory.append(frame(0), values(0, 1), [1])
    before = memory.read(frame(9))[0]
    with pytest.raises(ValueError, match=r"max_mem_mb=0.003 holds .* expected room for"):
        for seed in range(1, 9):
            memory.append(frame(seed), values(seed, 1), [1], permanent=True)
    assert memory.ids == [1] and torch.isfinite(before).all()
    memory.append(frame(3), values(3, 1), [1])
    memory.read(frame(9))


def test_long_term_memory_stays_within_its_limits_for_ever() -> None:
    memory = bank(long_term=LONG_TERM, top_k=6)
    for seed in range(60):
        memory.append(frame(seed), values(seed, 2), [1, 2])
        (found,) = memory.read(frame(seed + 1))
        assert torch.isfinite(found).all()
        (group,) = memory.groups
        assert group.prototypes <= LONG_TERM.max_num_tokens and len(group.slots) <= LONG_TERM.max_mem_frames
    assert memory.groups[0].prototypes > 0


def test_a_saved_memory_goes_on_as_if_nothing_had_happened() -> None:
    memory = bank(long_term=LONG_TERM, top_k=6)
    for seed in range(9):
        memory.append(frame(seed), values(seed, 1 + (seed > 3)), [1, 2][: 1 + (seed > 3)])
        memory.read(frame(seed))
    other = bank(long_term=LONG_TERM, top_k=6)
    other.load_state_dict(memory.state_dict())
    for seed in range(9, 15):
        for each in (memory, other):
            each.append(frame(seed), values(seed, 2), [1, 2])
    for mine, theirs in zip(memory.read(frame(20)), other.read(frame(20)), strict=True):
        assert torch.equal(mine, theirs)


def test_what_does_not_fit_is_named() -> None:
    memory = bank()
    memory.append(frame(0), values(0, 2), [1, 2])
    with pytest.raises(ValueError, match=r"expected \(1, 1, V, 3, 3\)"):
        memory.append(frame(1), values(1, 2), [1])
    with pytest.raises(ValueError, match=r"expected each of \[1, 2\] once"):
        memory.append(frame(1), values(1, 1), [1])
    with pytest.raises(ValueError, match="clear the memory first"):
        memory.append(frame(1, side=4), values(1, 2, side=4), [1, 2])
    with pytest.raises(ValueError, match=r"\[9\] are not remembered"):
        memory.remove([9])
    with pytest.raises(ValueError, match="max_num_tokens above"):
        LongTerm(max_num_tokens=100)


def test_clips_of_a_batch_may_read_different_frames() -> None:
    memory = MemoryBank(top_k=None, differentiable=True)
    frames = [frame(seed, batch=2) for seed in range(3)]
    for seed, entry in enumerate(frames):
        memory.append(entry, values(seed, 2, batch=2), [1, 2])
    (found,) = memory.read(frame(9, batch=2), only=torch.tensor([[2, 0], [1, 0]]))
    for clip, chosen in enumerate([(2, 0), (1, 0)]):
        held = [values(seed, 2, batch=2)[clip : clip + 1] for seed in chosen]
        alone = [EncodedFrame(*(part[clip : clip + 1] for part in frames[seed][:3]), ()) for seed in chosen]
        query = EncodedFrame(*(part[clip : clip + 1] for part in frame(9, batch=2)[:3]), ())
        expected = slow_read(query, alone, held, 1000)
        torch.testing.assert_close(found[clip : clip + 1], expected, rtol=1e-4, atol=1e-5)
