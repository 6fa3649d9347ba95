"""A session over a stored video: prompts on any frame, propagation in both directions.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 3, and the video predictor
of the code that the weights come from (facebookresearch/sam2). Other than there, all objects of a frame go
through the network together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.data.sources import Video
from vosssl.methods.sam2.memory_selection import Recall, pointer_reach, recall
from vosssl.methods.sam2.network import NO_OBJECT, SAM2, Memories
from vosssl.methods.sam2.object_memory import ObjectTrack, Output, gathered, outputs_of
from vosssl.methods.sam2.output_store import OutputStore
from vosssl.methods.sam2.policies.policy import Follower, MemoryPolicy, follow
from vosssl.methods.sam2.prompts import LARGEST_LOGIT, as_points, require_inside, require_object
from vosssl.methods.sam2.video_images import Precision, VideoImages
from vosssl.ops.regions import fill_holes
from vosssl.ops.resize import Size, resize_image, resize_masks
from vosssl.propagation.segmenter import Box, Clicks

LOSER = -10.0  # logits of objects at pixels that another one has


class FrameMasks(NamedTuple):
    """Masks of all objects in one frame.

    Attributes:
        frame: its number.
        ids: of the N objects, in order of arrival.
        logits: (N, H, W) at the video's size, object above 0; -1024 where nothing is known yet.
    """

    frame: int
    ids: tuple[int, ...]
    logits: Tensor


class SAM2Session:
    """Objects in one stored video.

        session = SAM2Session(network, video)
        session.add_prompt(0, 1, clicks=Clicks(torch.tensor([[120.5, 80.5]]), torch.tensor([True])))
        for masks in session.propagate():
            ...

    The first prompts of an object make their frames conditioning frames: every other frame looks at them. A
    prompt on a frame that propagation has passed corrects it; officially, the next propagation that passes
    the frame computes it anew, unless `corrections_condition`.

    Args:
        network: in evaluation mode, on any device.
        video: (T, 3, H, W) RGB, uint8 or float in [0, 1]; or a `Video`, which is read as it is needed.
        image_size: side of the square that frames are squashed to; published: 1024.
        stride: between the tracked frames that are remembered, but for the last one.
        max_conditioning: look at so many of the frames with prompts, at most; None: at all.
        corrections_condition: corrected frames become conditioning frames, too.
        non_overlapping: a pixel of the masks that come out belongs to one object at most.
        fill_hole_area: holes of masks with so many low-resolution pixels or fewer are filled; officially 8 on
            GPUs, 0 on CPUs.
        kept_images: encoded frames that are kept; others are encoded again where they are needed.
        object_chunk: objects that go through the network at once, at most; None: all.
        memory_budget_mb: of encoded frames and of all that is known of objects; beyond it, what was not
            needed the longest waits in a temporary folder, and results stay what they are. None: no limit.
        precision: of the network.
        memory_dtype: of memories; officially bfloat16, whatever the network computes in.
        policy: another way to choose masks and memories, see `policies`; None: as published.

    Raises:
        ValueError: options out of range, a video without frames.
    """

    def __init__(
        self,
        network: SAM2,
        video: Tensor | Video,
        *,
        image_size: int = 1024,
        stride: int = 1,
        max_conditioning: int | None = None,
        corrections_condition: bool = False,
        non_overlapping: bool = False,
        fill_hole_area: int = 0,
        kept_images: int = 2,
        object_chunk: int | None = None,
        memory_budget_mb: float | None = 1024.0,
        precision: Precision = "fp32",
        memory_dtype: torch.dtype = torch.bfloat16,
        policy: MemoryPolicy | None = None,
    ) -> None:
        if min(stride, 1 if object_chunk is None else object_chunk) < 1 or fill_hole_area < 0:
            raise ValueError(
                f"stride is {stride} and object_chunk {object_chunk}, expected at least 1; fill_hole_area is "
                f"{fill_hole_area}, expected at least 0"
            )
        self._images = VideoImages(
            network, video, image_size=image_size, kept=kept_images, precision=precision
        )
        self.network = network
        self.image_size = image_size
        self.stride = stride
        self.max_conditioning = max_conditioning
        self.corrections_condition = corrections_condition
        self.non_overlapping = non_overlapping
        self.fill_hole_area = fill_hole_area
        self.object_chunk = object_chunk
        self.memory_budget_mb = memory_budget_mb
        self.memory_dtype = memory_dtype
        self.policy = policy
        self._store = OutputStore(None if memory_budget_mb is None else self._left_of(memory_budget_mb))
        self._tracks: dict[int, ObjectTrack] = {}
        self._followers: dict[int, Follower] = {}  # under a policy

    def __len__(self) -> int:
        """Frames of the video."""
        return len(self._images)

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects, in order of arrival."""
        return tuple(self._tracks)

    @property
    def size(self) -> Size:
        """(H, W) of the video's frames."""
        return self._images.size

    def memory_mb(self) -> float:
        """Megabytes of tensors that are kept in memory between two calls, without the video."""
        return self._store.memory_mb + self._images.memory_mb

    def reset(self) -> None:
        """Forgets all objects."""
        self._tracks.clear()
        self._followers.clear()
        self._store = OutputStore(self._store.limit_mb)

    @torch.inference_mode()
    def add_prompt(
        self,
        frame: int,
        identity: int,
        *,
        clicks: Clicks | None = None,
        box: Box | None = None,
        mask: Tensor | None = None,
        keep: bool = False,
    ) -> FrameMasks:
        """Says where an object is in a frame: by clicks, a box, both, or a mask.

        Args:
            frame: its number.
            identity: of the object; one that is not known yet is a new object.
            clicks: on and off the object, in pixels of the video.
            box: around it.
            mask: (H, W) bool or in [0, 1]; an empty one says that the object is not there.
            keep: add the clicks to those of this frame, instead of starting anew.

        Returns:
            Masks of all objects in this frame.

        Raises:
            ValueError: no prompt, or one that does not fit; a frame outside the video. The session can go on.
        """
        self._check_frame(frame)
        track = self._tracks.get(identity) or self._new_track()
        conditions = frame not in track.followed or self.corrections_condition
        if mask is not None:
            if clicks is not None or box is not None:
                raise ValueError("a mask came with clicks or a box; give the mask alone, then correct it")
            square = self._square_mask(mask)
            if identity not in self._tracks:
                require_object(square, identity)
            image = self._images[frame]
            with self._images.precision():
                decoded = self.network.accept_masks(image, square[None, None])
            track.points.pop(frame, None)
            track.masked.add(frame)
        else:
            points, labels = self._points(clicks, box)
            if keep and frame in track.points:
                if box is not None:
                    raise ValueError("a box is added to earlier clicks; give it first, or with keep=False")
                before = track.points[frame]
                points, labels = torch.cat([before[0], points], dim=1), torch.cat([before[1], labels], dim=1)
            image = self._images[frame]
            memories = None
            if frame in track.followed:
                memories = self._memories(frame, [track], reverse=track.followed[frame])
            earlier = track.output(frame, conditions=conditions)
            with self._images.precision():
                decoded = self.network.decode_prompts(
                    image,
                    self.network.condition_on_memory(image, memories),
                    points=points,
                    labels=labels,
                    masks=None
                    if earlier is None
                    else earlier.logits[None].clamp(-LARGEST_LOGIT, LARGEST_LOGIT),
                    multimask=points.shape[1] <= 1,
                )
            track.points[frame] = (points, labels)
            track.masked.discard(frame)
        track.pending(conditions=conditions)[frame] = self._finished(outputs_of(decoded))[0]
        self._tracks[identity] = track
        return self._known(frame, conditions=conditions)

    @torch.inference_mode()
    def clear_prompts(self, frame: int, identity: int) -> FrameMasks:
        """Takes back what was said of an object in a frame.

        Args:
            frame: its number.
            identity: of the object.

        Returns:
            Masks of all objects in this frame.

        Raises:
            ValueError: an unknown object, or a frame outside the video.
        """
        self._check_frame(frame)
        self._track(identity).drop_prompts(frame)
        pending = any(frame in track.pending_conditioning for track in self._tracks.values())
        return self._known(frame, conditions=pending)

    @torch.inference_mode()
    def remove_object(self, identity: int) -> list[FrameMasks]:
        """Forgets an object.

        Args:
            identity: of the object.

        Returns:
            Masks of the other objects in the frames where it had prompts.

        Raises:
            ValueError: an unknown object.
        """
        frames = self._track(identity).prompted_frames
        self._tracks.pop(identity).clear()
        self._followers.pop(identity, None)
        if not self._tracks:
            return []
        pending = [any(f in track.pending_conditioning for track in self._tracks.values()) for f in frames]
        return [self._known(f, conditions=conditions) for f, conditions in zip(frames, pending, strict=True)]

    @torch.inference_mode()
    def propagate(
        self, start: int | None = None, *, max_frames: int | None = None, reverse: bool = False
    ) -> Iterator[FrameMasks]:
        """Follows all objects from a frame on.

        Args:
            start: the first frame; None: the earliest with a prompt, for either direction.
            max_frames: at most so many frames after the first; None: to the video's end.
            reverse: towards the beginning. From frame 0, that is no frame at all.

        Yields:
            Masks of all objects, frame by frame.

        Raises:
            ValueError: no object, or one without a prompt; a frame outside the video.
        """
        self._take_over_prompts()
        if start is None:
            start = min(frame for track in self._tracks.values() for frame in track.conditioning)
        self._check_frame(start)
        reach = len(self) if max_frames is None else max_frames
        if reverse:
            order = range(start, max(start - reach, 0) - 1, -1) if start > 0 else range(0)
        else:
            order = range(start, min(start + reach, len(self) - 1) + 1)
        for follower in self._followers.values():
            follower.restart()
        if self.policy is not None and self.policy.decides_late:
            for frame in order:
                self._follow(frame, reverse=reverse)
        for frame in order:
            if self.policy is None or not self.policy.decides_late:
                self._follow(frame, reverse=reverse)
            outputs = [track.remembered(frame) for track in self._tracks.values()]
            yield self._masks(frame, outputs)

    def _follow(self, frame: int, *, reverse: bool) -> None:
        """Follows all objects that have no prompt in this frame, in one pass."""
        tracks = [track for track in self._tracks.values() if frame not in track.conditioning]
        if tracks and self.policy is not None:
            self._follow_by_policy(frame, self.policy, reverse=reverse)
        elif tracks:
            step = self.object_chunk or len(tracks)
            for start in range(0, len(tracks), step):
                self._follow_some(frame, tracks[start : start + step], reverse=reverse)
        for identity, track in self._tracks.items():
            track.followed[frame] = reverse
            if frame in track.conditioning and identity in self._followers:
                self._followers[identity].restart()

    def _follow_some(self, frame: int, tracks: Sequence[ObjectTrack], *, reverse: bool) -> None:
        """Follows objects in one pass."""
        image, memories = self._images[frame], self._memories(frame, tracks, reverse=reverse)
        with self._images.precision():
            features = self.network.condition_on_memory(image, memories)
            decoded = self.network.decode_prompts(image, features, multimask=True)
            encoded = self.network.encode_memory(image, decoded.masks, decoded.object_score)
        outputs = outputs_of(decoded, encoded.to(self.memory_dtype))
        for track, output in zip(tracks, self._finished(outputs), strict=True):
            track.tracked[frame] = output

    def _finished(self, outputs: list[Output]) -> list[Output]:
        """What is stored and shown of objects: memories are made of masks with their holes."""
        return [
            output._replace(logits=fill_holes(output.logits.float(), self.fill_hole_area))
            for output in outputs
        ]

    def _follow_by_policy(self, frame: int, policy: MemoryPolicy, *, reverse: bool) -> None:
        """Follows all objects that have no prompt in this frame, on all their paths."""
        tracks = {
            identity: track for identity, track in self._tracks.items() if frame not in track.conditioning
        }
        for identity in tracks:
            self._followers.setdefault(identity, policy.follow_object())
        image = self._images[frame]
        ways = follow(
            self.network,
            image,
            tracks,
            self._followers,
            frame=frame,
            usual=partial(self._recall, frame, reverse=reverse),
            reach=pointer_reach(len(self)),
            presence=policy.presence,
            reverse=reverse,
        )
        for identity, outputs in ways.items():
            memories = self.network.encode_memory(
                image,
                torch.stack([output.logits for output in outputs]),
                torch.stack([output.object_score for output in outputs]),
            ).to(self.memory_dtype)
            stored = [output._replace(memory=own) for output, own in zip(outputs, memories, strict=True)]
            stored = self._finished(stored)
            self._followers[identity].remember(frame, tracks[identity], stored)

    def _memories(self, frame: int, tracks: Sequence[ObjectTrack], *, reverse: bool) -> Memories:
        recalls = [self._recall(frame, track, reverse=reverse) for track in tracks]
        return gathered(tracks, recalls, reach=pointer_reach(len(self)))

    def _recall(self, frame: int, track: ObjectTrack, *, reverse: bool) -> Recall:
        """What a frame looks back at without a policy."""
        return recall(
            frame,
            conditioning=track.conditioning,
            tracked=track.tracked,
            reverse=reverse,
            length=len(self),
            stride=self.stride,
            max_conditioning=self.max_conditioning,
        )

    def _take_over_prompts(self) -> None:
        """Encodes what prompts gave; from now on frames look back at it."""
        if not self._tracks:
            raise ValueError("there is no object to follow; add_prompt says where one is")
        for identity, track in self._tracks.items():
            if not track.conditioning and not track.pending_conditioning:
                raise ValueError(f"object {identity} has no prompt left; add one, or remove the object")
        for track in self._tracks.values():
            for conditions, stored in ((False, track.tracked), (True, track.conditioning)):
                pending = track.pending(conditions=conditions)
                for frame in list(pending):
                    stored[frame] = self._with_memory(frame, pending[frame])
                    del pending[frame]
            for frame in track.conditioning:
                track.tracked.pop(frame, None)

    def _with_memory(self, frame: int, output: Output) -> Output:
        image = self._images[frame]
        with self._images.precision():
            memory = self.network.encode_memory(
                image, output.logits[None], output.object_score[None], prompted=True
            )
        return output._replace(memory=memory[0].to(self.memory_dtype))

    def _known(self, frame: int, *, conditions: bool) -> FrameMasks:
        """What is known in a frame, the latest prompts included."""
        return self._masks(
            frame, [track.output(frame, conditions=conditions) for track in self._tracks.values()]
        )

    def _masks(self, frame: int, outputs: Sequence[Output | None]) -> FrameMasks:
        """Logits of objects at the video's size; unknown ones get -1024."""
        device = self.network.no_mem_embed.device
        logits = torch.full((len(outputs), *self.size), NO_OBJECT, device=device)
        known = [row for row, output in enumerate(outputs) if output is not None]
        if known:
            small = torch.stack([output.logits for output in outputs if output is not None])  # (n, 1, 4h, 4w)
            logits[known] = resize_masks(small.float(), self.size)[:, 0]
        if self.non_overlapping and len(outputs) > 1:
            first = logits.argmax(dim=0)
            own = first == torch.arange(len(outputs), device=device)[:, None, None]
            logits = torch.where(own, logits, logits.clamp(max=LOSER))
        return FrameMasks(frame, self.ids, logits)

    def _square_mask(self, mask: Tensor) -> Tensor:
        """(H, W) to (S, S) of 0 and 1."""
        if tuple(mask.shape) != self.size:
            raise ValueError(f"mask is {tuple(mask.shape)}, expected {self.size} like the video's frames")
        soft = mask.to(device=self.network.no_mem_embed.device, dtype=torch.float32)
        square = resize_image(soft[None], (self.image_size, self.image_size))[0]
        return (square >= 0.5).float()

    def _points(self, clicks: Clicks | None, box: Box | None) -> tuple[Tensor, Tensor]:
        """Points (1, P, 2) in pixels of the encoded frame, corners of the box first, and labels (1, P)."""
        for prompt in (clicks, box):
            if prompt is not None:
                require_inside(prompt, self.size)
        points, labels = as_points(clicks=clicks, box=box)
        height, width = self.size
        scale = torch.tensor([self.image_size / width, self.image_size / height])
        device = self.network.no_mem_embed.device
        return (points * scale)[None].to(device), labels[None].to(device)

    def _new_track(self) -> ObjectTrack:
        return ObjectTrack(
            self._store.outputs(), self._store.outputs(), self._store.outputs(), self._store.outputs()
        )

    def _left_of(self, budget_mb: float) -> float:
        """What encoded frames leave of the budget."""
        images = self._images
        if budget_mb <= images.most_mb:
            raise ValueError(
                f"memory_budget_mb is {budget_mb:g}, but {images.kept} encoded frames of {self.image_size} "
                f"pixels take {images.most_mb:.1f} MB; raise it, or lower kept_images or image_size"
            )
        return budget_mb - images.most_mb

    def _track(self, identity: int) -> ObjectTrack:
        if identity not in self._tracks:
            known = ", ".join(map(str, self._tracks)) or "none"
            raise ValueError(f"there is no object {identity}; there are: {known}")
        return self._tracks[identity]

    def _check_frame(self, frame: int) -> None:
        if not 0 <= frame < len(self):
            raise ValueError(f"frame {frame} was asked for; the video has frames 0..{len(self) - 1}")
