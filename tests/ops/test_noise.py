"""Random numbers depend on their seed or key alone."""

from __future__ import annotations

import torch

from vosssl.ops.noise import Numbers, mix, sample_noise, uniform


def test_splitmix_gives_the_published_first_numbers() -> None:
    # the generator of the paper seeded with 0: state 0 + golden gamma, then finalised
    gamma = -7046029254386353131
    states = torch.tensor([gamma, 2 * gamma + 2**64 if 2 * gamma < -(2**63) else 2 * gamma])
    expected = [0xE220A8397B1DCDAF - 2**64, 0x6E789E6AA1B965F4]
    assert mix(states).tolist() == expected


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform(torch.arange(64), 1000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=10, min=0, max=1) / numbers.numel()
    assert (counts - 0.1).abs().max() < 0.01


def test_numbers_are_dealt_out_once_and_by_key() -> None:
    keys = torch.tensor([3, 5])
    both, alone = Numbers(keys, 6), Numbers(keys[1:], 6)
    first, second = both.take(2, low=-1.0, high=0.0), both.take(4)
    assert first.max() < 0 <= second.min()
    assert torch.equal(alone.take(2, low=-1.0, high=0.0), first[1:])
    assert torch.equal(alone.take(2, 2), second[1:].view(1, 2, 2))


def test_a_sample_gets_the_same_noise_in_any_batch() -> None:
    together = sample_noise(torch.tensor([7, 8]), (2, 3))
    assert torch.equal(together[1:], sample_noise(torch.tensor([8]), (2, 3)))
