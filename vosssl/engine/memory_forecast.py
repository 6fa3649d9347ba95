"""How much memory a training step will need, found without computing it.

Forward and backward pass run on tensors that have shapes but no content, while the bytes that are alive are
counted. What weights, gradients, the optimizer's state and an average of weights take is plain arithmetic.
"""

from __future__ import annotations

import copy
import os
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException as ContentNeededError
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vosssl.clip import Batch
from vosssl.engine.batches import split_batch
from vosssl.engine.interfaces import Objective, Precision

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
GB = 1e9


class MemoryForecast(NamedTuple):
    """Bytes that will be in use when most are.

    Attributes:
        program: what the process takes without the network; 0 on a GPU.
        weights: parameters and buffers, of the weight average, too.
        gradients: of the parameters that learn.
        optimizer: its state.
        activations: what a step keeps for its gradients, and passing results.
    """

    program: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GB:.2f}" for name, size in self._asdict().items() if size)
        return f"{self.total / GB:.2f} GB: {parts}"


def forecast_memory(
    network: nn.Module,
    objective: Objective,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    precision: Precision = "fp32",
    accumulate: int = 1,
    averaged: bool = False,
) -> MemoryForecast:
    """Foresees the peak of a training step.

    Args:
        network: on the device that it will learn on; stays as it is.
        objective: its attribute `heaviest(batch)`, if any, gives a batch of the same size that no other needs
            more memory than.
        batch: any of the run.
        optimizer: over the network's parameters.
        precision, accumulate: see `Trainer`.
        averaged: whether an average of the weights is kept.

    Returns:
        The forecast. What libraries take for themselves, such as workspaces of convolutions, is not in it.

    Raises:
        ValueError: an objective whose course depends on what is in the tensors.
    """
    device = next(network.parameters()).device
    resident = resident_bytes() if device.type == "cpu" else 0
    heaviest = getattr(objective, "heaviest", None)
    batch = batch if heaviest is None else heaviest(batch)
    learned = [weight for group in optimizer.param_groups for weight in group["params"]]
    weights = _bytes([*network.parameters(), *network.buffers()])
    gradients = _bytes(learned)
    try:
        peak = _traced_peak(network, objective, batch, precision=precision, accumulate=accumulate)
    except (ContentNeededError, DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
        raise ValueError(
            f"a step of {type(objective).__module__} depends on what is in its tensors ({error}), so that "
            "its memory cannot be foreseen; train two steps with train.steps=2 and read speed/peak_memory_gb"
        ) from error
    return MemoryForecast(
        program=max(0, resident - weights),
        weights=weights * (2 if averaged else 1),
        gradients=gradients,
        optimizer=gradients * _states_per_weight(optimizer),
        activations=max(0, peak - gradients) + _batch_bytes(batch),
    )


def require_memory(forecast: MemoryForecast, device: torch.device, *, budget_gb: float | None = None) -> None:
    """Nothing, where there is enough memory.

    Args:
        forecast: what will be needed.
        device: where.
        budget_gb: how much there is; None: what the device has left, and what this process holds already.

    Raises:
        ValueError: not enough; says what to change.
    """
    budget = available_bytes(device) + forecast.program if budget_gb is None else budget_gb * GB
    if forecast.total <= budget:
        return
    raise ValueError(
        f"training will need {forecast}; there are {budget / GB:.2f} GB. Try, in this order: "
        "train.accumulate=N (N up to train.batch_size), train.precision=bf16, "
        "method.objective.checkpointing=true where the method has it, fewer data.frames or data.objects, a "
        "smaller data.size, fewer parameters that learn (method.trains=decoder)"
    )


def available_bytes(device: torch.device) -> int:
    """Memory of a GPU, or what the machine can still give."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if hasattr(os, "sysconf")
            else sys.maxsize
        )


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made and not yet gone.

    Among tensors without content, what is made of real ones alone (seeds, numbers of objects) or drawn by a
    generator of the CPU is real, so that a step can read it.

    Args:
        apart: tensors that do not count, nor do views of them; they have to outlive the counter.

    Attributes:
        peak: the most so far.
    """

    def __init__(self, apart: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in apart}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        drawn = any(isinstance(leaf, torch.Generator) and leaf.device.type == "cpu" for leaf in leaves)
        real = (given or drawn) and not any(isinstance(tensor, FakeTensor) for tensor in given)
        with unset_fake_temporarily() if real else nullcontext():
            result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, result)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _traced_peak(
    network: nn.Module, objective: Objective, batch: Batch, *, precision: Precision, accumulate: int
) -> int:
    """Most bytes that are alive in a step besides the weights; gradients among them."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        twin = copy.deepcopy(network).train()
    device = next(network.parameters()).device
    kind = _AUTOCAST.get(precision)
    whole = _without_content(batch, mode, device)
    parts = split_batch(whole, accumulate)
    counter = LiveBytes([*twin.parameters(), *twin.buffers(), *_tensors(whole)])
    with mode, counter:
        for part in parts[:2]:  # from the second on, gradients of earlier ones are there
            with torch.autocast(device.type, dtype=kind) if kind else nullcontext():
                terms = objective(twin, part, 0)
            torch.stack([term.float() for term in terms.values()]).sum().backward()
            del terms
    return counter.peak


def _without_content(batch: Batch, mode: FakeTensorMode, device: torch.device) -> Batch:
    """The batch on the device, with shapes only; seeds and numbers of objects keep their values."""

    def emptied(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    frames = emptied(batch.frames)
    assert frames is not None
    features = {
        name: empty for name, value in batch.features.items() if (empty := emptied(value)) is not None
    }
    return replace(
        batch, frames=frames, labels=emptied(batch.labels), flow=emptied(batch.flow), features=features
    )


def _states_per_weight(optimizer: torch.optim.Optimizer) -> int:
    """How many tensors of a weight's size an optimizer keeps, seen on a small weight."""
    probe = nn.Parameter(torch.zeros(2, 3))
    probe.grad = torch.ones_like(probe)
    twin = copy.copy(optimizer)
    settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    twin.state, twin.param_groups = defaultdict(dict), [{**settings, "params": [probe]}]
    twin.step()
    values = twin.state[probe].values()
    return sum(isinstance(value, Tensor) and value.shape == probe.shape for value in values)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of different storages."""
    sizes = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(sizes.values())


def _batch_bytes(batch: Batch) -> int:
    return _bytes(_tensors(batch))


def _tensors(batch: Batch) -> list[Tensor]:
    tensors = [batch.frames, batch.labels, batch.flow, *batch.features.values()]
    return [tensor for tensor in tensors if tensor is not None]
