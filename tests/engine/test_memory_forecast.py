"""The forecast of a step's memory: solved by hand, what it cannot foresee, advice where it is too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.engine.memory_forecast import MemoryForecast, forecast_memory, require_memory

WIDTH = 512
LAYER = 4 * WIDTH * WIDTH


def stack() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)))


def batch(clips: int = 4) -> Batch:
    return Batch(torch.rand(clips, 2, 3, 64, 64))  # (B, 2, 3, 64, 64): 48 * WIDTH numbers a clip


def objective(network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
    rows = batch.frames.reshape(-1, WIDTH)
    return {"loss": network(rows).square().mean()}


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda weights: torch.optim.SGD(weights, lr=0.1), 0),
        (lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9), 1),
        (lambda weights: torch.optim.AdamW(weights, lr=0.1), 2),
    ],
)
def test_weights_gradients_and_optimizer_states_are_counted(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], states: int
) -> None:
    network = stack()
    network[0].requires_grad_(False)
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    found = forecast_memory(network, objective, batch(), make(learned), averaged=True)
    assert (found.weights, found.gradients, found.optimizer) == (6 * LAYER, 2 * LAYER, 2 * states * LAYER)


def test_activations_are_those_at_the_moment_of_the_peak() -> None:
    network = stack()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    rows = 4 * 48 * WIDTH * 4  # bytes of what one layer gives, and of the batch
    found = forecast_memory(network, objective, batch(), optimizer)
    # most is in use at the last product: gradients of all weights, and that of the first layer's result
    assert found.activations - rows == pytest.approx(rows, abs=64)  # and a few scalars


def test_activations_grow_with_the_batch_and_shrink_with_its_parts() -> None:
    network = stack()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    few, many, parts = (
        forecast_memory(network, objective, batch(clips), optimizer, accumulate=accumulate).activations
        for clips, accumulate in ((8, 1), (64, 1), (64, 8))
    )
    assert few < parts < many


def test_nothing_of_the_network_changes() -> None:
    network = stack()
    before = [weight.detach().clone() for weight in network.parameters()]
    forecast_memory(network, objective, batch(), torch.optim.AdamW(network.parameters()))
    for weight, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(weight, old) and weight.grad is None and type(weight.data) is Tensor


def test_a_step_that_depends_on_contents_cannot_be_foreseen() -> None:
    def picky(network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        rows = network(batch.frames.reshape(-1, WIDTH))
        return {"loss": rows[rows > 0].mean() * float(rows.max())}

    network = stack()
    with pytest.raises(ValueError, match="train\\.steps=2"):
        forecast_memory(network, picky, batch(), torch.optim.SGD(network.parameters(), lr=0.1))


def test_seeds_numbers_of_objects_and_what_is_drawn_with_them_can_be_read() -> None:
    def reads(network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        assert batch.num_objects is not None
        assert int(batch.num_objects.max()) == 2 and batch.seeds.tolist() == [5]
        drawn = torch.rand(3, generator=torch.Generator().manual_seed(int(batch.seeds[0])))
        assert drawn.tolist() == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()
        return {"loss": network(batch.frames.reshape(-1, WIDTH)).mean() * drawn.sum()}

    given = replace(batch(), seeds=torch.tensor([5]), num_objects=torch.tensor([1, 2]))
    network = stack()
    forecast = forecast_memory(network, reads, given, torch.optim.SGD(network.parameters(), lr=0.1))
    assert forecast.activations > 0


def test_too_much_is_refused_with_advice_and_enough_is_not() -> None:
    forecast = MemoryForecast(0, 10**9, 10**9, 2 * 10**9, 4 * 10**9)
    require_memory(forecast, torch.device("cpu"), budget_gb=8.0)
    with pytest.raises(ValueError, match=r"8\.00 GB: .*activations 4\.00; there are 7\.00 GB.*accumulate"):
        require_memory(forecast, torch.device("cpu"), budget_gb=7.0)
