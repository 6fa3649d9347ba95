"""Networks with a memory (STCN, Cutie) as graphs; what they remember stays in `MemoryBank`, or goes through.

`encode`, `memorise` and `predict` are what `MemorySegmenter` asks for. `read` is the bank's reading for
programs of your own: places of a memory of fixed size, and which of them are in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.ops.memory_reading import memory_features, query_features
from vosssl.propagation.graph_folder import (
    PLANE,
    Example,
    Export,
    ExportedNetwork,
    Graph,
    random_frames,
    random_masks,
)
from vosssl.propagation.memory_network import Carry, EncodedFrame

PLACES = 2  # frames that the memory of `read` holds in its examples, one of them in use


def memory_export(network: nn.Module, segmenter: Any, examples: Sequence[Example]) -> Export:
    """Graphs of a `MemoryNetwork`.

    Args:
        network: in evaluation mode.
        segmenter: its `MemorySegmenter`, which says how many places a query reads.
        examples: sizes of frames, multiples of the stride, and objects.

    Returns:
        `encode`: image (1, 3, H, W) in [0, 1] to key, shrinkage and selection if any, and features.
        `memorise`: image, features, masks (1, N, H, W) and carry to values (1, N, V, h, w) and carry.
        `predict`: key, features, readout (1, N, V, h, w), carry and last masks to probabilities
        (1, N + 1, H, W) and carry. Objects that are read in several groups (Cutie): `fuse` for each group,
        then `decode`. `read`: key, selection, memory_key (M, C), memory_shrinkage (M, 1), memory_values
        (N, M, V) and valid (M,) bool to the readout. `fresh`: key and masks to the carry of new objects.
    """
    memory: Any = network
    groups = hasattr(memory, "read_objects")
    rows = [
        _example(memory, frame, masks, groups=groups)
        for frame, masks in zip(random_frames(examples), random_masks(examples), strict=True)
    ]
    names = _Names(*rows[0].names)
    carry = tuple(f"new_{name}" for name in names.carry)
    reading = partial(_read, top_k=segmenter.memory.top_k, names=names)
    functions: list[tuple[str, Any, tuple[str, ...]]] = [
        ("encode", _encode, (*names.keys, *names.features)),
        ("memorise", partial(_memorise, names=names), ("values", *carry)),
        ("predict", partial(_predict, names=names), ("rows", *carry)),
        ("read", reading, ("readout",)),
    ]
    if groups:
        functions += [("fuse", partial(_fuse, names=names), ("fused",))]
        functions += [("decode", partial(_decode, names=names), ("rows", "new_sensory"))]
    if names.carry:
        functions += [("fresh", partial(_fresh, names=names), names.carry)]
    graphs = [
        Graph(name, network, function, [row.inputs[name] for row in rows], outputs, _FREE)
        for name, function, outputs in functions
    ]
    node = {
        "_target_": "vosssl.methods.exported.memory.ExportedMemory",
        "stride": int(memory.stride),
        "keys": list(names.keys),
        "features": list(names.features),
        "carry": list(names.carry),
    }
    return Export(graphs, node, "image: RGB in [0, 1], sides multiples of the stride")


_PLACES, _VALUES = {2: "h", 3: "w"}, {1: "objects", 3: "h", 4: "w"}
_MASKS = {1: "objects", 2: "height", 3: "width"}
_FREE: dict[str, Mapping[int, str]] = {
    "image": PLANE,
    "key": _PLACES,
    "shrinkage": _PLACES,
    "selection": _PLACES,
    **{f"feature{index}": {2: f"h{index}", 3: f"w{index}"} for index in range(8)},
    "readout": _VALUES,
    "fused": _VALUES,
    "sensory": _VALUES,
    "summaries": {1: "objects"},
    "masks": _MASKS,
    "last_masks": _MASKS,
    "memory_key": {0: "places"},
    "memory_shrinkage": {0: "places"},
    "memory_values": {0: "objects", 1: "places"},
    "valid": {0: "places"},
}


class _Names(NamedTuple):
    """What a network has: of key, shrinkage and selection; of features; of what objects carry."""

    keys: tuple[str, ...]
    features: tuple[str, ...]
    carry: tuple[str, ...]


class _Example(NamedTuple):
    """Inputs of all graphs by name, for one example."""

    names: _Names
    inputs: dict[str, dict[str, Tensor]]


def _example(network: Any, frame: Tensor, masks: Tensor, *, groups: bool) -> _Example:
    with torch.no_grad():
        encoded: EncodedFrame = network.encode_frame(frame)
        carry = network.fresh_carry(encoded, masks.shape[1])
        values, carry = network.memorise(frame, encoded, masks, carry)
    parts = {"key": encoded.key, "shrinkage": encoded.shrinkage, "selection": encoded.selection}
    keys = {name: part for name, part in parts.items() if part is not None}
    features = {f"feature{index}": part for index, part in enumerate(encoded.features)}
    tokens = {name: part[0].flatten(1).T.contiguous() for name, part in keys.items()}  # (M, C)
    valid = torch.arange(PLACES * len(tokens["key"])) < len(tokens["key"])
    reading = {"key": encoded.key} | ({"selection": keys["selection"]} if "selection" in keys else {})
    reading["memory_key"] = tokens["key"].repeat(PLACES, 1)
    if "shrinkage" in tokens:
        reading["memory_shrinkage"] = tokens["shrinkage"].repeat(PLACES, 1)
    reading["memory_values"] = values[0].flatten(2).transpose(1, 2).repeat(1, PLACES, 1)  # (N, M, V)
    inputs = {
        "encode": {"image": frame},
        "memorise": {"image": frame, "key": encoded.key, **features, "masks": masks, **carry},
        "predict": {"key": encoded.key, **features, "readout": values, **carry, "last_masks": masks},
        "read": reading | {"valid": valid},
        "fresh": {"key": encoded.key, "masks": masks},
    }
    names = _Names(tuple(keys), tuple(features), tuple(carry))
    if groups:
        read = {"key": encoded.key, **features, "readout": values, **carry, "last_masks": masks}
        inputs["fuse"] = read
        inputs["decode"] = {"key": encoded.key, **features, "fused": values, "sensory": carry["sensory"]}
    return _Example(names, inputs)


def _encode(network: Any, image: Tensor) -> tuple[Tensor, ...]:
    key, shrinkage, selection, features = network.encode_frame(image)
    return tuple(part for part in (key, shrinkage, selection, *features) if part is not None)


def _frame(key: Tensor, features: Sequence[Tensor]) -> EncodedFrame:
    return EncodedFrame(key, None, None, tuple(features))


def _memorise(network: Any, image: Tensor, key: Tensor, *rest: Tensor, names: _Names) -> tuple[Tensor, ...]:
    count = len(names.features)
    carry = dict(zip(names.carry, rest[count + 1 :], strict=True))
    values, carry = network.memorise(image, _frame(key, rest[:count]), rest[count], carry)
    return values, *carry.values()


def _predict(network: Any, key: Tensor, *rest: Tensor, names: _Names) -> tuple[Tensor, ...]:
    count = len(names.features)
    carry = dict(zip(names.carry, rest[count + 1 : -1], strict=True))
    rows, carry = network.predict(_frame(key, rest[:count]), [rest[count]], carry, rest[-1])
    return rows, *carry.values()


def _fuse(network: Any, key: Tensor, *rest: Tensor, names: _Names) -> Tensor:
    count = len(names.features)
    carry = dict(zip(names.carry, rest[count + 1 : -1], strict=True))
    fused = network.fuse(_frame(key, rest[:count]), rest[count], carry["sensory"], rest[-1])
    return network.read_objects(fused, carry["summaries"])[0]


def _decode(network: Any, key: Tensor, *rest: Tensor, names: _Names) -> tuple[Tensor, Tensor]:
    fused, sensory = rest[-2:]
    logits, sensory = network.decode(_frame(key, rest[: len(names.features)]), fused, sensory)
    return network.compete(logits).softmax(dim=1), sensory


def _fresh(network: Any, key: Tensor, masks: Tensor, *, names: _Names) -> tuple[Tensor, ...]:
    nothing = 0 * masks.sum()  # keeps the inputs in the graph
    carry = network.fresh_carry(_frame(key, ()), masks.shape[1])
    return tuple(carry[name] + nothing for name in names.carry)


def _read(network: Any, *inputs: Tensor, top_k: int | None, names: _Names) -> Tensor:
    """The bank's reading with everything of one size: what is not valid is never among the best."""
    key, *rest = inputs
    selection = rest.pop(0) if "selection" in names.keys else None
    memory_key = rest.pop(0)
    shrinkage = rest.pop(0) if "shrinkage" in names.keys else None
    values, valid = rest
    asked = None if selection is None else selection[0].flatten(1).T
    queries = query_features(key[0].flatten(1).T, asked)  # (1, C, h, w) -> (Q, F)
    scores = queries @ memory_features(memory_key, shrinkage, selects=selection is not None).T  # (Q, M)
    scores = scores.masked_fill(~valid, -torch.inf)
    if top_k is not None:
        best = scores.topk(top_k, dim=1)
        weights = torch.zeros_like(scores).scatter(1, best.indices, best.values.softmax(dim=1))
    else:
        weights = scores.softmax(dim=1)
    readout = weights @ values  # (Q, M) @ (N, M, V) -> (N, Q, V)
    return readout.transpose(1, 2).unflatten(2, (key.shape[-2], key.shape[-1]))[None]


class ExportedMemory(ExportedNetwork):
    """A `MemoryNetwork` of graphs.

    Args:
        stride: pixels from one place of keys to the next.
        keys: which of key, shrinkage and selection frames have.
        features: names of a frame's features.
        carry: names of what objects carry.
    """

    def __init__(
        self, *, stride: int, keys: Sequence[str], features: Sequence[str], carry: Sequence[str]
    ) -> None:
        super().__init__()
        self.stride = stride
        self.names = _Names(tuple(keys), tuple(features), tuple(carry))

    def encode_frame(self, images: Tensor) -> EncodedFrame:
        """See `MemoryNetwork`; a mirrored frame beside a frame is encoded after it."""
        parts = [self.graphs("encode", image=image[None]) for image in images]
        joined = [torch.cat(rows) for rows in zip(*parts, strict=True)]
        keys = dict(zip(self.names.keys, joined, strict=False))
        features = tuple(joined[len(self.names.keys) :])
        return EncodedFrame(keys["key"], keys.get("shrinkage"), keys.get("selection"), features)

    def fresh_carry(self, frame: EncodedFrame, count: int) -> Carry:
        """See `MemoryNetwork`."""
        if not self.names.carry:
            return {}
        masks = frame.key.new_zeros(1, count, *frame.key.shape[-2:])
        rows = self.graphs("fresh", key=frame.key[:1], masks=masks)
        videos = len(frame.key)
        return {
            name: row.expand(videos, *row.shape[1:]) for name, row in zip(self.names.carry, rows, strict=True)
        }

    def predict(
        self,
        frame: EncodedFrame,
        readouts: Sequence[Tensor],
        carry: Carry,
        last_masks: Tensor,
        *,
        update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """See `MemoryNetwork`; all objects at once, whatever `chunk_size` says."""
        results = [
            self._predict_one(
                self._inputs(frame, video),
                [readout[video : video + 1] for readout in readouts],
                {name: row[video : video + 1] for name, row in carry.items()},
                last_masks[video : video + 1],
            )
            for video in range(len(frame.key))
        ]
        rows = torch.cat([row for row, _ in results])
        if not update or not self.names.carry:
            return rows, carry
        return rows, {name: torch.cat([own[name] for _, own in results]) for name in self.names.carry}

    def _predict_one(
        self, frame: Carry, readouts: Sequence[Tensor], carry: Carry, last_masks: Tensor
    ) -> tuple[Tensor, Carry]:
        """Of one video: objects that were read together compete; then all do."""
        if len(readouts) == 1 or "fuse" not in self.graphs:
            readout = readouts[0] if len(readouts) == 1 else torch.cat(list(readouts), dim=1)
            rows, *carried = self.graphs("predict", **frame, **carry, readout=readout, last_masks=last_masks)
            return rows, dict(zip(self.names.carry, carried, strict=True))
        fused: list[Tensor] = []
        start = 0
        for readout in readouts:
            part = slice(start, start + readout.shape[1])
            start = part.stop
            own = {name: row[:, part] for name, row in carry.items()}
            fused += self.graphs("fuse", **frame, **own, readout=readout, last_masks=last_masks[:, part])
        rows, sensory = self.graphs("decode", **frame, fused=torch.cat(fused, 1), sensory=carry["sensory"])
        return rows, carry | {"sensory": sensory}

    def memorise(
        self,
        images: Tensor,
        frame: EncodedFrame,
        masks: Tensor,
        carry: Carry,
        *,
        deep_update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """See `MemoryNetwork`; all objects at once."""
        results = [
            self.graphs(
                "memorise",
                **self._inputs(frame, video),
                image=images[video : video + 1],
                masks=masks[video : video + 1],
                **{name: row[video : video + 1] for name, row in carry.items()},
            )
            for video in range(len(images))
        ]
        values, *carried = (torch.cat(rows) for rows in zip(*results, strict=True))
        return values, dict(zip(self.names.carry, carried, strict=True))

    def _inputs(self, frame: EncodedFrame, video: int) -> Carry:
        """Key and features of one video by their names."""
        parts = zip(("key", *self.names.features), (frame.key, *frame.features), strict=True)
        return {name: part[video : video + 1] for name, part in parts}
