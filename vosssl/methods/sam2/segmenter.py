"""SAM 2 behind the interface that every segmenter shares: frame by frame, in memory that does not grow.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4. A stream has no later
prompts to look at, and its length is not known: pointers are placed as in videos of 16 frames or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vosssl.layers.prompt_encoder import ABSENT
from vosssl.methods.sam2.memory_selection import MAPS, Recall, pointer_reach, recall
from vosssl.methods.sam2.network import SAM2, Decoded, EncodedImage
from vosssl.methods.sam2.object_memory import ObjectTrack, Output, gathered, outputs_of
from vosssl.methods.sam2.policies.policy import Follower, MemoryPolicy, follow
from vosssl.methods.sam2.prompts import LARGEST_LOGIT, as_points, require_inside, require_object
from vosssl.methods.sam2.video_images import DTYPES, Precision
from vosssl.ops.byte_resize import resize_bytes
from vosssl.ops.masks import labels_to_masks, masks_to_labels
from vosssl.ops.resize import Padding, Size, resize_image
from vosssl.propagation.segmenter import Box, Clicks, Prompt, Prompted, PromptKind, VideoSegmenter


@dataclass
class LastFrame:
    """What `correct` needs of the frame that was segmented last.

    Attributes:
        image: it, encoded.
        prompts: what was said of it, in order.
        tracks: what was remembered before it.
        size: (H, W) of the frame.
        working: (H, W) of the network's frame.
        padding: around it.
    """

    image: EncodedImage
    prompts: list[Prompted]
    tracks: dict[int, ObjectTrack]
    size: Size
    working: Size
    padding: Padding


class SAM2Segmenter(VideoSegmenter):
    """Follows objects from clicks, boxes or masks in any frame; all objects of a frame in one pass.

    A prompt for an object that is followed already corrects what memory says of it in this frame; `correct`
    does so after the frame was seen.

    Args:
        network: the trained one.
        image_size: side of the square that frames are squashed to; published: 1024.
        memory_stride: between the tracked frames that are remembered, but for the last one.
        max_prompted: frames with prompts that are remembered of an object: its first and its last ones.
        memory_dtype: of memories; officially bfloat16, whatever the network computes in.
        precision: of the network.
        policy: another way to choose masks and memories, see `policies`; None: as published.
        device: where to work; None: where the network is.

    Raises:
        ValueError: options out of range.
    """

    prompt_kinds: ClassVar[tuple[PromptKind, ...]] = ("masks", "clicks", "boxes")

    def __init__(
        self,
        network: SAM2,
        *,
        image_size: int = 1024,
        memory_stride: int = 1,
        max_prompted: int = 8,
        memory_dtype: torch.dtype = torch.bfloat16,
        precision: Precision = "fp32",
        policy: MemoryPolicy | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        multiple = network.image_encoder.trunk.stride
        if image_size < 1 or image_size % multiple:
            raise ValueError(f"image_size is {image_size}, expected a multiple of {multiple}")
        if memory_stride < 1 or max_prompted < 2:
            raise ValueError(
                f"memory_stride is {memory_stride} and max_prompted {max_prompted}, expected at least 1 and 2"
            )
        if precision not in DTYPES:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(DTYPES)}")
        own = network.no_mem_embed.device
        super().__init__(size=(image_size, image_size), device=own if device is None else device)
        self.network = network.to(self.device).eval()
        self.memory_stride = memory_stride
        self.max_prompted = max_prompted
        self.memory_dtype = memory_dtype
        self.dtype = DTYPES[precision]
        self.policy = policy
        self.forget()

    def forget(self) -> None:
        self._tracks: dict[int, ObjectTrack] = {}
        self._followers: dict[int, Follower] = {}  # of the same objects, under a policy
        self._ways: dict[int, list[Output]] = {}  # of the current frame, under a policy
        self._last: LastFrame | None = None
        self._fit: tuple[Size, Size, Padding] | None = None  # of the frame that is being segmented

    @property
    def memory_mb(self) -> float:
        """Megabytes that are remembered of all objects."""
        tracks = [path for key, track in self._tracks.items() for path in self._paths(key, track)]
        tracks += [] if self._last is None else self._last.tracks.values()
        outputs = [
            output for track in tracks for output in (*track.conditioning.values(), *track.tracked.values())
        ]
        tensors = {id(tensor): tensor for output in outputs for tensor in output if tensor is not None}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 2**20

    def remove_objects(self, ids: Sequence[int]) -> None:
        """Forgets objects; the others are followed as before.

        Raises:
            ValueError: an id that is not followed.
        """
        kept = self._rows_without(ids)
        for identity in ids:
            self._tracks.pop(identity, None)
            self._followers.pop(identity, None)
            if self._last is not None:
                self._last.tracks.pop(identity, None)
        self._keep_rows(kept)

    @torch.inference_mode()
    def correct(self, prompt: Prompt) -> Tensor:
        """Segments the last frame again, as if this prompt had come with it, after those that did come.

        Args:
            prompt: as for `step`, for known objects or new ones. Clicks and boxes correct the mask that an
                object has so far.

        Returns:
            (H, W) uint8 ids, on this segmenter's device.

        Raises:
            ValueError: nothing was followed in the last frame, the prompt does not fit, or there is a memory
                policy, whose decisions cannot be taken back. Everything stays as it was then.
        """
        last = self._last
        if last is None or self.policy is not None:
            reason = "there is no such frame" if self.policy is None else "a memory policy has moved on"
            raise ValueError(f"the last frame cannot be corrected: {reason}; give the prompt with step")
        prompted = self._read_prompt(prompt, last.size, last.working, last.padding)
        before = self._tracks, self.object_ids
        self._tracks = _copies(last.tracks)
        self.object_ids += tuple(identity for identity in prompted.ids if identity not in self.object_ids)
        self.frame_index -= 1
        try:
            rows = self._segment(last.image, [*last.prompts, prompted])
            self._rows = self._to_frame(rows, last.size, last.working, last.padding)
        except Exception:
            self._tracks, self.object_ids = before
            raise
        finally:
            self.frame_index += 1
        last.prompts.append(prompted)
        return masks_to_labels(self._rows, self.object_ids)

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        """Logits, with zeros for the background; `_to_frame` makes probabilities of them."""
        assert self._fit is not None
        prompts = [] if prompted is None else [prompted]
        before = self._tracks
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            image = self.network.encode_image(frame[None])
        last = LastFrame(image, prompts, _copies(before), *self._fit)
        rows = self._segment(image, prompts)
        self._last = last
        return rows

    def _segment(self, image: EncodedImage, prompts: Sequence[Prompted]) -> Tensor:
        """(N + 1, 4h, 4w) logits of all objects after all prompts, which are remembered."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            outputs = self._follow(image)
            for prompted in prompts:
                if prompted.masks is not None:
                    outputs |= self._take_masks(image, prompted)
                if prompted.clicks or prompted.boxes:
                    outputs |= self._take_points(image, prompted, outputs)
            self._remember(image, outputs, {identity for prompted in prompts for identity in prompted.ids})
        logits = torch.cat([outputs[identity].logits for identity in self.object_ids]).float()  # (N, 4h, 4w)
        return torch.cat([torch.zeros_like(logits[:1]), logits])

    def _follow(self, image: EncodedImage) -> dict[int, Output]:
        """Objects that are remembered, in this frame."""
        if not self._tracks:
            return {}
        if self.policy is not None:
            self._ways = follow(
                self.network,
                image,
                self._tracks,
                self._followers,
                frame=self.frame_index,
                usual=self._recall,
                reach=pointer_reach(None),
                presence=self.policy.presence,
            )
            return {identity: ways[0] for identity, ways in self._ways.items()}
        features = self._conditioned(image, tuple(self._tracks))
        decoded = self.network.decode_prompts(image, features, multimask=True)
        return dict(zip(self._tracks, outputs_of(decoded), strict=True))

    def _conditioned(self, image: EncodedImage, ids: Sequence[int]) -> Tensor:
        """(n, C, h, w) features that know what is remembered of objects."""
        tracks = [self._tracks[identity] for identity in ids]
        recalls = [
            self._recall(track)
            if self.policy is None
            else self._followers[identity].recalls(self.frame_index, track, usual=self._recall)[0]
            for identity, track in zip(ids, tracks, strict=True)
        ]
        memories = gathered(tracks, recalls, reach=pointer_reach(None))
        return self.network.condition_on_memory(image, memories)

    def _recall(self, track: ObjectTrack, *, ahead: int = 0) -> Recall:
        """What this frame, or one ahead, looks back at without a policy."""
        return recall(
            self.frame_index + ahead,
            conditioning=track.conditioning,
            tracked=track.tracked,
            stride=self.memory_stride,
        )

    def _take_masks(self, image: EncodedImage, prompted: Prompted) -> dict[int, Output]:
        """Objects whose masks are given."""
        assert prompted.masks is not None and prompted.native is not None
        masks = prompted.masks.float()
        if not prompted.masks.is_floating_point():  # of a label map: shrunk from its own size
            masks = resize_image(labels_to_masks(prompted.native, prompted.ids).float(), image.size)
        decoded = self.network.accept_masks(image, (masks >= 0.5).float()[:, None])
        return dict(zip(prompted.ids, outputs_of(decoded), strict=True))

    def _take_points(
        self, image: EncodedImage, prompted: Prompted, followed: dict[int, Output]
    ) -> dict[int, Output]:
        """Objects that clicks or boxes were given for: new ones, those that only this frame's prompts know,
        and those that memory knows.
        """
        given: dict[int, Clicks | Box] = {**prompted.clicks, **prompted.boxes}
        new = [identity for identity in given if identity not in followed]
        shown = [identity for identity in given if identity in followed and identity not in self._tracks]
        known = [identity for identity in given if identity in followed and identity in self._tracks]
        results: dict[int, Output] = {}
        for ids in (new, shown, known):
            if not ids:
                continue
            features = (
                self._conditioned(image, ids)
                if ids is known
                else self.network.condition_on_memory(image, None)
            )
            earlier = None
            if ids is not new:
                logits = torch.stack([followed[identity].logits for identity in ids])
                earlier = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
            decoded = self._decoded(image, features, [given[identity] for identity in ids], earlier=earlier)
            results |= zip(ids, outputs_of(decoded), strict=True)
        return results

    def _decoded(
        self,
        image: EncodedImage,
        features: Tensor,
        prompts: Sequence[Clicks | Box],
        *,
        earlier: Tensor | None = None,
    ) -> Decoded:
        """Masks of n prompts with different numbers of points."""
        rows = [
            as_points(clicks=prompt) if isinstance(prompt, Clicks) else as_points(box=prompt)
            for prompt in prompts
        ]
        points = torch.nn.utils.rnn.pad_sequence([points for points, _ in rows], batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(
            [labels for _, labels in rows], batch_first=True, padding_value=ABSENT
        )
        labels = labels.to(self.device)
        counts = torch.tensor([len(own) for own, _ in rows], device=self.device)
        return self.network.decode_prompts(
            image,
            features,
            points=points.to(self.device),
            labels=labels,
            points_present=None if len({len(own) for own, _ in rows}) == 1 else labels != ABSENT,
            masks=earlier,
            multimask=counts <= 1,
        )

    def _remember(self, image: EncodedImage, outputs: dict[int, Output], said: set[int]) -> None:
        """Encodes all objects of the frame together, and drops what nothing will look back at."""
        ways = {
            identity: [outputs[identity]]
            if identity in said
            else self._ways.get(identity, [outputs[identity]])
            for identity in self.object_ids
        }
        rows = [(identity, output) for identity, own in ways.items() for output in own]
        memories = self.network.encode_memory(
            image,
            torch.stack([output.logits for _, output in rows]),
            torch.stack([output.object_score for _, output in rows]),
            prompted=torch.tensor([identity in said for identity, _ in rows], device=self.device),
        ).to(self.memory_dtype)
        encoded: dict[int, list[Output]] = {identity: [] for identity in ways}
        for (identity, output), memory in zip(rows, memories, strict=True):
            # nothing reads logits again, and a row of a batch would keep the batch
            encoded[identity].append(output._replace(logits=memory.new_zeros(1, 0, 0), memory=memory.clone()))
        self._ways = {}
        for identity, own in encoded.items():
            self._store(identity, own, said=identity in said)

    def _store(self, identity: int, outputs: list[Output], *, said: bool) -> None:
        """Takes over what is to be remembered of an object in this frame."""
        track = self._tracks.setdefault(identity, ObjectTrack())
        follower = None
        if self.policy is not None:
            follower = self._followers.setdefault(identity, self.policy.follow_object())
        if said:
            track.conditioning[self.frame_index] = outputs[0]
            if follower is not None:
                follower.restart()
        elif follower is not None:
            follower.remember(self.frame_index, track, outputs)
        else:
            track.tracked[self.frame_index] = outputs[0]
        self._forget_old(track, follower)

    def _paths(self, identity: int, track: ObjectTrack) -> list[ObjectTrack]:
        """What is remembered of an object: on one path, or on several under a policy."""
        return [track] if self.policy is None else self._followers[identity].paths(track)

    def _forget_old(self, track: ObjectTrack, follower: Follower | None) -> None:
        prompted = sorted(track.conditioning)
        for frame in prompted[1 : len(prompted) - self.max_prompted + 1]:
            del track.conditioning[frame]
        if follower is not None:
            follower.forget(self.frame_index, track, usual=partial(self._recall, ahead=1))
            return
        oldest_map = self.frame_index - (MAPS - 2) * self.memory_stride  # that the next frame may read
        oldest_pointer = self.frame_index + 1 - pointer_reach(None)
        for frame, output in list(track.tracked.items()):
            if frame < min(oldest_map, oldest_pointer):
                del track.tracked[frame]
            elif frame < oldest_map and output.memory is not None:
                track.tracked[frame] = output._replace(memory=None)

    def _read_prompt(self, prompt: Prompt, size: Size, working: Size, padding: Padding) -> Prompted:
        for identity, given in prompt.items() if isinstance(prompt, Mapping) else ():
            if isinstance(given, Clicks | Box):
                require_inside(given, size)
            elif isinstance(given, Tensor) and identity not in self.object_ids:
                require_object(given, identity)
        return super()._read_prompt(prompt, size, working, padding)

    def _prepare(self, frame: Tensor, working: Size, padding: Padding) -> Tensor:
        self._fit = (frame.shape[-2], frame.shape[-1]), working, padding
        if frame.dtype == torch.uint8:  # as the official code reads frames
            frame = resize_bytes(frame.to(self.device), working, kind="bicubic")
        return super()._prepare(frame, working, padding)

    def _to_frame(self, rows: Tensor, size: Size, working: Size, padding: Padding) -> Tensor:
        """Logits are enlarged; then each object's probability stands beside that of the likeliest other."""
        objects = super()._to_frame(rows, size, working, padding)[1:].sigmoid()  # (N, H, W)
        beside = torch.cat([1 - objects.amax(dim=0, keepdim=True), objects])
        return beside / beside.sum(dim=0, keepdim=True)


def _copies(tracks: dict[int, ObjectTrack]) -> dict[int, ObjectTrack]:
    """Tracks that can be changed while these stay; outputs are shared."""
    return {
        identity: replace(track, conditioning=dict(track.conditioning), tracked=dict(track.tracked))
        for identity, track in tracks.items()
    }
