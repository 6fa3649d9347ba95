"""Draws, mixes and the loader: a batch is a function of its step and nothing else."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from vosssl.clip import Batch, Clip
from vosssl.data.sampling import ClipLoader, Draw, Mix, as_draw, mixed_seed


class Numbered:
    """A dataset whose clips show their draw."""

    def __init__(self, length: int, name: str = "clip") -> None:
        self.length = length
        self.name = name

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw | int) -> Clip:
        index, seed, _ = as_draw(draw)
        generator = torch.Generator().manual_seed(seed)
        frames = torch.randint(0, 256, (2, 3, 4, 4), generator=generator, dtype=torch.uint8)
        return Clip(name=f"{self.name}{index}", frames=frames)


class Failing(Numbered):
    def __getitem__(self, draw: Draw | int) -> Clip:
        raise ValueError("frame 3 cannot be read")


def first(loader: ClipLoader, count: int, start_step: int = 0) -> list[Batch]:
    batches = loader.batches(start_step)
    taken = list(itertools.islice(batches, count))
    batches.close()  # type: ignore[attr-defined]
    return taken


def same(left: Batch, right: Batch) -> bool:
    return (
        left.names == right.names
        and torch.equal(left.frames, right.frames)
        and torch.equal(left.seeds, right.seeds)
    )


def test_every_epoch_visits_every_clip_once_in_a_new_order() -> None:
    batches = first(ClipLoader(Numbered(6), batch_size=4), 6)  # 24 clips: 4 epochs
    names = [name for batch in batches for name in batch.names]
    epochs = [tuple(names[start : start + 6]) for start in range(0, 24, 6)]
    assert all(sorted(epoch) == [f"clip{n}" for n in range(6)] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_without_shuffle_the_order_is_the_datasets() -> None:
    (batch,) = first(ClipLoader(Numbered(5), batch_size=3, shuffle=False), 1, start_step=1)
    assert batch.names == ("clip3", "clip4", "clip0")


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"workers": 1}, {"workers": 2, "prefetch": 1}])
def test_workers_and_threads_change_no_batch(options: dict[str, int]) -> None:
    reference = first(ClipLoader(Numbered(7), batch_size=4, seed=3), 5)
    others = first(ClipLoader(Numbered(7), batch_size=4, seed=3, **options), 5)
    assert all(same(left, right) for left, right in zip(reference, others, strict=True))


def test_a_resumed_loader_goes_on_with_the_same_batches() -> None:
    whole = first(ClipLoader(Numbered(7), batch_size=3), 6)
    rest = first(ClipLoader(Numbered(7), batch_size=3), 2, start_step=4)
    assert same(whole[4], rest[0])
    assert same(whole[5], rest[1])


def test_ranks_share_out_the_rows_of_one_global_batch() -> None:
    (whole,) = first(ClipLoader(Numbered(9), batch_size=4), 1, start_step=2)
    parts = [
        first(ClipLoader(Numbered(9), batch_size=4, rank=r, world=2), 1, start_step=2)[0] for r in (0, 1)
    ]
    for rank, part in enumerate(parts):
        assert part.names == whole.names[rank::2]
        assert torch.equal(part.frames, whole.frames[rank::2])
        assert torch.equal(part.seeds, whole.seeds[rank::2])


def test_reading_moves_no_global_random_state() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first(ClipLoader(Numbered(7), batch_size=3), 2)
    first(ClipLoader(Numbered(7), batch_size=3, workers=1), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_closed_loader_leaves_no_thread_behind() -> None:
    first(ClipLoader(Numbered(7), batch_size=3), 2)
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_while_reading_arrives_at_the_consumer(prefetch: int) -> None:
    with pytest.raises(ValueError, match="frame 3 cannot be read"):
        next(ClipLoader(Failing(4), batch_size=2, prefetch=prefetch).batches())


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="empty dataset"):
        ClipLoader(Numbered(0), batch_size=2)
    with pytest.raises(ValueError, match="multiple of 2"):
        ClipLoader(Numbered(4), batch_size=3, world=2)
    with pytest.raises(ValueError, match="rank 2 of world 2"):
        ClipLoader(Numbered(4), batch_size=4, rank=2, world=2)


def test_neighbouring_seeds_mix_to_unrelated_ones() -> None:
    seeds = {mixed_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(20)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mixed_seed(1, 2) != mixed_seed(2, 1)


def test_a_mix_holds_its_shares_in_every_epoch() -> None:
    mix = Mix([Numbered(2, "a"), Numbered(30, "b")], weights=[1, 3], length=16)
    batches = first(ClipLoader(mix, batch_size=4), 4)
    names = [name for batch in batches for name in batch.names]
    assert sum(name.startswith("a") for name in names) == 4
    assert sorted(name for name in names if name.startswith("a")) == ["a0", "a0", "a1", "a1"]


def test_a_mix_reads_the_same_one_by_one_and_together() -> None:
    mix = Mix([Numbered(3, "a"), Numbered(5, "b")])
    draws = [Draw(index, 10 + index) for index in (7, 0, 4, 2)]
    together = mix.__getitems__(draws)
    assert [clip.name for clip in together] == [mix[draw].name for draw in draws] == ["b4", "a0", "b1", "a2"]


def test_a_mix_refuses_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="positive one for each"):
        Mix([Numbered(3)], weights=[1, 2])
    with pytest.raises(ValueError, match="none empty"):
        Mix([Numbered(3), Numbered(0)])


def test_a_draw_holds_its_step_through_a_mix() -> None:
    loader = ClipLoader(Mix([Numbered(3, "a"), Numbered(4, "b")]), batch_size=4, rank=1, world=2)
    draws = loader.draws(5)
    assert [draw.step for draw in draws] == [5, 5]
    mix = loader.dataset
    assert isinstance(mix, Mix)
    assert [mix.place(draw)[1].step for draw in draws] == [5, 5]
    assert as_draw(3) == Draw(3, 0, 0)


def test_a_dataset_that_is_repeated_is_visited_as_often_in_every_epoch() -> None:
    mix = Mix([Numbered(2, "a"), Numbered(3, "b")], repeats=[3, 1])
    batches = first(ClipLoader(mix, batch_size=9), 2)
    for batch in batches:
        assert sorted(batch.names) == ["a0"] * 3 + ["a1"] * 3 + ["b0", "b1", "b2"]
        assert len(set(batch.seeds.tolist())) == 9  # a repeated clip is another sample
    with pytest.raises(ValueError, match="1 or more for each, and no weights"):
        Mix([Numbered(2)], repeats=[0])
