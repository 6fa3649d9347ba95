"""Objects of a second clip: in front, with ids of their own, evenly chosen."""

from __future__ import annotations

import itertools

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.pasting import PastedObjects, paste_objects
from vosssl.data.sampling import ClipLoader, Draw, Mix, as_draw


def clip_of(labels: list[int], *, colour: int, name: str = "made", frames: int = 2) -> Clip:
    """Rows of 12 pixels of one colour, whose label columns repeat downwards."""
    ids = torch.tensor(labels, dtype=torch.uint8).expand(frames, 12, -1)
    pixels = torch.full((frames, 3, 12, len(labels)), colour, dtype=torch.uint8)
    return Clip(name, pixels, ids, num_objects=len(set(labels) - {0, 255}))


class Striped:
    """Clip i has i + 1 objects, one in each of the first columns; its colour is 40 * i."""

    def __init__(self, length: int = 5) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw | int) -> Clip:
        index = as_draw(draw).index
        labels = [*range(1, index + 2), *[0] * (11 - index)]
        return clip_of(labels, colour=40 * index, name=f"striped{index}")


def test_pasted_objects_hide_what_is_behind_them() -> None:
    back = clip_of([1] * 6 + [0] * 4 + [255] * 2, colour=0)
    front = clip_of([0] * 4 + [3] * 4 + [0] * 4, colour=200)
    pasted = paste_objects(back, front)
    assert pasted.labels is not None
    assert pasted.labels[0, 0].tolist() == [1] * 4 + [2] * 4 + [0] * 2 + [255] * 2
    assert pasted.num_objects == 2
    row = pasted.frames[0, 0, 6].tolist()
    assert row[:2] == row[10:] == [0, 0]
    assert row[2] < row[3] < row[4] < row[5] < 201  # a soft edge
    assert row[5] > 180


def test_clips_of_different_size_cannot_be_pasted() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paste_objects(clip_of([1] * 12, colour=0), clip_of([1] * 11, colour=0))


def test_half_of_the_clips_with_room_get_more_objects() -> None:
    dataset = PastedObjects(
        Striped(1), max_objects=3
    )  # the second clip hides the first: its own objects only
    front = [dataset._pastes(Draw(0, seed)) for seed in range(1000)]
    assert abs(sum(front) - 500) < 4 * 250**0.5
    assert not any(PastedObjects(Striped(), probability=0.0)._pastes(Draw(0, seed)) for seed in range(50))


def test_labels_are_1_to_num_objects_and_never_more_than_wanted() -> None:
    dataset = PastedObjects(Striped(), max_objects=3, probability=0.8)
    for seed in range(60):
        clip = dataset[Draw(seed % 5, seed)]
        assert clip.labels is not None
        assert clip.num_objects is not None
        assert 1 <= clip.num_objects <= 3
        assert set(clip.labels[0].unique().tolist()) - {0} == set(range(1, clip.num_objects + 1))


def test_the_second_clip_is_any_clip_of_the_whole_mix() -> None:
    dataset = PastedObjects(Mix([Striped(2), Striped(6)]))
    indices = torch.tensor([dataset.second(Draw(0, seed, 7)).index for seed in range(1600)])
    counts = indices.bincount(minlength=8)
    assert (counts - 200).abs().max() < 4 * 200**0.5
    assert dataset.second(Draw(0, 1, 7)).step == 7


def test_reading_one_by_one_and_together_is_the_same() -> None:
    dataset = PastedObjects(Striped())
    draws = [Draw(index, 20 + index) for index in (4, 0, 2, 1)]
    for clip, draw in zip(dataset.__getitems__(draws), draws, strict=True):
        assert torch.equal(clip.frames, dataset[draw].frames)
    (batch,) = itertools.islice(ClipLoader(dataset, batch_size=5).batches(), 1)
    assert batch.num_objects is not None
    assert batch.num_objects.shape == (5,)


def test_arguments_and_clips_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="probability 2"):
        PastedObjects(Striped(), probability=2.0)

    class Plain(Striped):
        def __getitem__(self, draw: Draw | int) -> Clip:
            return Clip("plain", torch.zeros(1, 3, 2, 2, dtype=torch.uint8))

    with pytest.raises(ValueError, match="does not say how many objects"):
        PastedObjects(Plain())[0]


def test_the_fingerprint_is_that_of_the_clips_and_arguments() -> None:
    def print_of(length: int, **options: float) -> str:
        return PastedObjects(Mix([Striped(2), Striped(length)]), **options).fingerprint()  # type: ignore[arg-type]

    assert print_of(4) == print_of(4)
    assert len({print_of(4), print_of(5), print_of(4, probability=0.1)}) == 3
