"""SAM 2 as graphs: image encoder, memory attention, prompts and decoder, memory encoder.

What is remembered, and which of it a frame looks back at, stays with `SAM2Segmenter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.layers.prompt_encoder import ABSENT, PADDING
from vosssl.methods.sam2.mask_decoder import Candidates, choose
from vosssl.methods.sam2.network import SAM2, Decoded, EncodedImage, Memories
from vosssl.ops.resize import resize_image
from vosssl.propagation.graph_folder import (
    Example,
    Export,
    ExportedNetwork,
    Graph,
    random_frames,
    random_masks,
)

IMAGE = ("features", "fine", "middle", "positions", "prompt_positions")  # what is kept of a frame


def sam2_export(network: nn.Module, segmenter: Any, examples: Sequence[Example]) -> Export:
    """Graphs of a SAM 2.

    Args:
        network: in evaluation mode.
        segmenter: its `SAM2Segmenter`, which says how large the square is that frames are squashed to.
        examples: of their objects; the size of the square is fixed in the graphs.

    Returns:
        `encode`: image (1, 3, S, S) in [0, 1] to features (1, C, h, w), skips, and codes of places. `start`:
        features to those of a frame before which nothing is remembered. `attend`: features, maps (N, M, D,
        h, w), ages (N, M) int64, pointers (N, P, C), distances (N, P), and which of them exist, to features
        (N, C, h, w). `decode`: features (N, C, h, w), points (N, P, 2), labels (N, P) int64, masks (N, 1,
        4h, 4w) and given (N,) bool to four masks, their quality and pointers, the object's score, and the
        pointer of an absent object. `shrink`: given masks (N, 1, S, S) to mask prompts. `memorise`:
        features, masks, scores (N, 1) and prompted (N,) bool to memories (N, D, h, w).
    """
    assert isinstance(network, SAM2)
    inputs = [_inputs(network, frame, masks) for frame, masks in _squares(examples)]
    functions: list[tuple[str, Any, tuple[str, ...]]] = [
        ("encode", _encode, IMAGE),
        ("start", _start, ("started",)),
        ("attend", _attend, ("attended",)),
        ("decode", _decode, ("logits", "quality", "pointers", "object_score", "no_pointer")),
        ("shrink", _shrink, ("shrunk",)),
        ("memorise", _memorise, ("memory",)),
    ]
    graphs = [
        Graph(name, network, function, [one[name] for one in inputs], outputs, _FREE[name])
        for name, function, outputs in functions
    ]
    node = {
        "_target_": "vosssl.methods.sam2.export.ExportedSAM2",
        "stride": int(network.image_encoder.trunk.stride),
    }
    side = examples[0].size[0]
    return Export(
        graphs, node, f"image: RGB in [0, 1], squashed to {side} x {side} pixels; normalised in the graph"
    )


_ROWS, _MAPS = {0: "objects"}, {0: "objects", 1: "maps"}
_POINTERS, _POINTS = {0: "objects", 1: "pointers"}, {0: "objects", 1: "points"}
_FREE: dict[str, dict[str, Mapping[int, str]]] = {
    "encode": {},
    "start": {},
    "attend": {
        "maps": _MAPS,
        "ages": _MAPS,
        "pointers": _POINTERS,
        "distances": _POINTERS,
        "maps_present": _MAPS,
        "pointers_present": _POINTERS,
    },
    "decode": {"features": _ROWS, "points": _POINTS, "labels": _POINTS, "masks": _ROWS, "given": _ROWS},
    "shrink": {"masks": _ROWS},
    "memorise": {"masks": _ROWS, "object_score": _ROWS, "prompted": _ROWS},
}


def _squares(examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
    """A frame and masks (N, 1, S, S) of 0 and 1 for each example; all of the first one's size."""
    same = [Example(examples[0].size, one.objects) for one in examples]
    return [
        (frame, (masks[0][:, None] > 0.4).float())
        for frame, masks in zip(random_frames(same), random_masks(same), strict=True)
    ]


@torch.no_grad()
def _inputs(network: SAM2, frame: Tensor, masks: Tensor) -> dict[str, dict[str, Tensor]]:
    image = network.encode_image(frame)
    decoded = network.accept_masks(image, masks)
    memory = network.encode_memory(image, decoded.masks, decoded.object_score, prompted=True)
    count, generator = len(masks), torch.Generator().manual_seed(len(masks))
    maps, pointers = 2 + count, 3 + count
    present = torch.ones(count, maps, dtype=torch.bool)
    present[-1, -1] = False
    points = image.size[0] * torch.rand(count, 1 + count, 2, generator=generator)
    labels = torch.randint(0, 4, (count, 1 + count), generator=generator)
    labels[-1, -1] = ABSENT
    features = network.condition_on_memory(image, None).expand(count, -1, -1, -1).contiguous()
    given = torch.arange(count) % 2 == 0
    prompt = resize_image(masks, decoded.masks.shape[-2:])  # type: ignore[arg-type]
    return {
        "encode": {"image": frame},
        "start": {"features": image.features},
        "attend": {
            "features": image.features,
            "positions": image.positions,
            "maps": memory[:, None].repeat(1, maps, 1, 1, 1),
            "ages": torch.arange(maps).expand(count, -1).contiguous(),
            "pointers": decoded.pointer[:, None].repeat(1, pointers, 1),
            "distances": torch.rand(count, pointers, generator=generator),
            "maps_present": present,
            "pointers_present": torch.ones(count, pointers, dtype=torch.bool),
        },
        "decode": {
            "features": features,
            "fine": image.skips[0],
            "middle": image.skips[1],
            "prompt_positions": image.prompt_positions,
            "points": points,
            "labels": labels,
            "masks": prompt,
            "given": given,
        },
        "shrink": {"masks": masks},
        "memorise": {
            "features": image.features,
            "masks": decoded.masks,
            "object_score": decoded.object_score,
            "prompted": given,
        },
    }


def _encode(network: SAM2, image: Tensor) -> tuple[Tensor, ...]:
    encoded = network.encode_image(image)
    return encoded.features, *encoded.skips, encoded.positions, encoded.prompt_positions


def _start(network: SAM2, features: Tensor) -> Tensor:
    return network.condition_on_memory(_image(features), None)


def _image(features: Tensor, *, positions: Tensor | None = None) -> EncodedImage:
    """Features as a frame of which nothing else is asked."""
    own = features if positions is None else positions
    return EncodedImage(features, (features, features), own, own)


def _attend(network: SAM2, features: Tensor, positions: Tensor, *memories: Tensor) -> Tensor:
    return network.condition_on_memory(_image(features, positions=positions), Memories(*memories))


def _decode(
    network: SAM2,
    features: Tensor,
    fine: Tensor,
    middle: Tensor,
    prompt_positions: Tensor,
    points: Tensor,
    labels: Tensor,
    masks: Tensor,
    given: Tensor,
) -> tuple[Tensor, ...]:
    image = EncodedImage(features, (fine, middle), prompt_positions, prompt_positions)
    encoder = network.sam_prompt_encoder
    tokens = encoder.tokens(image.size, points=points, labels=labels)
    present = torch.cat([labels != ABSENT, labels[:, :1] == labels[:, :1]], dim=1)  # + padding
    found = network.sam_mask_decoder(
        features + encoder.maps(image.grid, masks=masks, given=given),
        prompt_positions,
        image.skips,
        tokens,
        present=present,
    )
    pointers = network.obj_ptr_proj(found.tokens)
    absent = network.no_obj_ptr + 0 * pointers[:1, 0]  # a constant alone would be no output
    return found.masks, found.quality, pointers, found.object_score, absent


def _shrink(network: SAM2, masks: Tensor) -> Tensor:
    return network.mask_downsample(masks)


def _memorise(
    network: SAM2, features: Tensor, masks: Tensor, object_score: Tensor, prompted: Tensor
) -> Tensor:
    return network.encode_memory(_image(features), masks, object_score, prompted=prompted)


class ExportedSAM2(ExportedNetwork):
    """A SAM 2 of graphs, for `SAM2Segmenter` and `SAM2Session`.

    Args:
        stride: pixels that the sides of frames have to be multiples of.
    """

    accept_masks: Any = SAM2.accept_masks
    settle: Any = SAM2.settle

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.image_encoder = SimpleNamespace(trunk=SimpleNamespace(stride=stride))
        self.obj_ptr_proj = nn.Identity()  # pointers come out of the graph
        self.no_obj_ptr = torch.zeros(0)

    @property
    def no_mem_embed(self) -> Tensor:
        """Says where the network is, and in which type it computes."""
        return self.anchor

    def encode_image(self, images: Tensor) -> EncodedImage:
        """See `SAM2.encode_image`; one frame."""
        features, fine, middle, positions, prompt_positions = self.graphs("encode", image=images)
        return EncodedImage(features, (fine, middle), positions, prompt_positions)

    def condition_on_memory(self, image: EncodedImage, memories: Memories | None) -> Tensor:
        """See `SAM2.condition_on_memory`.

        Raises:
            ValueError: memories with an emphasis, which some memory policies have.
        """
        if memories is None:
            return self.graphs("start", features=image.features)[0]
        if memories.maps_emphasis is not None:
            raise ValueError(
                "this memory policy weighs memories, which exported graphs do not; choose another"
            )
        rows, maps = memories.maps.shape[:2]
        pointers = memories.pointers.shape[1]
        everything = torch.ones(rows, max(maps, pointers), dtype=torch.bool, device=image.features.device)
        maps_there, pointers_there = memories.maps_present, memories.pointers_present
        return self.graphs(
            "attend",
            features=image.features,
            positions=image.positions,
            maps=memories.maps.to(image.features.dtype),
            ages=memories.ages.expand(rows, maps),
            pointers=memories.pointers.to(image.features.dtype),
            distances=memories.distances.float().expand(rows, pointers),
            maps_present=everything[:, :maps] if maps_there is None else maps_there,
            pointers_present=everything[:, :pointers] if pointers_there is None else pointers_there,
        )[0]

    def decode_prompts(
        self,
        image: EncodedImage,
        features: Tensor,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        points_present: Tensor | None = None,
        masks: Tensor | None = None,
        masks_given: Tensor | None = None,
        multimask: bool | Tensor = True,
        require_stable: bool = True,
    ) -> Decoded:
        """See `SAM2.decode_prompts`."""
        rows = max(len(part) for part in (features, points, masks) if part is not None)
        if points is None or labels is None:
            points = features.new_zeros(rows, 1, 2)
            labels = torch.full((rows, 1), PADDING, device=features.device)
        if points_present is not None:
            labels = labels.masked_fill(~points_present, ABSENT)
        given = torch.full((rows,), masks is not None, device=features.device)
        if masks is None:
            height, width = image.grid
            masks = features.new_zeros(rows, 1, 4 * height, 4 * width)
        logits, quality, pointers, score, absent = self.graphs(
            "decode",
            features=features.expand(rows, -1, -1, -1),
            fine=image.skips[0],
            middle=image.skips[1],
            prompt_positions=image.prompt_positions,
            points=points,
            labels=labels.long(),
            masks=masks,
            given=given if masks_given is None else masks_given,
        )
        self.no_obj_ptr = absent
        candidates = Candidates(logits, quality, pointers, score)
        chosen = choose(candidates, multimask=multimask, require_stable=require_stable)
        settled: Decoded = self.settle(chosen, score)
        return settled._replace(candidates=candidates)

    def mask_downsample(self, masks: Tensor) -> Tensor:
        """Given masks (N, 1, S, S) to mask prompts (N, 1, S / 4, S / 4)."""
        return self.graphs("shrink", masks=masks)[0]

    def encode_memory(
        self,
        image: EncodedImage,
        masks: Tensor,
        object_score: Tensor,
        *,
        prompted: bool | Tensor = False,
    ) -> Tensor:
        """See `SAM2.encode_memory`."""
        sure = torch.as_tensor(prompted, device=masks.device).expand(len(masks))
        return self.graphs(
            "memorise", features=image.features, masks=masks, object_score=object_score, prompted=sure
        )[0]
