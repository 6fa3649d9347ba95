"""Slot networks as graphs: `step`, one recurrent step from image to masks, and the parts that make it up.

The parts are what `SlotTracker` asks for, which adds slots, hides patches from them and reorders them. In a
program of your own: `initial`, `encode` and `first` for the first frame, then `step` for every further one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.layers.slot_decoders import Decoded
from vosssl.layers.slot_initializers import ConditionalInit
from vosssl.layers.slot_network import Encoded, SlotNetwork
from vosssl.propagation.graph_folder import Example, Export, ExportedNetwork, Graph, random_frames

_SLOTS: Mapping[int, str] = {1: "slots"}  # free axes


def slot_export(network: nn.Module, segmenter: Any, examples: Sequence[Example]) -> Export:
    """Graphs of a slot network.

    Args:
        network: in evaluation mode.
        segmenter: its `SlotTracker`.
        examples: the size of frames as the network gets them, which is fixed in the graphs (the first one's);
            their objects are slots here, whose number is free.

    Returns:
        `encode`: image (1, 3, H, W) in [0, 1] to inputs (1, D', h, w) and features (1, P, C), which
        are what the network reconstructs. `initial`: noise (1, K, D) to slots.
        `first` and `next`: slots, inputs (1, P, D') and visible (1, K, P) to slots and attention (1, K, P).
        `predict`: slots to those of the next frame. `decode`: slots and anything (h, w) to masks (1, K, P).
        `step`: image and slots of the last frame to slots and masks (1, K, h, w).

    Raises:
        ValueError: networks that start from hints, or whose slots see by group.
    """
    assert isinstance(network, SlotNetwork)
    if isinstance(network.initializer, ConditionalInit) or network.groups is not None:
        raise ValueError(
            f"{type(network).__name__} starts from hints or shows patches to slots by group, which is not "
            "exported; its other settings (savi-learned, slotcontrast-*, videosaur-*, slots-*) are"
        )
    if segmenter.first_iterations is not None:
        network.first_iterations = segmenter.first_iterations
    decoded = segmenter.output == "decoder"
    inputs = _example_inputs(network, [Example(examples[0].size, one.objects) for one in examples])
    graphs = [
        Graph("encode", network, _encode, [one.image for one in inputs], ("inputs", "features"), {}),
        Graph("initial", network, _initial, [one.noise for one in inputs], ("slots",), {"noise": _SLOTS}),
        Graph("predict", network, _predict, [one.slots for one in inputs], ("new_slots",), {"slots": _SLOTS}),
    ]
    free = {"slots": _SLOTS, "visible": _SLOTS}
    for name, first in (("first", True), ("next", False)):
        corrected, seen = [one.correction for one in inputs], ("new_slots", "attention")
        graphs.append(Graph(name, network, partial(_correct, first=first), corrected, seen, free))
    if decoded:
        places = [one.slots | one.places for one in inputs]
        graphs.append(Graph("decode", network, _decode, places, ("masks",), {"slots": _SLOTS}))
    steps, function = [one.image | one.slots for one in inputs], partial(_step, decoded=decoded)
    graphs.append(Graph("step", network, function, steps, ("new_slots", "masks"), {"slots": _SLOTS}))
    node = {
        "_target_": "vosssl.methods.exported.slots.ExportedSlots",
        "num_slots": network.num_slots,
        "slot_dim": network.slot_dim,
        "needs_noise": bool(getattr(network.initializer, "needs_noise", True)),
    }
    return Export(graphs, node, "image: RGB in [0, 1]")


class _Inputs(NamedTuple):
    """What the graphs take, for one example."""

    image: dict[str, Tensor]
    noise: dict[str, Tensor]
    slots: dict[str, Tensor]
    correction: dict[str, Tensor]
    places: dict[str, Tensor]


def _example_inputs(network: SlotNetwork, examples: Sequence[Example]) -> list[_Inputs]:
    rows, generator = [], torch.Generator().manual_seed(2)
    for example, frame in zip(examples, random_frames(examples), strict=True):
        noise = torch.randn(1, example.objects, network.slot_dim, generator=generator)
        with torch.no_grad():
            maps, _ = _encode(network, frame)
            slots = _initial(network, noise) + 0.1 * noise
        inputs = maps.flatten(2).transpose(1, 2)  # (1, D', h, w) -> (1, P, D')
        visible = torch.rand(1, example.objects, inputs.shape[1], generator=generator) < 0.8
        rows.append(
            _Inputs(
                {"image": frame},
                {"noise": noise},
                {"slots": slots},
                {"slots": slots, "inputs": inputs, "visible": visible},
                {"places": torch.zeros(*maps.shape[-2:])},
            )
        )
    return rows


def _encode(network: SlotNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
    encoded = network.encode(image)
    maps = encoded.inputs.transpose(1, 2).unflatten(-1, encoded.grid)  # (1, P, D') -> (1, D', h, w)
    return maps, encoded.features


def _initial(network: SlotNetwork, noise: Tensor) -> Tensor:
    slots = network.initial_slots(1, num_slots=noise.shape[1], noise=noise)
    return slots + 0 * noise  # a graph whose input is used by nothing would lose it


def _predict(network: SlotNetwork, slots: Tensor) -> Tensor:
    return network.predict(slots)


def _correct(network: SlotNetwork, slots: Tensor, inputs: Tensor, visible: Tensor, *, first: bool) -> Any:
    return network.correct(slots, inputs, first=first, visible=visible)


def _decode(network: SlotNetwork, slots: Tensor, places: Tensor) -> Tensor:
    return network.decode(slots, (places.shape[0], places.shape[1])).masks + 0 * places.sum()


def _step(network: SlotNetwork, image: Tensor, slots: Tensor, *, decoded: bool) -> Any:
    encoded = network.encode(image)
    slots, masks = network.correct(network.predict(slots), encoded.inputs, first=False)
    if decoded:
        masks = network.decode(slots, encoded.grid).masks
    return slots, masks.unflatten(-1, encoded.grid)  # (1, K, P) -> (1, K, h, w)


class _Initializer(nn.Module):
    def __init__(self, *, needs_noise: bool) -> None:
        super().__init__()
        self.needs_noise = needs_noise


class ExportedSlots(ExportedNetwork):
    """What `SlotTracker` asks of a `SlotNetwork`, as graphs.

    Args:
        num_slots: K, unless the tracker says otherwise.
        slot_dim: D.
        needs_noise: whether slots start from noise.
    """

    first_iterations: int | None = None  # as exported

    def __init__(self, *, num_slots: int, slot_dim: int, needs_noise: bool) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.slot_dim = slot_dim
        self.initializer = _Initializer(needs_noise=needs_noise)

    def encode(self, frames: Tensor) -> Encoded:
        """Frames (N, 3, H, W) in [0, 1] to what slots read and reconstruct."""
        parts = [self.graphs("encode", image=frame[None]) for frame in frames]
        maps, features = (torch.cat(rows) for rows in zip(*parts, strict=True))
        inputs = maps.flatten(2).transpose(1, 2)  # (N, D', h, w) -> (N, P, D')
        return Encoded(inputs, features, (maps.shape[-2], maps.shape[-1]))

    def initial_slots(
        self, batch_size: int, *, num_slots: int | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """(1, K, D) before the first frame."""
        if noise is None:
            noise = self.anchor.new_zeros(batch_size, num_slots or self.num_slots, self.slot_dim)
        return self.graphs("initial", noise=noise)[0]

    def correct(
        self, slots: Tensor, inputs: Tensor, *, first: bool, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `SlotNetwork.correct`."""
        if visible is None:
            visible = torch.ones(1, slots.shape[1], inputs.shape[1], dtype=torch.bool, device=slots.device)
        name = "first" if first else "next"
        slots, attention = self.graphs(name, slots=slots, inputs=inputs, visible=visible)
        return slots, attention

    def predict(self, slots: Tensor) -> Tensor:
        """(1, K, D) to what the next frame starts from."""
        return self.graphs("predict", slots=slots)[0]

    def decode(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Masks (1, K, P); the reconstruction is left out."""
        masks = self.graphs("decode", slots=slots, places=slots.new_zeros(grid))[0]
        return Decoded(reconstruction=slots[..., :0], masks=masks)
