"""Unsupervised segmentation of long video: discover where it is sure, propagate both ways, merge.

The video is cut into stretches. In each, slots start anew and the frame that they are surest of becomes an
anchor: its slots, without those of the background, are objects. Between two anchors the labels of the first
are propagated forward and those of the second backward; tracks that overlap are one object, and both tracks
vote, the nearer anchor more. Two passes over the video, the first from its end to its beginning, hand ids on
in both directions; besides the anchors' label maps only two stretches are in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from vosssl.clip import VOID, Frame
from vosssl.data.video import Video
from vosssl.layers.slot_network import SlotNetwork
from vosssl.ops.images import as_float
from vosssl.ops.masks import masks_to_labels, object_ids
from vosssl.ops.resize import Size, resize_masks
from vosssl.propagation.discoveries import Background, joined, object_labels, same_objects, surest
from vosssl.propagation.label_propagation import (
    LabelPropagation,
    fitted_side,
    map_propagation,
)
from vosssl.propagation.segmenter import PromptKind
from vosssl.propagation.slot_gate import motion_embedding
from vosssl.propagation.slot_tracking import Output, SlotTracker
from vosssl.propagation.soft_labels import SoftLabels, fuse, rename_rows, renamed, spread

log = logging.getLogger(__name__)


class OfflineSegmenter(Protocol):
    """A method that looks at the whole video before it labels the first frame; it takes no prompt.

    Attributes:
        discovers: always true.
        needs_prompt: never.
        prompt_kinds: none.
        size: as for a `VideoSegmenter`.
    """

    discovers: ClassVar[bool]
    needs_prompt: ClassVar[bool]
    prompt_kinds: ClassVar[tuple[PromptKind, ...]]

    @property
    def size(self) -> int | Size | None: ...

    @size.setter
    def size(self, size: int | Size | None) -> None: ...

    def __call__(self, video: Video) -> Iterator[tuple[Frame, Tensor]]:
        """The frames in order, each with (H, W) uint8 ids."""


class Anchor(NamedTuple):
    """A frame whose objects are known.

    Attributes:
        frame: its number in the video.
        labels: (h, w) uint8 ids on the grid of patches.
    """

    frame: int
    labels: Tensor


class DiscoverAndTrack:
    """Finds objects with slots and follows them with label propagation, both ways.

    Args:
        tracker: discovers objects.
        propagation: its features and its way to attend are used.
        spacing: frames of a stretch, each of which gets one anchor.
        overlap: smallest intersection over union of tracks that are one object.
        background: when a slot stands for the background.
        smallest: share of the frame that an object has at least, where it is discovered.

    Raises:
        ValueError: a tracker that cannot discover, or a spacing below 1.
    """

    discovers: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = False
    prompt_kinds: ClassVar[tuple[PromptKind, ...]] = ()

    def __init__(
        self,
        tracker: SlotTracker,
        propagation: LabelPropagation,
        *,
        spacing: int = 8,
        overlap: float = 0.3,
        background: Background | None = None,
        smallest: float = 0.002,
    ) -> None:
        if tracker.needs_prompt or spacing < 1:
            raise ValueError(
                f"got spacing {spacing} and a tracker that {'cannot' if tracker.needs_prompt else 'can'} "
                "discover, expected 1 or more and slots that start without hints"
            )
        self.tracker = tracker
        self.propagation = propagation
        self.spacing = spacing
        self.overlap = overlap
        self.background = background or Background()
        self.smallest = smallest

    @property
    def size(self) -> int | Size | None:
        """Of the slots' frames; setting it sets that of propagation too."""
        return self.tracker.size

    @size.setter
    def size(self, size: int | Size | None) -> None:
        self.tracker.size = self.propagation.size = size

    @property
    def num_slots(self) -> int | None:
        """Slots of every discovery; None for the network's own number."""
        return self.tracker.num_slots

    def __call__(self, video: Video) -> Iterator[tuple[Frame, Tensor]]:
        """Labels a video.

        Args:
            video: of known length; it is read from its end in stretches, then twice in order.

        Yields:
            Each frame and its (H, W) uint8 ids.

        Raises:
            ValueError: a video without end, such as a camera.
        """
        try:
            length = len(video)
        except TypeError as error:
            raise ValueError(
                f"{video.name} has no end, but discovering and tracking reads a video from its end; record "
                "it to a file, or use an online method such as method=slots-synthetic"
            ) from error
        anchors = self.anchors(video, length)
        frames = iter(video)
        for number in range(len(anchors) + 1):
            for soft in self._between(video, anchors, number, length):
                frame = next(frames)
                yield frame, _at_size(soft, (frame.image.shape[-2], frame.image.shape[-1]))

    @torch.inference_mode()
    def anchors(self, video: Video, length: int) -> list[Anchor]:
        """The first pass: from the last stretch to the first, objects get ids as tracks reach them.

        Args:
            video: to look at.
            length: its number of frames.

        Returns:
            One anchor per stretch, in the order of time.
        """
        found: list[Anchor] = []
        later: list[Tensor] = []  # features from the start of the stretch after this one to its anchor
        look: Tensor | None = None  # of the background so far
        ids = _Ids(video.name)
        for start in reversed(range(0, length, self.spacing)):
            frames = self._frames(video, range(start, min(start + self.spacing, length)))
            features = [self._features(frame) for frame in frames]
            best = surest(self.tracker, frames)
            labels, seen = object_labels(
                best.masks,
                features[best.place],
                background=self.background,
                known=look,
                smallest=self.smallest,
            )
            look = seen if look is None else look + seen
            if found:
                way = [*features[best.place :], *later]
                *_, carried = spread(way[::-1], found[-1].labels, self.propagation.attend)
                labels = self._named(labels, carried.labels, ids)
            else:
                labels = ids.fresh(labels, {})
            found.append(Anchor(start + best.place, labels))
            later = features[: best.place + 1]
        return found[::-1]

    def _named(self, labels: Tensor, carried: Tensor, ids: _Ids) -> Tensor:
        """Discovered labels (h, w) with the ids of the tracks that came there, and the tracks not found."""
        apart = torch.where(labels > 0, VOID - labels, 0).byte()  # numbers from 254 down: no id as yet
        known = {
            VOID - number: identity
            for number, identity in same_objects(carried, apart, overlap=self.overlap).items()
        }
        return joined(ids.fresh(labels, known), carried)

    @torch.inference_mode()
    def _between(self, video: Video, anchors: list[Anchor], number: int, length: int) -> list[SoftLabels]:
        """Soft labels of the frames from one anchor up to the next, which gets the ids of tracks reaching it.

        Args:
            video: to look at.
            anchors: all; those after this stretch are renamed in place.
            number: of the anchor where the stretch ends; it begins at the one before.
            length: frames of the video.
        """
        before = anchors[number - 1] if number else None
        after = anchors[number] if number < len(anchors) else None
        start = before.frame if before else 0
        stop = after.frame + 1 if after else length
        if start == stop - 1 and not before:
            return []
        features = [self._features(frame) for frame in self._frames(video, range(start, stop))]
        attend = self.propagation.attend
        forward = list(spread(features, before.labels, attend)) if before else []
        backward = list(spread(features[::-1], after.labels, attend))[::-1] if after else []
        if not after:
            return forward
        if not before:
            return backward[:-1]
        same = same_objects(
            torch.stack([soft.labels for soft in forward]),
            torch.stack([soft.labels for soft in backward]),
            overlap=self.overlap,
        )
        for place in range(number, len(anchors)):
            anchors[place] = anchors[place]._replace(labels=renamed(anchors[place].labels, same))
        anchors[number] = after._replace(labels=joined(anchors[number].labels, forward[-1].labels))
        shares = torch.linspace(0, 1, len(features)).tolist()
        fused = [
            fuse(first, rename_rows(second, same), share=share)
            for first, second, share in zip(forward, backward, shares, strict=True)
        ]
        return fused[:-1]

    def _frames(self, video: Video, indices: range) -> Tensor:
        """(T, 3, H, W) uint8 at the size that propagation works at, which slots shrink further."""
        fitted = fitted_side(
            video.size, self.propagation.size, fit=self.propagation.fit, multiple=self.propagation.multiple
        )
        return video.clip(indices, size=fitted).frames

    def _features(self, frame: Tensor) -> Tensor:
        """(h, w, D) of a frame (3, H, W) uint8."""
        return self.propagation.features(as_float(frame.to(self.propagation.device)))


class _Ids:
    """Hands out ids; the 255th object becomes background."""

    def __init__(self, video: str) -> None:
        self.video = video
        self.last = 0

    def fresh(self, labels: Tensor, known: Mapping[int, int]) -> Tensor:
        """Labels (h, w) with known ids, and new ones for the other numbers in them."""
        names = dict(known)
        for number in object_ids(labels):
            if number not in names:
                if self.last == VOID - 2:
                    log.warning("%s has more than %d tracks; the rest is background", self.video, VOID - 1)
                self.last += 1
                names[number] = self.last if self.last < VOID else 0
        return renamed(labels, names)


def discover_and_track(
    video: Video, tracker: SlotTracker, propagation: LabelPropagation, *, spacing: int = 8
) -> Iterator[Tensor]:
    """Labels a whole video without any given label; see `DiscoverAndTrack`, which has more options.

    Args:
        video: of known length.
        tracker: discovers objects.
        propagation: follows them.
        spacing: frames per discovery.

    Yields:
        (H, W) uint8 ids of each frame.
    """
    for _, labels in DiscoverAndTrack(tracker, propagation, spacing=spacing)(video):
        yield labels


def slots_discover_and_track(
    network: SlotNetwork,
    *,
    output: Output = "attention",
    size: int | Size | None = 64,
    num_slots: int | None = None,
    spacing: int = 8,
    overlap: float = 0.3,
    area: float = Background().area,
    border: float = Background().border,
    alike: float = Background().alike,
    smallest: float = 0.002,
    context: int = 7,
    top_k: int = 5,
    temperature: float = 0.1,
    radius: float = 12,
    device: torch.device | str | None = None,
) -> DiscoverAndTrack:
    """Our slots discover, and the features under them propagate.

    Args: see `DiscoverAndTrack`, `SlotTracker`, `Background` and `Attend`; `size` is that of both.

    Returns:
        The segmenter.
    """
    return DiscoverAndTrack(
        SlotTracker(network, output=output, num_slots=num_slots, size=size, device=device),
        map_propagation(
            motion_embedding(network),
            size=size,
            context=context,
            top_k=top_k,
            temperature=temperature,
            radius=radius,
            device=device,
        ),
        spacing=spacing,
        overlap=overlap,
        background=Background(area, border, alike),
        smallest=smallest,
    )


def _at_size(soft: SoftLabels, size: Size) -> Tensor:
    """(H, W) uint8 on the CPU: the strongest after upsampling."""
    rows = resize_masks(soft.rows.permute(2, 0, 1).float(), size)
    return masks_to_labels(rows, soft.ids).cpu()
