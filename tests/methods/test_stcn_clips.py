"""STCN on whole clips against the official inference programs: probabilities, masks, what is remembered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.fill import box_mask, noise_video
from tests.methods.stcn_models import arrays, error, index, published, small
from vosssl.methods.stcn import stcn_segmenter
from vosssl.modes.build import create_segmenter
from vosssl.propagation.memory_segmenter import MemorySegmenter

PROBABILITY = 1e-5  # the reference asks for 1e-4; two runs of the official code differ by 1e-6
CLEAR = 1e-5  # margin between the two best rows above which both must choose the same


def segmenter_of(case: str) -> MemorySegmenter:
    options = index()[f"{case}/INPUT"]["options"]
    names = ("mem_every", "top_k", "include_last")
    return stcn_segmenter(published(), **{name: options[name] for name in names if name in options})


def clip_of(case: str) -> tuple[Tensor, Tensor]:
    """Frames (T, 3, H, W), and the labels (H, W) of all objects."""
    given = index()[f"{case}/INPUT"]
    return noise_video(*given["video"]), box_mask(*given["video"][1:3], given["boxes"]).byte()


def compare(case: str, rows: list[Tensor], labels: list[Tensor]) -> None:
    probabilities = torch.stack(rows)  # (T, N + 1, H, W)
    expected = torch.from_numpy(arrays()[f"{case}/prob"])
    assert (probabilities[:, :, 1::4, 2::4] - expected).abs().max() < PROBABILITY
    best = probabilities.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > CLEAR
    different = torch.stack(labels) != torch.from_numpy(arrays()[f"{case}/mask"])
    assert clear.float().mean() > 0.6  # frames that are skipped are unclear throughout
    assert not (different & clear).any()


def compare_memory(case: str, segmenter: MemorySegmenter, ids: list[int], suffix: str = "") -> None:
    """Keys and values of some objects after the last frame, which the official program does not remember."""
    bank = segmenter.memory
    group = next(group for group in bank.groups if set(ids) <= set(group.ids))
    places = index()[f"{case}/final_mem_key{suffix}"]["shape"][2]
    slots = [*group.permanent, *group.rolling][: places // bank.storage.area]
    features = bank.storage.place("features", slots).mT  # (1, C + 1, M): 2 key / sqrt(C), then squares
    channels = features.shape[1] - 1
    keys = features[:, :channels] * channels**0.5 / 2
    values = torch.cat([bank.storage.value(identity, slots).mT for identity in ids])  # (N, V, M)
    assert error(keys, f"{case}/final_mem_key{suffix}") < PROBABILITY
    assert error(values, f"{case}/final_mem_value{suffix}") < PROBABILITY


@pytest.mark.parametrize("case", ["plain", "include_last", "single"])
def test_clips_come_out_as_from_the_program_for_davis(case: str) -> None:
    segmenter, (frames, given) = segmenter_of(case), clip_of(case)
    rows, labels = [], []
    for time, frame in enumerate(frames):
        labels.append(segmenter.step(frame, given if time == 0 else None))
        rows.append(segmenter.probabilities)
    compare(case, rows, labels)
    compare_memory(case, segmenter, list(segmenter.object_ids))


@pytest.mark.parametrize("case", ["newobj", "newobj_req"])
def test_an_object_that_comes_late_is_followed_as_by_the_program_for_youtube_vos(case: str) -> None:
    """In `newobj_req` frames are skipped that are neither asked for nor remembered."""
    segmenter, (frames, given) = segmenter_of(case), clip_of(case)
    options, late = index()[f"{case}/INPUT"]["options"], index()[f"{case}/INPUT"]["new_object_frame"]
    prompts = {0: torch.where(given < 3, given, 0), late: torch.where(given == 3, given, 0)}
    wanted = options["req_frames"] or range(len(frames))
    rows, labels, remembered = [], [], 0
    for time, frame in enumerate(frames):
        row, label = torch.zeros(4, *given.shape), torch.zeros_like(given)
        due = time == late or time - remembered >= options["mem_every"]
        if time in wanted or due:
            segmenter.frame_index = time
            label = segmenter.step(frame, prompts.get(time))
            row[: len(segmenter.probabilities)] = segmenter.probabilities
            remembered = time if due else remembered
        else:
            row[0] = 1e-7  # what the program leaves there
        rows.append(row)
        labels.append(label)
    compare(case, rows, labels)
    assert [group.ids for group in segmenter.memory.groups] == [[1, 2], [3]]
    for identity in (1, 2, 3):
        compare_memory(case, segmenter, [identity], f"_obj{identity}")


def test_the_model_is_known_by_name_with_its_official_options() -> None:
    segmenter = create_segmenter("stcn", network=small(), mem_every=2, top_k=7, include_last=True)
    assert isinstance(segmenter, MemorySegmenter)
    assert (segmenter.mem_every, segmenter.memory.top_k, segmenter.include_last) == (2, 7, True)
    assert segmenter.memory.max_mem_frames == 40  # bounded unless one asks for None
    labels = segmenter.step(torch.rand(3, 21, 30), torch.ones(21, 30, dtype=torch.uint8))
    assert labels.shape == (21, 30) and labels.unique().tolist() == [1]


def test_padding_is_what_zeros_behind_the_normalisation_are() -> None:
    network = small()
    padded = torch.zeros(3, 8, 8) + torch.tensor(stcn_segmenter(network).pad_colour)[:, None, None]
    assert torch.equal(((padded[None] - network.mean) / network.std), torch.zeros(1, 3, 8, 8))
