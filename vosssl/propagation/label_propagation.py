"""Label propagation: any backbone follows given masks, by copying labels from patches that look alike.

Every target patch takes the labels of its best matches among a few earlier frames. One implementation; what
the official programs do differently (DINO, CRW, DINOv3) are the settings of `dino_propagation`,
`crw_propagation` and `dinov3_propagation`. Memory is a fixed number of frames, whatever the video's length.

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, its video
segmentation program; Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020;
Siméoni et al., "DINOv3", 2025, segmentation tracking notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD
from vosssl.ops.masks import labels_to_masks, strongest
from vosssl.ops.resize import Size, resize_image, resize_labels, resize_masks
from vosssl.propagation.segmenter import Prompted, VideoSegmenter
from vosssl.propagation.source_memory import Attend, SourceMemory, propagate

Fit = Literal["patches", "dino", "dinov3", "square"]
Mask = Literal["area", "nearest", "bilinear"]
Result = Literal["soft", "dino", "crw"]
Precision = Literal["fp32", "bf16", "fp16"]

DINO_STD = (0.228, 0.224, 0.225)  # the official program's first value is not ImageNet's 0.229
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FeatureMap(Protocol):
    """Turns a normalised image (1, 3, H, W) into a map (h, w, D) with a network."""

    def __call__(self, network: nn.Module, image: Tensor) -> Tensor: ...


def patch_tokens(network: nn.Module, image: Tensor) -> Tensor:
    """The (h, w, D) patch tokens of a ViT after its final norm."""
    height, width = image.shape[-2:]
    patch = int(network.patch_size)  # type: ignore[arg-type]
    tokens = network(image).patches  # (1, h*w, D)
    return tokens[0].unflatten(0, (height // patch, width // patch))


def channel_map(network: nn.Module, image: Tensor) -> Tensor:
    """The (h, w, C) map of a network that gives (1, C, h, w), such as a ResNet or our motion features."""
    return network(image)[0].permute(1, 2, 0)  # (C, h, w) -> (h, w, C)


class LabelPropagation(VideoSegmenter):
    """Follows masks with the features of a frozen network.

    Args:
        network: gives features.
        feature_map: how to get a (h, w, D) map from it.
        attend: context, window, top-k and temperature.
        size: shorter side of the network's image, enlarged too; or (height, width). None keeps the frame's.
        fit: how sides become multiples: "patches": of `multiple`, the nearest; "dino": the longer side
            floored to a multiple of 64; "dinov3": both up to a multiple; "square": `size` x `size`.
        multiple: pixels of a patch.
        mean: subtracted from RGB in [0, 1]; None hands frames on as they are.
        std: divides then.
        mask: how a given mask comes to the grid of patches.
        result: "soft": upsampled soft labels, the strongest wins at full resolution; "dino": as its program,
            each row stretched to [0, 1] first, decided at its size; "crw": rows stretched per patch.
        precision: of the network and the affinities; labels stay float32.
        gate: a network's slot masks by frame, (3, H, W) in [0, 1] -> (K, h', w') summing to 1 over K:
            affinities are multiplied by the agreement of the two patches' slots. None: no gate.
        device: where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        feature_map: FeatureMap = patch_tokens,
        attend: Attend | None = None,
        size: int | Size | None = 480,
        fit: Fit = "patches",
        multiple: int = 16,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        mask: Mask = "area",
        result: Result = "soft",
        precision: Precision = "fp32",
        gate: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        weight = next(network.parameters(), torch.empty(0))
        super().__init__(size=size, device=weight.device if device is None else device)
        if precision not in _DTYPES:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(_DTYPES)}")
        self.network = network
        self.feature_map = feature_map
        self.attend = attend or Attend()
        self.fit: Fit = fit
        self.multiple = multiple
        self.mask: Mask = mask
        self.result: Result = result
        self.dtype = _DTYPES[precision]
        self.gate = gate
        self.mean = None if mean is None else torch.tensor(mean, device=self.device)[:, None, None]
        self.std = torch.tensor(std, device=self.device)[:, None, None]
        self.forget()

    def forget(self) -> None:
        self.memory = SourceMemory(self.attend)
        self._rows_known = 1  # background
        restart = getattr(self.gate, "reset", None)  # of gates that follow the video, unlike plain functions
        if restart is not None:
            restart()

    def _working_size(self, size: Size) -> Size:
        return fitted_side(size, self.size, fit=self.fit, multiple=self.multiple)

    def _resized(self, frame: Tensor, working: Size) -> Tensor:
        if self.fit != "dino":
            return super()._resized(frame, working)
        if frame.is_floating_point():
            return resize_masks(frame, working)
        return resize_masks(frame.float(), working).round() / 255  # its program resizes bytes to bytes

    def features(self, frame: Tensor) -> Tensor:
        """(h, w, D) unit-length features of a frame (3, H, W) in [0, 1]."""
        image = frame if self.mean is None else (frame - self.mean) / self.std
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            features = self.feature_map(self.network, image[None])
        return F.normalize(features.float(), dim=-1).to(self.dtype)

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        features = self.features(frame)
        grid = (features.shape[0], features.shape[1])
        gate = None if self.gate is None else self._gate(frame, grid)
        before = self._rows_known
        rows = features.new_zeros(*grid, len(self.object_ids) + 1, dtype=torch.float32)
        if len(self.memory):
            known = propagate(features, self.memory, gate=gate)
            rows[..., : known.shape[-1]] = known
        else:
            rows[..., 0] = 1
        if prompted is not None:
            rows = self._prompted(rows, prompted)
            if len(self.memory) and len(self.object_ids) >= before:
                new = range(before, len(self.object_ids) + 1)
                self.memory.relabel(features, rows[..., before:].permute(2, 0, 1), new)
        self._rows_known = len(self.object_ids) + 1
        self.memory.add(features, rows, gate, keep=prompted is not None)
        soft = rows.permute(2, 0, 1)  # (h, w, C) -> (C, h, w)
        if prompted is not None and prompted.masks is not None:
            return self._given(soft, prompted, (frame.shape[1], frame.shape[2]))
        return self._result(soft, (frame.shape[1], frame.shape[2]))

    def _gate(self, frame: Tensor, grid: Size) -> Tensor:
        assert self.gate is not None
        masks = self.gate(frame).float()  # (K, h', w')
        return resize_masks(masks, grid).permute(1, 2, 0).to(self.dtype)

    def _prompted(self, rows: Tensor, prompted: Prompted) -> Tensor:
        """Soft labels (h, w, C) in which the prompted objects are as given; void and padding tell nothing."""
        assert prompted.masks is not None and prompted.labels is not None
        grid = (rows.shape[0], rows.shape[1])
        given = mask_to_grid(prompted, grid, mask=self.mask).to(rows)  # (n, h, w)
        rows = rows * (1 - given.sum(0).clamp(max=1))[..., None]
        for identity, mask in zip(prompted.ids, given, strict=True):
            rows[..., 1 + self.object_ids.index(identity)] = mask
        known = resize_masks((prompted.labels != 255).float()[None], grid)[0]
        return rows * known[..., None]

    def _given(self, soft: Tensor, prompted: Prompted, size: Size) -> Tensor:
        """At the frame of a prompt, what was prompted is as given, to the pixel."""
        assert prompted.masks is not None
        rows = resize_masks(soft, size)
        inside = prompted.masks.any(0)
        rows = rows * ~inside
        for identity, mask in zip(prompted.ids, prompted.masks, strict=True):
            row = 1 + self.object_ids.index(identity)
            rows[row] = mask.to(rows)
        rows[0] += (1 - rows.sum(0)).clamp(min=0)
        return rows

    def _result(self, soft: Tensor, size: Size) -> Tensor:
        if self.result == "soft":
            return soft
        if self.result == "crw":
            return stretched_over_classes(soft)
        assert self._frame_size is not None
        labels = dino_labels(soft, size, self._frame_size)
        return labels_to_masks(labels, range(len(soft))).float()


def dino_propagation(
    network: nn.Module,
    *,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    radius: float = 12,
    size: int | Size | None = 480,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """DINO's official settings: square window, first frame always a source, decided at the network's size.

    Args: see `Attend` and `LabelPropagation`; `context` is the official n_last_frames, `radius` its
        size_mask_neighborhood.
    """
    return LabelPropagation(
        network,
        attend=Attend(context=context, top_k=top_k, temperature=temperature, radius=radius),
        size=size,
        fit="dino",
        std=DINO_STD,
        mask="nearest",
        result="dino",
        precision=precision,
        device=device,
    )


def crw_propagation(
    network: nn.Module,
    *,
    context: int = 20,
    top_k: int = 10,
    temperature: float = 0.05,
    radius: float = 12,
    size: int | Size | None = 320,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """CRW's official settings: disc, the first frame kept and unrestricted, frames squashed to a square.

    Labels are brought to the grid as index masks, not as colours (the official program blends edge colours
    into classes of their own). The published DAVIS number is one of full resolution: size=None.

    Args: see `Attend` and `LabelPropagation`.
    """
    attend = Attend(
        context=context,
        top_k=top_k,
        temperature=temperature,
        radius=radius,
        shape="disc",
        restrict_kept=False,
        repeat_first=True,
        most_kept=1,
    )
    return LabelPropagation(
        network,
        feature_map=channel_map,
        attend=attend,
        size=size,
        fit="square" if isinstance(size, int) else "patches",
        multiple=8,
        mask="bilinear",
        precision=precision,
        device=device,
    )


def dinov3_propagation(
    network: nn.Module,
    *,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.2,
    radius: float = 12,
    size: int | Size | None = 960,
    multiple: int = 16,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """The settings of DINOv3's notebook: circle, short side 960 rounded up to the patch.

    Args: see `Attend` and `LabelPropagation`.
    """
    return LabelPropagation(
        network,
        attend=Attend(context=context, top_k=top_k, temperature=temperature, radius=radius, shape="circle"),
        size=size,
        fit="dinov3",
        multiple=multiple,
        precision=precision,
        device=device,
    )


def patch_propagation(
    network: nn.Module,
    *,
    multiple: int = 16,
    size: int | Size | None = 480,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    radius: float = 12,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """Our settings for any ViT: DINO's matches, a circle, masks by area, soft labels upsampled.

    Args: see `Attend` and `LabelPropagation`; `multiple` is the patch.
    """
    return LabelPropagation(
        network,
        attend=Attend(context=context, top_k=top_k, temperature=temperature, radius=radius, shape="circle"),
        size=size,
        multiple=multiple,
        precision=precision,
        device=device,
    )


def map_propagation(
    network: nn.Module,
    *,
    multiple: int = 2,
    size: int | Size | None = 64,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    radius: float = 12,
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """Our settings for networks from frames in [0, 1] to (N, C, h, w), such as the slots' backbone.

    Args: see `Attend` and `LabelPropagation`; `multiple` is the stride.
    """
    return LabelPropagation(
        network,
        feature_map=channel_map,
        attend=Attend(context=context, top_k=top_k, temperature=temperature, radius=radius, shape="circle"),
        size=size,
        multiple=multiple,
        mean=None,
        device=device,
    )


def fitted_side(native: Size, wanted: int | Size | None, *, fit: Fit, multiple: int) -> Size:
    """The size of the network's image: see `LabelPropagation`.

    Args:
        native: (H, W) of the frames.
        wanted: shorter side, exact (height, width), or None for the frame's own.
        fit: which rule.
        multiple: pixels of a patch.

    Returns:
        (height, width).
    """
    if isinstance(wanted, int) and fit == "square":
        return wanted, wanted
    if isinstance(wanted, int):
        scale = wanted / min(native)
        sides = [side * scale for side in native]
    else:
        sides = [float(side) for side in (native if wanted is None else wanted)]
    if fit == "dino" and isinstance(wanted, int):  # a square frame is a landscape there
        longer = int(max(sides) // 64 * 64)
        return (longer, wanted) if native[0] > native[1] else (wanted, longer)
    if fit == "dinov3":
        return (-int(-sides[0] // multiple) * multiple, -int(-sides[1] // multiple) * multiple)
    height, width = (max(1, round(side / multiple)) * multiple for side in sides)
    return height, width


def mask_to_grid(prompted: Prompted, grid: Size, *, mask: Mask) -> Tensor:
    """(n, h, w) of the prompted masks on the grid of patches, in [0, 1]."""
    assert prompted.masks is not None
    if mask == "nearest":
        labels = prompted.native if prompted.native is not None else prompted.labels
        assert labels is not None
        return labels_to_masks(resize_labels(labels, grid), prompted.ids).float()
    masks = prompted.masks.float()
    return resize_image(masks, grid).clamp(0, 1) if mask == "area" else resize_masks(masks, grid)


def dino_labels(soft: Tensor, size: Size, frame_size: Size) -> Tensor:
    """Soft labels to rows of the strongest class as DINO's program does it.

    Args:
        soft: (C, h, w), background first.
        size: of the network's image: decided there.
        frame_size: of the frame: brought there by the nearest pixel.

    Returns:
        (H, W) uint8 row numbers.
    """
    rows = resize_masks(soft, size).clone()
    low, high = rows.amin((1, 2), keepdim=True), rows.amax((1, 2), keepdim=True)
    stretched = (rows - low) / (high - low).clamp(min=1e-12)
    rows = torch.where((high > 0) & (high > low), stretched, rows)
    return resize_labels(strongest(rows, range(len(rows))), frame_size)


def stretched_over_classes(soft: Tensor) -> Tensor:
    """Rows (C, h, w) shifted and scaled to [0, 1] over the classes of each patch (CRW's norm_mask)."""
    rows = soft - soft.amin(0, keepdim=True)
    return rows / rows.amax(0, keepdim=True).clamp(min=1e-12)
