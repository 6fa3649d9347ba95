"""What SAM 2 learns from, and which of its parts do: training on clips with simulated prompts.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.2, and the official
training program (facebookresearch/sam2, training/, sam2.1_training), whose numbers are the defaults.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vosssl.clip import VOID, Batch
from vosssl.data.prompt_simulation import PromptPlan, PromptRule, checked_rule, draw_plan
from vosssl.layers.lora import add_low_rank
from vosssl.losses.prompted_masks import PromptLosses, prompt_losses
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.unroll import NUMBERS, ClipFollower, Rows, Step
from vosssl.ops.images import as_float
from vosssl.ops.noise import mix, uniform
from vosssl.ops.resize import resize_image, resize_masks

Trains = Literal["decoder", "memory", "lora", "all"]
DECODER = r"^sam_(mask_decoder|prompt_encoder)\."
MEMORY = r"^(memory_|maskmem_|mask_downsample|obj_ptr_|no_obj_|no_mem_embed)"
LOW_RANK_LAYERS = r"^image_encoder\.trunk\.blocks\.\d+\.attn\.(qkv|proj)$"
UNUSED = "no_mem_pos_enc"  # in the checkpoints, used by nothing


def choose_trained(
    network: SAM2, trains: Trains, *, lora_rank: int = 8, lora_alpha: float = 16.0
) -> list[str]:
    """Leaves only some parameters to learn; changes the network in place.

    Args:
        network: with the weights that training starts from.
        trains: `decoder`: mask decoder and prompt encoder; `memory`: these, and all that memories are made
            and read with; `lora`: mask decoder and prompt encoder, and low-rank changes of the image
            encoder's attention; `all`: everything.
        lora_rank, lora_alpha: see `LowRankLinear`.

    Returns:
        Names of the parameters that learn.

    Raises:
        ValueError: another word.
    """
    patterns = {"decoder": DECODER, "memory": f"{DECODER}|{MEMORY}", "lora": DECODER, "all": ""}
    if trains not in patterns:
        raise ValueError(f"trains is {trains!r}, expected one of {', '.join(patterns)}")
    for name, weight in network.named_parameters():
        weight.requires_grad_(name != UNUSED and re.search(patterns[trains], name) is not None)
    if trains == "lora":
        add_low_rank(network, LOW_RANK_LAYERS, rank=lora_rank, alpha=lora_alpha)
    return [name for name, weight in network.named_parameters() if weight.requires_grad]


class Objective:
    """Focal loss, Dice, predicted IoU and object score of every mask that is decoded in clips.

    Losses are summed over frames and clicks, and averaged over the objects of each clip and over clips.
    Everything random follows from the samples' seeds. Deviations from the official program: prompts are drawn
    for each clip instead of each batch; masks of objects that the network believes absent learn, too; void
    pixels count nowhere.

    Args:
        trains, lora_rank, lora_alpha: see `choose_trained`.
        image_size: side of the square that frames are stretched to, as at inference; None: they stay as they
            are. Labels do, and losses are of their size.
        max_objects: the most that a clip has; where data do not choose objects for training, so many of
            those in its first frame are taken.
        mask_probability, box_probability, prompted_frames, corrected_frames, corrections, from_truth: see
            `PromptRule`.
        focal_weight, dice_weight, iou_weight, object_score_weight: of the terms.
        alpha, gamma: of the focal loss; 0.5 and 0 are half the cross-entropy.
        shared: part of focal loss and Dice that all candidates of a mask learn from, see `prompt_losses`.
        apart_until: for so many steps each frame is a clip of its own, for networks that start from scratch:
            clicks and boxes are understood before anything is followed.
        checkpointing: compute activations again instead of keeping them: less memory, more time.

    Raises:
        ValueError: arguments out of range.
    """

    leaves_weights_unused = True  # a clip that is given masks uses no embedding of clicks, for one

    def __init__(
        self,
        *,
        trains: Trains = "decoder",
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        image_size: int | None = None,
        max_objects: int = 3,
        mask_probability: float = 0.5,
        box_probability: float = 0.5,
        prompted_frames: int = 2,
        corrected_frames: int = 2,
        corrections: int = 7,
        from_truth: float = 0.1,
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        iou_weight: float = 1.0,
        object_score_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        shared: float = 0.0,
        apart_until: int = 0,
        checkpointing: bool = False,
    ) -> None:
        if max_objects < 1 or (image_size is not None and (image_size < 32 or image_size % 32)):
            raise ValueError(
                f"max_objects is {max_objects} and image_size {image_size}, expected 1 or more, and a "
                "multiple of 32 pixels"
            )
        self.trains: Trains = trains
        self.lora_rank, self.lora_alpha = lora_rank, lora_alpha
        self.image_size = image_size
        self.max_objects = max_objects
        self.rule = checked_rule(
            PromptRule(
                mask_probability, box_probability, prompted_frames, corrected_frames, corrections, from_truth
            )
        )
        self.weights = PromptLosses(focal_weight, dice_weight, iou_weight, object_score_weight)  # type: ignore[arg-type]
        if not (0 <= alpha <= 1 and gamma >= 0 and 0 <= shared <= 1):
            raise ValueError(
                f"alpha is {alpha}, gamma {gamma} and shared {shared}, expected shares in [0, 1], gamma >= 0"
            )
        self.alpha, self.gamma, self.shared = alpha, gamma, shared
        self.apart_until = apart_until
        self.checkpointing = checkpointing

    def prepare(self, network: nn.Module) -> None:
        """Chooses what learns, before the optimizer is made.

        Raises:
            ValueError: another network.
        """
        if not isinstance(network, SAM2):
            raise ValueError(f"the network is a {type(network).__name__}, expected a SAM2")
        choose_trained(network, self.trains, lora_rank=self.lora_rank, lora_alpha=self.lora_alpha)

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted terms, means over clips.

        Raises:
            ValueError: clips without labels or objects, or of sides that are no multiple of 32 pixels.
        """
        if batch.labels is None:
            raise ValueError(
                "SAM 2 learns from clips with labels; choose data with masks, as data=vos_folder"
            )
        if self.image_size is None and any(side % 32 for side in batch.frames.shape[-2:]):
            raise ValueError(
                f"frames are {tuple(batch.frames.shape)} (B, T, 3, H, W), expected sides that are multiples "
                "of 32 pixels: set data.size, or method.objective.image_size"
            )
        if step < self.apart_until and type(batch.frames) is Tensor:  # a forecast of memory has no content,
            batch = _apart(batch)  # and whole clips took more (1.13 GB, frames apart 1.04)
        terms: dict[str, Tensor] = network(partial(self.losses, batch=batch))
        return terms

    def heaviest(self, batch: Batch) -> Batch:
        """A batch of the same shape with as many objects and as many clicks as there can be."""
        frames = batch.frames.shape[1]
        most = max(range(200), key=lambda seed: _decodings(draw_plan(self.rule, frames, seed=seed)))
        counts = torch.full((len(batch),), self.max_objects)
        return replace(batch, num_objects=counts, seeds=torch.full((len(batch),), most))

    def losses(self, network: SAM2, batch: Batch) -> dict[str, Tensor]:
        """Follows the clips of a batch, and adds up what there is to learn."""
        assert batch.labels is not None
        rows, counts = self.rows_of(batch)
        shares = torch.tensor([1 / (count * len(counts)) for count in counts for _ in range(count)])
        shares = shares.to(batch.labels.device)
        known = batch.labels != VOID  # (B, T, H, W)
        images = as_float(batch.frames)
        if self.image_size is not None:
            square = (self.image_size, self.image_size)
            images = resize_image(images.flatten(0, 1), square).unflatten(0, images.shape[:2])
        follower = ClipFollower(network, images, rows, checkpointing=self.checkpointing)
        totals = [torch.zeros((), device=shares.device) for _ in PromptLosses._fields]
        for step in follower.follow():
            found = follower.recomputed(self._step_losses, step, rows, known)
            totals = [
                total + (loss * shares[step.rows]).sum() for total, loss in zip(totals, found, strict=True)
            ]
        return {
            name: weight * total
            for name, weight, total in zip(PromptLosses._fields, self.weights, totals, strict=True)
        }

    def _step_losses(self, step: Step, rows: Rows, known: Tensor) -> PromptLosses:
        """Of one step, at the size of the labels and in float32."""
        truth = rows.truth[step.rows, step.frames]
        clips = torch.tensor(rows.clips)
        known = known[clips[step.rows], step.frames]
        with torch.autocast(truth.device.type, enabled=False):
            return prompt_losses(
                resize_masks(step.masks.float(), (truth.shape[-2], truth.shape[-1])),
                step.quality.float(),
                step.object_score.float(),
                truth,
                known=known,
                focal_weight=float(self.weights.focal),
                dice_weight=float(self.weights.dice),
                alpha=self.alpha,
                gamma=self.gamma,
                shared=self.shared,
            )

    def rows_of(self, batch: Batch) -> tuple[Rows, list[int]]:
        """The objects of a batch with what is said about them, and how many each clip has.

        Raises:
            ValueError: a clip without objects in its first frame.
        """
        assert batch.labels is not None
        ids = self._objects(batch)
        seeds = batch.seeds.tolist() if len(batch.seeds) else list(range(len(batch)))
        truth, clips, plans, keys = [], [], [], []
        for clip, (own, seed) in enumerate(zip(ids, seeds, strict=True)):
            plan = draw_plan(self.rule, batch.frames.shape[1], seed=seed)
            for number in own:
                truth.append(batch.labels[clip] == number)
                clips.append(clip)
                plans.append(plan)
                keys.append(seed + number)
        length, clicks = batch.frames.shape[1], 1 + self.rule.corrections
        numbers = uniform(mix(torch.tensor(keys)), length * clicks * NUMBERS)
        draws = numbers.unflatten(1, (length, clicks, NUMBERS)).to(batch.labels.device)
        rows = Rows(clips, torch.stack(truth), plans, draws, self.rule)
        return rows, [len(own) for own in ids]

    def _objects(self, batch: Batch) -> list[list[int]]:
        """Ids of each clip: all where they were chosen for training, else the largest of the first frame."""
        assert batch.labels is not None
        if batch.num_objects is not None:
            return [list(range(1, count + 1)) for count in batch.num_objects.tolist()]
        chosen = []
        for name, labels in zip(batch.names, batch.labels[:, 0], strict=True):
            areas = labels.flatten().bincount(minlength=256)
            areas[0] = areas[VOID] = 0
            ids = [number for number in areas.argsort(descending=True).tolist() if areas[number] > 0]
            if not ids:
                raise ValueError(f"the first frame of clip {name} shows no object; use data=vos_folder")
            chosen.append(sorted(ids[: self.max_objects]))
        return chosen


def _apart(batch: Batch) -> Batch:
    """Each frame as a clip of its own, with its own prompts."""
    assert batch.labels is not None
    clips, frames = batch.frames.shape[:2]
    seeds = batch.seeds if len(batch.seeds) else torch.arange(clips)
    counts = batch.num_objects
    return replace(
        batch,
        frames=batch.frames.flatten(0, 1)[:, None],
        labels=batch.labels.flatten(0, 1)[:, None],
        names=tuple(name for name in batch.names for _ in range(frames)),
        flow=None,
        features={},
        num_objects=None if counts is None else counts.repeat_interleave(frames),
        seeds=mix(seeds[:, None] * frames + torch.arange(frames, device=seeds.device)).flatten() >> 1,
    )


def _decodings(plan: PromptPlan) -> tuple[int, int]:
    """How much a plan asks for: frames with clicks, then frames that begin with one."""
    return len(plan.corrected), len(plan.first) if plan.corrected else 0
