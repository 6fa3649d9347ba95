"""Contrastive random walk (CRW): features that follow things, learned from walks through video and back.

Patches of a few frames are nodes of a graph. Whoever walks along similar patches to the last frame and back
shall arrive at the patch of the start. What was learned follows given masks by label propagation, with the
map before the last stage.

Source: Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.backbones.resnet import Border, ResNet, resnet18
from vosssl.clip import Batch
from vosssl.losses.random_walk import WalkLoss, random_walk_loss
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.noise import mix, uniform
from vosssl.ops.patch_grid import cut_patches, grid_boxes
from vosssl.ops.resize import Size
from vosssl.propagation.label_propagation import LabelPropagation, Precision, crw_propagation

STAGES_AT_TEST = 3  # masks are followed with the map of layer3, where there is one
_EDGES = 0x6564676573  # keeps the random numbers of dropped edges apart from those of patches


class Encoder(nn.Module):
    """Holds the residual network under the name that the official checkpoint has for it."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to (N, C, h, w)."""
        return self.model(images)


class CRW(nn.Module):
    """The network that is trained: patches to nodes of the graph.

    Args:
        width: channels of the first stage; the official network's is 64.
        dim: D of the nodes.
        first_stride: of the first convolution.
        first_side: of its kernel; 3 instead of 7 for small frames, as `blocks`.
        pool: whether the max-pooling after it is there; with it the map has stride 8, else 4.
        stages: of the network; 3 train the map of layer3 without layer4, for a quarter of the time, and 2
            that of layer2, which then is what follows masks.
        blocks: of every stage; 1 halves how far a place of the map sees, for small frames.
        border: what convolutions see outside a patch.

    Source: the authors' program: ResNet-18 with strides of 1 in layer3 and layer4, reflected borders.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        dim: int = 128,
        first_stride: int = 2,
        first_side: int = 7,
        pool: bool = True,
        stages: Literal[2, 3, 4] = 4,
        blocks: int = 2,
        border: Border = "reflect",
    ) -> None:
        super().__init__()
        self.width, self.blocks, self.stages = width, blocks, stages
        self.first_stride, self.first_side = first_stride, first_side
        self.pool, self.border = pool, border
        self.encoder = Encoder(self._network(stages=stages))
        self.selfsim_fc = nn.Sequential(nn.Linear(self.encoder.model.channels, dim))

    def _network(self, *, stages: int) -> ResNet:
        return resnet18(
            strides=(1, 2, 1, 1),
            stages=stages,
            blocks=self.blocks,
            width=self.width,
            first_stride=self.first_stride,
            first_side=self.first_side,
            pool=self.pool,
            border=self.border,
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Nodes of patches; of a single whole image every place of its map is a node.

        Args:
            patches: (B, T, N, 3, h, w), normalised.

        Returns:
            (B, D, T, N) of unit length over D; for N = 1, N becomes the number of places.
        """
        clips, frames, count = patches.shape[:3]
        maps = self.encoder(patches.flatten(0, 2))  # (B*T*N, C, h', w')
        if count == 1:
            pooled = maps.flatten(2).transpose(1, 2).unflatten(0, (clips, frames))  # (B, T, h'*w', C)
        else:
            pooled = maps.mean(dim=(2, 3)).unflatten(0, (clips, frames, count))  # (B, T, N, C)
        return F.normalize(self.selfsim_fc(pooled), dim=-1).permute(0, 3, 1, 2)  # -> (B, D, T, N)

    def for_test(self) -> CRWFeatures:
        """The network that follows masks: without layer4 and head, on the same weights, not copied."""
        features = CRWFeatures(self._network(stages=min(self.stages, STAGES_AT_TEST)))
        own = self.encoder.model
        for name, part in own.named_children():
            if name in dict(features.encoder.model.named_children()):
                features.encoder.model.add_module(name, part)
        return features.train(self.training)


class CRWFeatures(nn.Module):
    """The network at test: images to the map of layer3, (N, 3, H, W) normalised to (N, C, h, w)."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.encoder = Encoder(model)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w), not of unit length."""
        return self.encoder(images)


class Objective:
    """The walk loss on patches that are cut from the batch's frames.

    Args:
        side: patches along each side of a frame; 7 are 49 nodes.
        patch: side of a patch as a share of the frame's.
        size: pixels of a patch's side, as the network sees it.
        temperature: of the walk. The program's number is .05, and .07 with `flip`.
        edge_dropout: share of edges that cannot be taken, drawn anew for the way home.
        shortest: steps out of the shortest walk.
        frame_scale: area of the crop of each frame, drawn for every frame; None: no crop.
        patch_scale: area of the crop of each patch; None: no crop.
        mean: of RGB in [0, 1], subtracted. The program trains with CIFAR-10's and tests with ImageNet's.
        std: divides then.
        flip: a bug of the first version, see `losses.random_walk.palindromes`.
        drop_in_evaluation: drop edges also while the network is in evaluation mode, a bug of the program:
            validation losses then are those of a thinned graph.
        drops_add_up: edges dropped on the way out stay dropped on the way home, besides those drawn for it:
            what the program does, since it writes the dropped affinities in place.

    Raises:
        ValueError: a rate outside [0, 1), or fewer than two patches a side.
    """

    def __init__(
        self,
        *,
        side: int = 7,
        patch: float = 0.25,
        size: int = 64,
        temperature: float = 0.05,
        edge_dropout: float = 0.1,
        shortest: int = 2,
        frame_scale: Sequence[float] | None = (0.8, 0.95),
        patch_scale: Sequence[float] | None = (0.7, 0.9),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        flip: bool = False,
        drop_in_evaluation: bool = False,
        drops_add_up: bool = False,
    ) -> None:
        if not 0 <= edge_dropout < 1 or side < 2:
            raise ValueError(
                f"edge_dropout is {edge_dropout} and side is {side}, expected a rate in [0, 1) and 2 or more"
            )
        self.side, self.patch, self.size = side, patch, size
        self.temperature, self.edge_dropout = temperature, edge_dropout
        self.shortest, self.flip = shortest, flip
        self.frame_scale, self.patch_scale = frame_scale, patch_scale
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]
        self.drop_in_evaluation = drop_in_evaluation
        self.drops_add_up = drops_add_up

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Each cycle's share of the mean loss, by its steps there and back."""
        walk = self.walk(network, batch)
        shares = walk.cross_entropy / len(walk.cross_entropy)
        return {f"cycle_{2 * (self.shortest + number)}": share for number, share in enumerate(shares)}

    def walk(self, network: nn.Module, batch: Batch) -> WalkLoss:
        """The loss of a batch with its accuracies."""
        seeds = batch.seeds if len(batch.seeds) else torch.arange(len(batch))
        nodes = network(self.patches(batch.frames, seeds))  # (B, D, T, N)
        dropped = self.dropped(seeds, nodes) if network.training or self.drop_in_evaluation else None
        with torch.autocast(nodes.device.type, enabled=False):  # products of probabilities, in full precision
            return random_walk_loss(
                nodes.float(),
                temperature=self.temperature,
                dropped=dropped,
                shortest=self.shortest,
                flip=self.flip,
            )

    def patches(self, frames: Tensor, seeds: Tensor) -> Tensor:
        """(B, T, N, 3, h, w) normalised patches of (B, T, 3, H, W) frames."""
        boxes = grid_boxes(
            mix(seeds.cpu()),
            frames.shape[1],
            side=self.side,
            patch=self.patch,
            aspect=frames.shape[-1] / frames.shape[-2],
            frame_scale=self.frame_scale,
            patch_scale=self.patch_scale,
        )
        patches = cut_patches(as_float(frames), boxes, size=self.size)
        return (patches - self.mean.to(patches)) / self.std.to(patches)

    def dropped(self, seeds: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor] | None:
        """Edges that cannot be taken on the way out and home, (B, T - 1, N, N) bool each."""
        if self.edge_dropout == 0:
            return None
        clips, _, frames, count = nodes.shape
        shape = (2, frames - 1, count, count)
        numbers = uniform(mix(seeds.cpu() ^ _EDGES), 2 * (frames - 1) * count**2)
        drawn = (numbers < self.edge_dropout).view(clips, *shape).to(nodes.device)
        there, home = drawn.unbind(1)
        return there, home | there.transpose(-2, -1) if self.drops_add_up else home


def crw_segmenter(
    network: CRW,
    *,
    context: int = 20,
    top_k: int = 10,
    temperature: float = 0.05,
    radius: float = 12,
    size: int | Size | None = None,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> LabelPropagation:
    """Follows masks with the map of layer3, by CRW's official settings.

    Args:
        network: the trained one; layer4 and the head are left out.
        context, top_k, temperature, radius, size, precision, device: see `crw_propagation`. The published
            number is that of full resolution, size None; the program's default is 320.

    Returns:
        The segmenter.
    """
    return crw_propagation(
        network.for_test(),
        context=context,
        top_k=top_k,
        temperature=temperature,
        radius=radius,
        size=size,
        precision=precision,
        device=device,
    )
