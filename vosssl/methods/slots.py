"""Our slots: seeded from motion features, kept by slot attention, taught by what moves together.

Three ideas over a recurrent slot network. Slots start from patches of the first frame that are as different
as possible (k-means++ without chance), so that no object is missed. At first the network *is* soft k-means
on the motion features, and learns from there. And besides reconstructing features, the masks themselves are
taught by motion: two patches that move together shall have the same slot, two that move differently shall
not, within a frame and to the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.data.flow import estimate_reliable_flow
from vosssl.layers.mlp import MLP
from vosssl.layers.patch_embedding import WAVES, PatchEmbedding, wave_positions
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import Decoded
from vosssl.layers.slot_network import Encoded, SlotNetwork, SlotTrace
from vosssl.layers.transformer import TransformerEncoder
from vosssl.ops.motion_affinity import MotionPairs, motion_pairs
from vosssl.ops.resize import resize_image

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MOST_SLOTS = 64
PURITY = 4.0  # exponent: patches on an edge, whose neighbours disagree, make bad seeds


class MotionEncoder(nn.Module):
    """Frames to motion embeddings, colours and positions.

    The inputs of the slots are [embedding C, colour 3, position 16, mean embedding of the 3x3 neighbourhood
    C]; the reconstruction target is [embedding C, weighted colour 3].

    Args:
        embedding: the first stage: frames to unit-length (N, C, h, w).
        frozen: whether it stays as it is.
        colour_weight: of colour in the target.
    """

    def __init__(self, embedding: nn.Module, *, frozen: bool, colour_weight: float) -> None:
        super().__init__()
        self.embedding = embedding.requires_grad_(not frozen)
        self.colour_weight = colour_weight

    def forward(self, frames: Tensor) -> Encoded:
        """Frames (N, 3, H, W), uint8 or in [0, 1]."""
        images = frames if frames.is_floating_point() else frames.float() / 255
        embedding = self.embedding(images)  # (N, C, h, w)
        grid = (embedding.shape[-2], embedding.shape[-1])
        colour = resize_image(images, grid) * 2 - 1
        around = F.avg_pool2d(embedding.detach(), 3, 1, 1, count_include_pad=False)
        patches, colours, means = (
            part.flatten(2).transpose(1, 2) for part in (embedding, colour, around)
        )  # (N, C, h, w) -> (N, P, C)
        positions = wave_positions(*grid).to(patches).expand(len(patches), -1, -1)
        return Encoded(
            inputs=torch.cat([patches, colours, positions, means], dim=-1),
            features=torch.cat([patches, self.colour_weight * colours], dim=-1).detach(),
            grid=grid,
        )


class RankInit(nn.Module):
    """Marks slots by their number only; `Slots.correct` seeds them when it sees the first frame."""

    needs_noise = False

    def __init__(self, num_slots: int, dim: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.ranks = nn.Parameter(torch.zeros(1, MOST_SLOTS, dim))

    def forward(
        self,
        batch_size: int,
        *,
        num_slots: int | None = None,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """(B, K, D) for any K up to `MOST_SLOTS`."""
        count = self.num_slots if num_slots is None else num_slots
        if count > MOST_SLOTS:
            raise ValueError(f"{count} slots asked for, expected at most {MOST_SLOTS}")
        return self.ranks[:, :count].expand(batch_size, -1, -1)


class SlotDecoder(nn.Module):
    """One feature vector per slot; the masks that mix them come from `Slots.assign`, not from here."""

    def __init__(self, slot_dim: int, features_dim: int) -> None:
        super().__init__()
        self.mlp = MLP(slot_dim, features_dim, hidden_dims=(2 * slot_dim,), layer_norm=True)

    def forward(self, slots: Tensor) -> Tensor:
        """(..., K, D) -> (..., K, C)."""
        return self.mlp(slots)


class Slots(SlotNetwork):
    """Slots over motion features; any number of them, frame by frame, nothing random.

    The masks need the frame's patches, so `correct` returns them as its attention: segment with
    `SlotTracker(output="attention")`.

    Args:
        features: where the first stage's weights come from: a name in vosssl/weights, the path of a
            checkpoint or state dict, or None to start from scratch.
        num_slots: K.
        slot_dim: D.
        iterations: of slot attention.
        first_iterations: on the first frame.
        frozen: whether the first stage stays as it is.
        logit_scale: sharpness of the first assignments.
        colour_weight: of colour in the reconstruction target.
        width: of the first stage.
        dim: C of the first stage; at most `slot_dim`.
        depth: of the first stage.
        embedding: another first stage instead, such as `slot_features.FeatureGrid`, from frames to
            unit-length (N, dim, h, w); `features`, `width` and `depth` then say nothing.

    Raises:
        ValueError: features wider than slots, or `load_features` found none.
    """

    def __init__(
        self,
        *,
        features: str | None = "motion_features",
        num_slots: int = 10,
        slot_dim: int = 64,
        iterations: int = 2,
        first_iterations: int = 3,
        frozen: bool = False,
        logit_scale: float = 1.0,
        colour_weight: float = 0.25,
        width: int = 32,
        dim: int = 32,
        depth: int = 3,
        embedding: nn.Module | None = None,
    ) -> None:
        if dim > slot_dim:
            raise ValueError(f"features are {dim} wide and slots {slot_dim}; set slot_dim to {dim} or more")
        if embedding is None:
            first_stage = PatchEmbedding(width=width, dim=dim, depth=depth)
            if features is not None:
                load_features(first_stage, features)
            embedding = first_stage
        super().__init__(
            encoder=MotionEncoder(embedding, frozen=frozen, colour_weight=colour_weight),
            initializer=RankInit(num_slots, slot_dim),
            corrector=SlotAttention(
                slot_dim, slot_dim, hidden_dim=2 * slot_dim, iterations=iterations, use_gru=False
            ),
            predictor=TransformerEncoder(slot_dim, 1),
            decoder=SlotDecoder(slot_dim, dim + 3),
            first_iterations=first_iterations,
            video=False,
        )
        self.dim = dim
        self.embed = nn.Linear(dim + 3 + 4 * WAVES, slot_dim)
        self.score = nn.Parameter(torch.zeros(slot_dim))
        self.norm_slots = nn.LayerNorm(slot_dim)
        self.norm_patches = nn.LayerNorm(slot_dim)
        self.to_query = nn.Linear(slot_dim, slot_dim, bias=False)
        self.to_key = nn.Linear(slot_dim, slot_dim, bias=False)
        self._become_kmeans(logit_scale)

    @torch.no_grad()
    def _become_kmeans(self, logit_scale: float) -> None:
        """Makes slot attention soft k-means on the embeddings, and prediction change nothing."""
        self.embed.weight.mul_(0.5)  # colour and position count little at first
        self.embed.weight[:, : self.dim] = 0
        self.embed.weight[: self.dim, : self.dim] = torch.eye(self.dim) * self.dim**0.5
        self.embed.bias.zero_()
        parts: Any = self.processor
        corrector, width = parts.corrector, self.slot_dim
        rotation = nn.init.orthogonal_(torch.empty(width, width))
        for query, key in ((corrector.to_q, corrector.to_k), (self.to_query, self.to_key)):
            query.weight.copy_(rotation * logit_scale)
            key.weight.copy_(rotation)
        corrector.to_v.weight.copy_(torch.eye(width))
        silent = [corrector.mlp.last.weight, corrector.mlp.last.bias]
        silent += [
            weight
            for name, weight in parts.predictor.named_parameters()
            if "out_proj" in name or "linear2" in name
        ]
        for weight in silent:
            weight.zero_()

    def correct(
        self, slots: Tensor, inputs: Tensor, *, first: bool, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Seeds the slots in the first frame, lets them compete, and assigns the patches.

        Args:
            slots: (B, K, D) predicted for this frame, or initial.
            inputs: (B, P, D') from `encode`.
            first: whether this is the first frame.
            visible: (B, K, P) bool, which patches each slot may see.

        Returns:
            Slots (B, K, D) and masks (B, K, P), which sum to 1 over K.
        """
        patches = self.embed(inputs[..., : -self.dim])  # (B, P, D)
        if first:
            slots = self.seeded(slots, patches, inputs, visible=visible)
        corrector = self._part(self.processor).corrector
        iterations = self.first_iterations if first else None
        slots = corrector(slots, patches, iterations=iterations, visible=visible).slots
        return slots, self.assign(slots, patches, visible=visible)

    def seeded(self, ranks: Tensor, patches: Tensor, inputs: Tensor, *, visible: Tensor | None) -> Tensor:
        """Slots (B, K, D) that start from patches far from each other, the most typical patch first."""
        count, means = ranks.shape[1], inputs[..., -self.dim :].detach()
        if torch.compiler.is_exporting():  # later picks change no earlier ones, so their number can stay free
            seen = None if visible is None else F.pad(visible, (0, 0, 0, MOST_SLOTS - count), value=True)
            chosen, scores = farthest_patches(means, MOST_SLOTS, visible=seen)
            chosen, scores = chosen[:, :count], scores[:, :count]
        else:
            chosen, scores = farthest_patches(means, count, visible=visible)
        seeds = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))
        return seeds + ranks + scores[..., None] * self.score

    def assign(self, slots: Tensor, patches: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """Masks (..., K, P): softmax over slots of how well slots (..., K, D) fit patches (..., P, D)."""
        queries = self.to_query(self.norm_slots(slots))
        keys = self.to_key(self.norm_patches(patches))
        logits = (queries @ keys.transpose(-1, -2)).float() * self.slot_dim**-0.5
        if visible is not None:
            logits = logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
        return logits.softmax(dim=-2)

    def decode(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Not possible from slots alone.

        Raises:
            ValueError: always; says what to use.
        """
        raise ValueError(
            "the masks of these slots are assigned by `correct`; use SlotTracker(output='attention')"
        )

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
            features: not supported.
            seeds: unused, nothing is random.
            noise: unused.
            num_slots: K.
            condition: unused.
            slot_frames: run slots over the first so many frames only.

        Returns:
            The trace.

        Raises:
            ValueError: cached features were given.
        """
        if features:
            raise ValueError("these slots compute their features themselves; switch the feature cache off")
        shape = (frames.shape[0], frames.shape[1])
        if encoded is None:
            encoded = self.encode(frames.flatten(0, 1))  # (B, T, 3, H, W) -> (B*T, 3, H, W)
        inputs = encoded.inputs.unflatten(0, shape)[:, :slot_frames]  # (B, T', P, D')
        patches = self.embed(inputs[..., : -self.dim])
        corrector = self._part(self.processor).corrector
        keys, values = corrector.project(patches)  # (B, T, P, heads, d)
        slots = self.initial_slots(shape[0], num_slots=num_slots)
        slots = self.seeded(slots, patches[:, 0], inputs[:, 0], visible=None)
        groupings = []
        for time in range(inputs.shape[1]):
            slots = self.predict(slots) if time else slots
            iterations = None if time else self.first_iterations
            groupings.append(corrector.iterate(slots, keys[:, time], values[:, time], iterations=iterations))
            slots = groupings[-1].slots
        every = torch.stack([grouping.slots for grouping in groupings], dim=1)  # (B, T, K, D)
        attention = torch.stack([grouping.attention for grouping in groupings], dim=1)  # (B, T, K, P)
        masks = self.assign(every, patches)
        return SlotTrace(
            slots=every,
            masks=masks.unflatten(-1, encoded.grid),  # (B, T, K, P) -> (B, T, K, h, w)
            features=encoded.features.detach().unflatten(0, shape),
            reconstruction=masks.transpose(-1, -2) @ self._part(self.decoder)(every),
            attention=attention.unflatten(-1, encoded.grid),
        )


def farthest_patches(
    embeddings: Tensor, count: int, *, visible: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Picks patches, each as unlike all before as possible and inside a pure neighbourhood.

    Args:
        embeddings: (B, P, C), means over neighbourhoods of unit-length embeddings: the purer, the longer.
        count: K.
        visible: (B, K, P) bool, from where each may be picked.

    Returns:
        Patch numbers (B, K) and scores (B, K): how unlike and how pure the picked ones are.

    Source: Arthur and Vassilvitskii, "k-means++", 2007, with the maximum instead of a draw.
    """
    directions = F.normalize(embeddings, dim=-1)
    purity = embeddings.norm(dim=-1) ** PURITY  # (B, P)
    unlike = (directions @ directions.mean(dim=1)[..., None])[..., 0]  # first: the most typical patch
    rows = torch.arange(len(embeddings), device=embeddings.device)
    chosen, scores = [], []
    for place in range(count):
        score = purity * unlike
        if visible is not None:
            score = score.masked_fill(~visible[:, place], -torch.inf)
        value, index = score.max(dim=1)
        chosen.append(index)
        scores.append(value.clamp(min=0))  # a slot that sees nothing scores nothing
        distance = 1 - (directions @ directions[rows, index][..., None])[..., 0]
        unlike = distance if place == 0 else torch.minimum(unlike, distance)
    return torch.stack(chosen, dim=1), torch.stack(scores, dim=1)


def load_features(embedding: PatchEmbedding, source: str) -> None:
    """Loads the first stage's weights, strictly.

    Args:
        embedding: gets the weights.
        source: a name in vosssl/weights, or the path of a state dict or checkpoint of `MotionFeatures`.

    Raises:
        ValueError: no such weights (names the shipped ones), or weights of another network (names a key).
    """
    path = WEIGHTS / f"{source}.pt"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in WEIGHTS.glob("*.pt"))) or "none"
        raise ValueError(
            f"no first-stage weights {source!r}; give the path of a checkpoint, or one of: {shipped}"
        )
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = content.get("ema") or content.get("network", content)
    wanted = embedding.state_dict()
    odd = sorted(set(wanted) ^ set(state)) or [
        key for key, weight in wanted.items() if weight.shape != state[key].shape
    ]
    if odd:
        raise ValueError(
            f"{path} does not hold motion features of this size: {len(odd)} keys differ, first {odd[0]!r}; "
            "train them with hparam=motion_features, or set width, dim and depth as they were"
        )
    embedding.load_state_dict(state)  # float16 files are widened here


class Objective:
    """Motion agreement of the masks, within a frame and to the next, and feature reconstruction.

    Clips without flow get it estimated from their frames.

    Args:
        anchors: patches per frame that are compared with all others.
        agreement_weight: of motion agreement.
        reconstruction_weight: of feature reconstruction.
    """

    def __init__(
        self, *, anchors: int = 96, agreement_weight: float = 0.5, reconstruction_weight: float = 1.0
    ) -> None:
        self.anchors = anchors
        self.agreement_weight = agreement_weight
        self.reconstruction_weight = reconstruction_weight

    def trace(self, network: nn.Module, batch: Batch) -> SlotTrace:
        """What the loss is computed from, for monitors and pictures too."""
        trace: SlotTrace = network(batch.frames)
        return trace

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch."""
        trace = self.trace(network, batch)
        grid = (trace.masks.shape[-2], trace.masks.shape[-1])
        flow, reliable = batch.flow, None
        if flow is None:
            flow, reliable = estimate_reliable_flow(batch.frames)
        seeds = batch.seeds if len(batch.seeds) else torch.arange(len(batch))
        within, across = motion_pairs(
            flow.float(), grid, anchors=self.anchors, seeds=seeds, reliable=reliable
        )
        masks = trace.masks.flatten(-2).float()  # (B, T, K, h, w) -> (B, T, K, P)
        every = masks.flatten(0, 1)
        losses = {"agreement_within": self.agreement_weight * motion_agreement(every, every, within)}
        if across is not None:
            before, after = masks[:, :-1].flatten(0, 1), masks[:, 1:].flatten(0, 1)
            losses["agreement_across"] = self.agreement_weight * motion_agreement(before, after, across)
        error = (trace.reconstruction - trace.features).square().sum(-1).mean()
        losses["reconstruction"] = self.reconstruction_weight * error
        return losses


def motion_agreement(masks: Tensor, others: Tensor, pairs: MotionPairs, *, floor: float = 1e-3) -> Tensor:
    """Cross-entropy of 'these two patches have the same slot' against 'they move together'.

    The probability that two patches share a slot is the inner product of their soft assignments. Moving
    together and moving differently count alike for every anchor, and patches of large regions count less
    each, so that small objects are worth separating.

    Args:
        masks: (N, K, P) of the frames with the anchors, summing to 1 over K.
        others: (N, K, P) that anchors are compared with.
        pairs: what moves with what.
        floor: added to probabilities.

    Returns:
        Scalar, the mean over frames of the mean over anchors by their weights.
    """
    index = pairs.anchors[:, None].expand(-1, masks.shape[1], -1)
    with torch.autocast(masks.device.type, enabled=False):  # 1 - together needs all digits
        together = masks.gather(2, index).transpose(1, 2) @ others  # (N, A, K) @ (N, K, P) -> (N, A, P)
    worth = (pairs.same.sum(dim=1, keepdim=True) + 1.0).rsqrt()  # (N, 1, P)
    same, different = pairs.same * worth, pairs.different * worth
    attract = -((together + floor).log() * same).sum(-1) / same.sum(-1).clamp(min=floor)
    repel = -((1 - together).clamp(min=0).add(floor).log() * different).sum(-1)
    repel = repel / different.sum(-1).clamp(min=floor)
    every = ((attract + repel) * pairs.weight).sum(-1) / pairs.weight.sum(-1).clamp(min=floor)  # (N,)
    return every.mean()
