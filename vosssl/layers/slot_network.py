"""The recurrent slot network: encoder, initializer, corrector, predictor and decoder put together."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.layers.positions import patch_grid
from vosssl.layers.slot_attention import Grouping, SlotAttention
from vosssl.layers.slot_decoders import Decoded
from vosssl.ops.noise import sample_noise

__all__ = ["Decoded", "Encoded", "SlotNetwork", "SlotTrace", "trace_batch"]


class SlotTrace(NamedTuple):
    """What every slot network returns for a batch of clips.

    Attributes:
        slots: (B, T, K, D) corrected slots.
        masks: (B, T, K, h, w) decoder masks, summing to 1 over K.
        features: (B, T, P, C) reconstruction target, without gradient.
        reconstruction: (B, T, P, C').
        attention: (B, T, K, h, w) slot attention of the last iteration.
        keys: (B, T, P, C) keys of the backbone's last layer, where the encoder gives them.
        future: (B, T, S, P, C') reconstructions of several time steps, where there is a time decoder.
    """

    slots: Tensor
    masks: Tensor
    features: Tensor
    reconstruction: Tensor
    attention: Tensor
    keys: Tensor | None = None
    future: Tensor | None = None


class Encoded(NamedTuple):
    """What an encoder returns for N frames.

    Attributes:
        inputs: (N, P, D) what slot attention reads.
        features: (N, P, C) reconstruction target.
        grid: (h, w) of the patches.
        keys: (N, P, C) keys of the backbone's last layer.
        cls_attention: (N, heads, P) attention of the class token to the patches in the last layer.
    """

    inputs: Tensor
    features: Tensor
    grid: tuple[int, int]
    keys: Tensor | None = None
    cls_attention: Tensor | None = None


class OverTime(nn.Module):
    """Holds a module that works frame by frame; it exists so that parameters have the released names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Recurrence(nn.Module):
    """Holds the two halves of the recurrence: corrector and predictor."""

    def __init__(self, corrector: SlotAttention, predictor: nn.Module | None) -> None:
        super().__init__()
        self.corrector = corrector
        self.predictor = nn.Identity() if predictor is None else predictor


class SlotNetwork(nn.Module):
    """Slots carried through a video: corrected by each frame, predicted for the next.

    The first frame starts from the initializer's slots directly. Parameter names equal those of the released
    VideoSAUR and SlotContrast checkpoints.

    Args:
        encoder: frames (N, 3, H, W) -> `Encoded`, with `head(features) -> inputs` for cached features.
        initializer: batch size -> slots (B, K, D); see `slot_initializers`.
        corrector: slot attention.
        predictor: slots (B, K, D) -> slots of the next frame; none carries them over unchanged.
        decoder: slots (N, K, D) and a grid -> `Decoded`.
        first_iterations: iterations on the first frame; the corrector's number when left out.
        groups: divides slots into groups that may see different patches; see `slot_groups`.
        time_decoder: turns slots into slots of several time steps, the first of which gives the masks.
        video: whether parameters have the names of video models (`encoder.module.`) or of image models.

    Source: Kipf et al., SAVi, ICLR 2022, figure 2.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        initializer: nn.Module,
        corrector: SlotAttention,
        predictor: nn.Module | None,
        decoder: nn.Module,
        first_iterations: int | None = None,
        groups: nn.Module | None = None,
        time_decoder: nn.Module | None = None,
        video: bool = True,
    ) -> None:
        super().__init__()
        self.first_iterations = corrector.iterations if first_iterations is None else first_iterations
        self.initializer = initializer
        recurrence = Recurrence(corrector, predictor)
        self.encoder = OverTime(encoder) if video else encoder
        self.processor = OverTime(recurrence) if video else recurrence
        self.decoder = OverTime(decoder) if video else decoder
        self.groups = groups
        self.time_decoder = time_decoder

    @property
    def num_slots(self) -> int:
        """K, unless a call asks for another number."""
        return int(self._part(self.initializer).num_slots)

    @property
    def slot_dim(self) -> int:
        """D."""
        return int(self._part(self.processor).corrector.slot_dim)

    @property
    def backbone(self) -> nn.Module | None:
        """The pretrained backbone inside the encoder, whose weights are loaded apart; None without one."""
        frozen = getattr(self._part(self.encoder), "backbone", None)
        return getattr(frozen, "model", None)

    @staticmethod
    def _part(part: nn.Module) -> Any:
        return part.module if isinstance(part, OverTime) else part

    def encode(self, frames: Tensor) -> Encoded:
        """Frames (N, 3, H, W) RGB, uint8 or in [0, 1], to what the slots read and reconstruct."""
        encoded: Encoded = self._part(self.encoder)(frames)
        return encoded

    def encode_features(self, features: dict[str, Tensor], size: tuple[int, int]) -> Encoded:
        """Goes on from backbone features that were computed before.

        Args:
            features: `features` (N, P, C) and, where the network uses them, `keys` and `cls_attention`.
            size: (H, W) of the frames, for the shape of the grid.

        Returns:
            What `encode` returns for those frames.
        """
        target = features["features"].float()
        return Encoded(
            inputs=self._part(self.encoder).head(target),
            features=target,
            grid=patch_grid(target.shape[1], *size),
            keys=features["keys"].float() if "keys" in features else None,
            cls_attention=features["cls_attention"].float() if "cls_attention" in features else None,
        )

    @torch.no_grad()
    def backbone_features(self, frames: Tensor) -> dict[str, Tensor]:
        """What `forward(features=...)` takes instead of running the backbone: what a feature cache stores.

        Args:
            frames: (B, T, 3, H, W) RGB, uint8 or in [0, 1].

        Returns:
            `features` (B, T, P, C) and, where the network uses them, `keys` (B, T, P, C) and `cls_attention`
            (B, T, heads, P).
        """
        encoded = self.encode(frames.flatten(0, 1))  # (B, T, 3, H, W) -> (B*T, 3, H, W)
        parts = {
            "features": encoded.features,
            "keys": encoded.keys,
            "cls_attention": encoded.cls_attention,
        }
        shape = (frames.shape[0], frames.shape[1])
        return {name: part.unflatten(0, shape) for name, part in parts.items() if part is not None}

    def initial_slots(
        self,
        batch_size: int,
        *,
        num_slots: int | None = None,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Slots (B, K, D) before the first frame, from what the initializer wants: noise or a condition."""
        slots = self.initializer(batch_size, num_slots=num_slots, noise=noise, condition=condition)
        return slots if self.groups is None else self.groups(slots)

    def correct(
        self, slots: Tensor, inputs: Tensor, *, first: bool, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lets the slots compete for the patches of one frame.

        Args:
            slots: (B, K, D) predicted for this frame, or initial.
            inputs: (B, P, D') from `encode`.
            first: whether this is the first frame, which may have its own number of iterations.
            visible: (B, K, P) bool, which patches each slot may see.

        Returns:
            Slots (B, K, D) and attention (B, K, P).
        """
        iterations = self.first_iterations if first else None
        grouping = self._part(self.processor).corrector(slots, inputs, iterations=iterations, visible=visible)
        return grouping.slots, grouping.attention

    def predict(self, slots: Tensor) -> Tensor:
        """Slots (B, K, D) of this frame to what the next frame starts from."""
        return self._part(self.processor).predictor(slots)

    def decode(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Slots (N, K, D) grouped on a grid (h, w) to a reconstruction and masks."""
        if self.time_decoder is not None:
            slots = self.time_decoder(slots)[:, 0]  # (N, S, K, D) -> (N, K, D)
        return self._part(self.decoder)(slots, grid)

    def visible(self, cls_attention: Tensor | None, *, num_slots: int, first: bool) -> Tensor | None:
        """Which patches each slot may see by its group.

        Args:
            cls_attention: (B, heads, P) of one frame, from `encode`.
            num_slots: K.
            first: whether this is the first frame.

        Returns:
            (B, K, P) bool, or None when every slot may see everything.
        """
        if self.groups is None:
            return None
        groups: Any = self.groups
        visible: Tensor | None = groups.visible(cls_attention, num_slots=num_slots, first=first)
        return visible

    def forward(
        self,
        frames: Tensor,
        *,
        encoded: Encoded | None = None,
        features: dict[str, Tensor] | None = None,
        seeds: Tensor | None = None,
        noise: Tensor | None = None,
        num_slots: int | None = None,
        condition: Tensor | None = None,
        slot_frames: int | None = None,
    ) -> SlotTrace:
        """Runs over clips.

        Args:
            frames: (B, T, 3, H, W) RGB, uint8 or in [0, 1].
            encoded: of the B*T frames, instead of running the encoder.
            features: backbone features of the frames, each (B, T, P, ...), instead of running the backbone.
            seeds: (B,) int64; random slots are drawn from them, so that a sample always gets the same noise.
            noise: (B, K, D) for random slots, instead of seeds.
            num_slots: K, where the initializer allows another number than its own.
            condition: what conditional initializers start from.
            slot_frames: run slots over the first so many frames only, where a loss has no use for the slots
                of the last ones; the trace's `features` and `keys` still cover all T.

        Returns:
            The trace.
        """
        batch, length = frames.shape[:2]
        if noise is None and seeds is not None and self._part(self.initializer).needs_noise:
            count = self.num_slots if num_slots is None else num_slots
            noise = draw_noise(seeds, (count, self.slot_dim)).to(frames.device)
        if encoded is None and features:
            flat = {name: value.flatten(0, 1) for name, value in features.items()}
            encoded = self.encode_features(flat, (frames.shape[-2], frames.shape[-1]))
        elif encoded is None:
            encoded = self.encode(frames.flatten(0, 1))  # (B, T, 3, H, W) -> (B*T, 3, H, W)
        slots = self.initial_slots(batch, num_slots=num_slots, noise=noise, condition=condition)
        grouping = self._scan(slots, encoded, (batch, length), min(slot_frames or length, length))
        return self._trace(grouping, encoded, (batch, length))

    def _scan(self, slots: Tensor, encoded: Encoded, shape: tuple[int, int], frames: int) -> Grouping:
        """Corrects and predicts over the first frames: slots (B, T', K, D), attention (B, T', K, P)."""
        corrector = self._part(self.processor).corrector
        inputs = encoded.inputs.unflatten(0, shape)[:, :frames].flatten(0, 1)  # (B*T, P, D) -> (B*T', P, D)
        keys, values = (part.unflatten(0, (-1, frames)) for part in corrector.project(inputs))
        seen, attentions = [], []
        for time in range(frames):
            looked_at = encoded.cls_attention
            if looked_at is not None:
                looked_at = looked_at.unflatten(0, shape)[:, time]  # (B*T, heads, P) -> (B, heads, P)
            visible = self.visible(looked_at, num_slots=slots.shape[1], first=time == 0)
            iterations = self.first_iterations if time == 0 else None
            grouping = corrector.iterate(
                slots, keys[:, time], values[:, time], iterations=iterations, visible=visible
            )
            seen.append(grouping.slots)
            attentions.append(grouping.attention)
            if time + 1 < frames:
                slots = self.predict(grouping.slots)
        return Grouping(torch.stack(seen, dim=1), torch.stack(attentions, dim=1))

    def _trace(self, grouping: Grouping, encoded: Encoded, shape: tuple[int, int]) -> SlotTrace:
        frames = grouping.slots.shape[:2]
        slots = grouping.slots.flatten(0, 1)  # (B, T', K, D) -> (B*T', K, D)
        future = None
        if self.time_decoder is None:
            decoded = self.decode(slots, encoded.grid)
            reconstruction, masks = decoded.reconstruction, decoded.masks
        else:
            steps = self.time_decoder(slots)  # (B*T', S, K, D)
            decoded = self._part(self.decoder)(steps.flatten(0, 1), encoded.grid)
            future = decoded.reconstruction.unflatten(0, steps.shape[:2])  # (B*T', S, P, C)
            reconstruction, masks = future[:, 0], decoded.masks.unflatten(0, steps.shape[:2])[:, 0]
            future = future.unflatten(0, frames)  # (B, T', S, P, C)
        return SlotTrace(
            slots=grouping.slots,
            masks=masks.unflatten(-1, decoded.grid or encoded.grid).unflatten(0, frames),  # (B, T', K, h, w)
            features=encoded.features.detach().unflatten(0, shape),
            reconstruction=reconstruction.unflatten(0, frames),
            attention=grouping.attention.unflatten(-1, encoded.grid),  # (B, T', K, P) -> (B, T', K, h, w)
            keys=None if encoded.keys is None else encoded.keys.detach().unflatten(0, shape),
            future=future,
        )


@torch.compiler.disable
def draw_noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`sample_noise` kept out of compiled graphs: it drives one CPU generator per sample."""
    return sample_noise(seeds.cpu(), shape)


def trace_batch(
    network: nn.Module, batch: Batch, *, condition: Tensor | None = None, slot_frames: int | None = None
) -> SlotTrace:
    """Runs a slot network on a batch the way every objective does.

    Cached features are used where the batch has them, and random slots are drawn from the seeds of the
    samples.

    Args:
        network: a `SlotNetwork`, possibly wrapped for data parallel training or compiled.
        batch: of clips.
        condition: what conditional initializers start from.
        slot_frames: run slots over the first so many frames only.

    Returns:
        The trace.
    """
    trace: SlotTrace = network(
        batch.frames,
        features=batch.features or None,
        seeds=batch.seeds if len(batch.seeds) else None,
        condition=condition,
        slot_frames=slot_frames,
    )
    return trace
