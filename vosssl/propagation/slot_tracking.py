"""SlotTracker: any slot network as a video segmenter, online, with the memory of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.layers.slot_initializers import ConditionalInit, condition_from_labels
from vosssl.layers.slot_network import Encoded, SlotNetwork
from vosssl.ops.foreground import foreground_from_cls_attention
from vosssl.ops.noise import sample_noise
from vosssl.ops.resize import Size
from vosssl.ops.slot_matching import continue_order, mask_overlap, slot_similarity
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

Output = Literal["decoder", "attention"]
Reorder = Literal["none", "overlap", "similarity"]

BACKGROUND = 0  # owner of slots that stand for the background
EXTRA = -1  # owner of slots that stand for whatever nobody named


class SlotTracker(VideoSegmenter):
    """Carries the slots of a slot network through a video.

    Without a prompt it discovers: the labels are the winning slot + 1, and every pixel belongs to a slot.
    With a label map it locks on: in that frame each object's slots see only the object's patches, the
    others see the rest, and from then on the class mask is the largest of its slots' masks. Later prompts
    add slots.

    Args:
        network: the slot network; it is used as it is, in whatever mode.
        output: whether masks are the decoder's or the slot attention's.
        num_slots: slots to discover with; None for the network's own number.
        first_iterations: slot attention iterations on the first frame; None for the network's own.
        slots_per_object: slots that share a prompted object.
        num_background_slots: slots that share the background, when prompted.
        num_extra_slots: slots for objects that the prompt does not name; they count as background.
        background_by_attention: background slots see only what the class token calls background (needs a
            network that gives its attention); in the prompted frame the extra slots see the rest.
        reorder: puts slots into the order of the first frame, by mask overlap or slot similarity, for
            networks whose slots change places.
        temperature: of the softmax over similarities, when reordering.
        size: of the network's frames: None, shorter side, or (height, width).
        stride: pads frames to a multiple, such as the patch size.
        seed: of the noise of random slots; every video starts from the same.
        device: None for the network's own.
    """

    discovers = True

    def __init__(
        self,
        network: SlotNetwork,
        *,
        output: Output = "decoder",
        num_slots: int | None = None,
        first_iterations: int | None = None,
        slots_per_object: int = 1,
        num_background_slots: int = 1,
        num_extra_slots: int = 0,
        background_by_attention: bool = False,
        reorder: Reorder = "none",
        temperature: float = 0.1,
        size: int | Size | None = None,
        stride: int = 1,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if device is None:
            device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        super().__init__(size=size, stride=stride, device=device)
        if slots_per_object < 1 or num_background_slots < 1 or num_extra_slots < 0:
            raise ValueError(
                f"got {slots_per_object} slots per object, {num_background_slots} for the background and "
                f"{num_extra_slots} extra; expected at least 1, 1 and 0"
            )
        self.network = network
        self.output = output
        self.num_slots = num_slots
        self.first_iterations = first_iterations
        self.slots_per_object = slots_per_object
        self.num_background_slots = num_background_slots
        self.num_extra_slots = num_extra_slots
        self.background_by_attention = background_by_attention
        self.reorder = reorder
        self.temperature = temperature
        self.seed = seed
        self.needs_prompt = isinstance(network.initializer, ConditionalInit)
        self.forget()

    def forget(self) -> None:
        self._slots: Tensor | None = None  # (1, K, D) corrected by the last frame
        self._masks: Tensor | None = None  # (K, h, w)
        self._attention: Tensor | None = None  # (K, h, w)
        self._owners: list[int] = []  # class of each slot when locked on
        self._belief: Tensor | None = None  # (K, K) how likely slot k of the first frame is now slot j

    @property
    def slots(self) -> Tensor:
        """(K, D) of the last frame, in the order of the first when reordering."""
        return self._last("_slots")[0]

    @property
    def masks(self) -> Tensor:
        """(K, h, w) of the last frame: the decoder's or the attention, as `output` says."""
        return self._last("_masks")

    @property
    def attention(self) -> Tensor:
        """(K, h, w) slot attention of the last frame."""
        return self._last("_attention")

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        encoded = self.network.encode(frame[None])  # (1, 3, h, w)
        before_slots, before_masks = self._slots, self._masks
        slots, visible, first = self._start(encoded, prompted)
        with self._iterations():
            slots, attention = self.network.correct(slots, encoded.inputs, first=first, visible=visible)
        self._slots = slots
        self._attention = attention[0].unflatten(-1, encoded.grid)  # (1, K, P) -> (K, h, w)
        if self.output == "decoder":
            decoded = self.network.decode(slots, encoded.grid)
            grid = getattr(decoded, "grid", None) or encoded.grid
            self._masks = decoded.masks[0].unflatten(-1, grid)
        else:
            self._masks = self._attention
        if self.reorder != "none":
            self._reorder(before_slots, before_masks)
        if self._owners:
            return self._class_masks(self.masks)
        self.object_ids = tuple(range(1, len(self._masks) + 1))
        return F.pad(self.masks, (0, 0, 0, 0, 1, 0))  # (K, h, w) -> (K + 1, h, w), no pixel is background

    def _start(self, encoded: Encoded, prompted: Prompted | None) -> tuple[Tensor, Tensor | None, bool]:
        """Slots (1, K, D) that meet the frame, what each may see, and whether they are new."""
        first = self._slots is None
        if prompted is not None and prompted.labels is not None:
            return (*self._lock_on(encoded, prompted), first)
        if self._slots is None:
            if isinstance(self.network.initializer, ConditionalInit):
                raise ValueError(
                    f"this network starts from {self.network.initializer.kind} of the first frame and "
                    "discovers nothing; give the first frame's labels as its prompt"
                )
            slots = self._new_slots(self.num_slots or self.network.num_slots)
        else:
            slots = self.network.predict(self._slots)
        if self._owners:
            return slots, self._later_visible(encoded), first
        return slots, self._group_visible(encoded, slots.shape[1], first=first), first

    def _lock_on(self, encoded: Encoded, prompted: Prompted) -> tuple[Tensor, Tensor | None]:
        """Slots with those of newly prompted objects, and what each may see in this frame."""
        assert prompted.labels is not None
        if isinstance(self.network.initializer, ConditionalInit):
            return self._condition(self.network.initializer, prompted.labels, prompted.ids), None
        new: list[int] = []
        if not self._owners:
            self.object_ids = prompted.ids
            kept = 0 if self._slots is None else self._slots.shape[1]  # discovered so far: now background
            self._owners = [BACKGROUND] * kept
            new += [BACKGROUND] * (0 if kept else self.num_background_slots)
        for identity in prompted.ids:
            new += [identity] * (self.slots_per_object if identity not in self._owners else 0)
        if EXTRA not in self._owners:
            new += [EXTRA] * self.num_extra_slots
        self._owners = self._owners + new
        added = self._new_slots(len(self._owners))[:, len(self._owners) - len(new) :]
        slots = added if self._slots is None else torch.cat([self.network.predict(self._slots), added], dim=1)
        return slots, self._prompt_visible(encoded, prompted.labels, prompted.ids)

    def _condition(self, initializer: ConditionalInit, labels: Tensor, ids: tuple[int, ...]) -> Tensor:
        """Slots of a network that starts from hints: background, one per object, spare ones."""
        if self._slots is not None:
            raise ValueError(
                "a network conditioned on the first frame takes a prompt there only; call reset()"
            )
        compact = torch.zeros_like(labels)
        for place, identity in enumerate(ids):
            compact[labels == identity] = place + 1  # hints are read in the order 1..N
        hints = condition_from_labels(compact[None], kind=initializer.kind, objects=len(ids))
        count = self.num_slots or max(self.network.num_slots, len(ids) + 1)
        slots = self.network.initial_slots(1, num_slots=count, condition=hints)
        self._owners = [BACKGROUND, *ids, *[EXTRA] * (slots.shape[1] - 1 - len(ids))]
        return slots

    def _new_slots(self, count: int) -> Tensor:
        noise = None
        if getattr(self.network.initializer, "needs_noise", True):
            seeds = torch.tensor([self.seed + self.frame_index])
            noise = sample_noise(seeds, (count, self.network.slot_dim)).to(self.device)
        return self.network.initial_slots(1, num_slots=count, noise=noise)

    def _group_visible(self, encoded: Encoded, count: int, *, first: bool) -> Tensor | None:
        restrict = getattr(self.network, "visible", None)
        return None if restrict is None else restrict(encoded.cls_attention, num_slots=count, first=first)

    def _prompt_visible(self, encoded: Encoded, labels: Tensor, ids: tuple[int, ...]) -> Tensor:
        """(1, K, P) bool: prompted objects see their patches, the other slots what is left."""
        given = patch_owners(labels, ids, encoded.grid)  # (P,)
        unclaimed = given == BACKGROUND
        foreground = self._foreground(encoded)
        rows = []
        for owner in self._owners:
            seen = given == owner if owner in ids else unclaimed
            if foreground is not None and owner in (BACKGROUND, EXTRA):
                seen = seen & (foreground if owner == EXTRA else ~foreground)
            rows.append(seen)
        return torch.stack(rows)[None]

    def _later_visible(self, encoded: Encoded) -> Tensor | None:
        foreground = self._foreground(encoded)
        if foreground is None:
            return None
        return torch.stack([~foreground | (owner != BACKGROUND) for owner in self._owners])[None]

    def _foreground(self, encoded: Encoded) -> Tensor | None:
        """(P,) bool by the class token's attention, when the option asks for it."""
        if not self.background_by_attention:
            return None
        if encoded.cls_attention is None:
            raise ValueError(
                "background_by_attention needs the class token's attention; "
                "build the encoder with cls_attention"
            )
        return foreground_from_cls_attention(encoded.cls_attention)[0]

    def _class_masks(self, masks: Tensor) -> Tensor:
        """(K, h, w) slot masks to (N + 1, h, w): the largest mask of each class, normalised."""
        owners = torch.tensor([max(owner, BACKGROUND) for owner in self._owners], device=masks.device)
        rows = [masks[owners == owner].amax(dim=0) for owner in (BACKGROUND, *self.object_ids)]
        stacked = torch.stack(rows)
        return stacked / stacked.sum(dim=0, keepdim=True).clamp(min=1e-8)

    def _reorder(self, slots: Tensor | None, masks: Tensor | None) -> None:
        """Puts this frame's slots into the order of the first frame's."""
        assert self._slots is not None and self._masks is not None and self._attention is not None
        if slots is None or masks is None or slots.shape != self._slots.shape:
            self._belief = None  # slots were added: the order begins anew
            return
        if self.reorder == "overlap":
            likeness = mask_overlap(masks, self._masks)
        else:
            likeness = slot_similarity(slots[0], self._slots[0])
        order, self._belief = continue_order(likeness, self._belief, temperature=self.temperature)
        order = order.to(self.device)
        self._slots, self._masks = self._slots[:, order], self._masks[order]
        self._attention = self._attention[order]

    def _last(self, name: Literal["_slots", "_masks", "_attention"]) -> Tensor:
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise RuntimeError("no frame was segmented yet; call step first")
        return value

    @contextmanager
    def _iterations(self) -> Iterator[None]:
        """Lends the network another number of first-frame iterations for one call."""
        if self.first_iterations is None:
            yield
            return
        own, self.network.first_iterations = self.network.first_iterations, self.first_iterations
        try:
            yield
        finally:
            self.network.first_iterations = own


def patch_owners(labels: Tensor, ids: tuple[int, ...], grid: Size) -> Tensor:
    """Which object each patch belongs to: the one with the largest share of it, background included.

    An object too small to win a patch gets the one where its share is largest.

    Args:
        labels: (H, W) uint8; ids that are not named, and void, count as background.
        ids: N ids.
        grid: (h, w) of the patches.

    Returns:
        (h * w,) int64 ids, 0 for the background.
    """
    wanted = torch.tensor([0, *ids], device=labels.device)
    masks = (labels[None] == wanted[:, None, None]).float()  # (N + 1, H, W)
    masks[0] = 1 - masks[1:].sum(dim=0)
    share = F.adaptive_avg_pool2d(masks, grid).flatten(1)  # (N + 1, h * w)
    owners = wanted[share.argmax(dim=0)]
    for place, identity in enumerate(ids, start=1):
        if share[place].any() and not (owners == identity).any():
            owners[share[place].argmax()] = identity
    return owners
