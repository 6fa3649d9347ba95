"""Trivial baselines of object discovery: what a score has to beat before it means anything.

One segment, grid blocks, k-means on colour and position, k-means on a network's own features. FG-ARI
alone rewards grids and over-segmentation; only together with ARI and mBO do these floors show what a
method adds.

Each is a function from a video to its frames with labels (as `evaluate_discovery` takes it); those that
need no look ahead are VideoSegmenters, too. No pixel is left out: labels are 1..K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vosssl.clip import Frame
from vosssl.data.video import Video
from vosssl.layers.slot_network import Encoded
from vosssl.ops.images import as_float
from vosssl.ops.kmeans import kmeans, nearest_centre
from vosssl.ops.masks import strongest
from vosssl.ops.resize import Size, resize_image, resize_labels, resize_masks
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

LabelVideo = Callable[[Video], Iterator[tuple[Frame, Tensor]]]
Encode = Callable[[Tensor], Encoded]

FIT_FRAMES = 24  # evenly spaced frames that k-means is fitted on; all frames are then assigned


def grid_labels(size: Size, *, rows: int, columns: int) -> Tensor:
    """Blocks of equal size.

    Args:
        size: (H, W).
        rows: blocks from top to bottom.
        columns: blocks from left to right.

    Returns:
        (H, W) uint8, 1 .. rows * columns in reading order.
    """
    blocks = torch.arange(1, rows * columns + 1, dtype=torch.uint8).view(rows, columns)
    return resize_labels(blocks, size)


def grid_floor(*, rows: int, columns: int) -> LabelVideo:
    """The same grid in every frame; 1 x 1 is one segment.

    Args:
        rows: blocks from top to bottom.
        columns: blocks from left to right.

    Returns:
        A function from a video to its frames with labels.
    """

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        for frame in video:
            yield frame, grid_labels(_size(frame.image), rows=rows, columns=columns)

    return label


def colour_positions(frames: Tensor, *, position_weight: float) -> Tensor:
    """Colour and position of every pixel.

    Args:
        frames: (T, 3, H, W) uint8 or float in [0, 1].
        position_weight: length of the longer side, where colours go from 0 to 1.

    Returns:
        (T, H * W, 5) float.
    """
    colours = as_float(frames)
    height, width = frames.shape[-2:]
    scale = position_weight / max(height, width)
    y, x = torch.meshgrid(torch.arange(height) * scale, torch.arange(width) * scale, indexing="ij")
    places = torch.stack([y, x]).to(colours).expand(len(colours), 2, height, width)
    return torch.cat([colours, places], dim=1).flatten(2).transpose(1, 2)  # (T, 5, H, W) -> (T, H * W, 5)


def colour_kmeans_floor(
    *, clusters: int, position_weight: float = 0.25, size: int = 64, seed: int = 0
) -> LabelVideo:
    """k-means on colour and position, joint over frames, so that a cluster keeps its identity.

    Args:
        clusters: K.
        position_weight: see `colour_positions`.
        size: frames are clustered at this shorter side, at most.
        seed: of the start.

    Returns:
        A function from a video to its frames with labels.
    """

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        frames = video.clip(_spaced(len(video)), size=size).frames
        points = colour_positions(frames, position_weight=position_weight)
        centres = kmeans(points.flatten(0, 1)[None], clusters, seed=seed)  # (T, P, 5) -> (1, T * P, 5)
        small = _size(frames)
        for frame in video:
            image = resize_image(as_float(frame.image)[None], small)
            assigned = nearest_centre(colour_positions(image, position_weight=position_weight), centres)
            yield frame, _upsample(assigned[0].view(small), clusters, _size(frame.image))

    return label


def feature_kmeans_floor(
    encode: Encode,
    *,
    clusters: int,
    position_weight: float = 0.0,
    size: int | Size | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> LabelVideo:
    """k-means on a network's target features, joint over frames: what the slots add to their own features.

    Args:
        encode: (N, 3, H, W) frames in [0, 1] to `Encoded`; a slot network's `encode`.
        clusters: K.
        position_weight: of (y, x) in [0, 1], in units of the features' standard deviation.
        size: of the frames that are encoded; None for the video's own.
        device: where `encode` works.
        seed: of the start.

    Returns:
        A function from a video to its frames with labels.
    """

    def features(images: Tensor) -> tuple[Tensor, Size]:
        with torch.inference_mode():
            parts = [encode(as_float(image[None].to(device))) for image in images]
        grid = parts[0].grid
        return torch.cat([part.features for part in parts]).float().cpu(), grid

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        clip = video.clip(_spaced(len(video)), size=size)
        patches, grid = features(clip.frames)  # (T, P, C)
        mean, spread = patches.mean(), patches.std().clamp(min=1e-6)
        places = _grid_places(grid).to(patches) * position_weight
        points = torch.cat([(patches - mean) / spread, places.expand(len(patches), -1, -1)], dim=-1)
        centres = kmeans(points.flatten(0, 1)[None], clusters, seed=seed)
        small = _size(clip.frames)
        for frame in video:
            image = frame.image
            if tuple(image.shape[1:]) != small:
                image = (resize_image(image[None].float(), small)[0]).round().byte()
            patches = (features(image[None])[0] - mean) / spread
            assigned = nearest_centre(torch.cat([patches, places[None]], dim=-1), centres)
            yield frame, _upsample(assigned[0].view(grid), clusters, _size(frame.image))

    return label


def default_floors(
    *,
    clusters: int,
    encode: Encode | None = None,
    size: int | Size | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, LabelVideo]:
    """The floors of the comparison table.

    Args:
        clusters: K of k-means: the number of slots of the method they stand beside.
        encode: the method's own, for k-means on its features; None leaves that row out.
        size: of the frames that are encoded; None for the video's own.
        device: where `encode` works.

    Returns:
        By the name of their row.
    """
    floors = {
        "one segment": grid_floor(rows=1, columns=1),
        "grid 2x3": grid_floor(rows=2, columns=3),
        "grid 3x3": grid_floor(rows=3, columns=3),
        "grid 4x4": grid_floor(rows=4, columns=4),
        "k-means colour + .25 xy": colour_kmeans_floor(clusters=clusters, position_weight=0.25),
        "k-means colour + 1 xy": colour_kmeans_floor(clusters=clusters, position_weight=1.0),
    }
    if encode is not None:
        floors["k-means own features"] = feature_kmeans_floor(
            encode, clusters=clusters, size=size, device=device
        )
    return floors


class GridSegmenter(VideoSegmenter):
    """The same grid in every frame, as a segmenter; 1 x 1 is one segment.

    Args:
        rows: blocks from top to bottom.
        columns: blocks from left to right.
        device: where the blocks are made.
    """

    discovers = True
    prompt_kinds = ()

    def __init__(self, *, rows: int = 1, columns: int = 1, device: torch.device | str = "cpu") -> None:
        super().__init__(device=device)
        self.rows = rows
        self.columns = columns

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        labels = grid_labels(_size(frame), rows=self.rows, columns=self.columns)
        self.object_ids = tuple(range(1, self.rows * self.columns + 1))
        return _one_hot(labels.long().to(self.device), len(self.object_ids) + 1)


class ColourKMeansSegmenter(VideoSegmenter):
    """k-means on colour and position, online: fitted on the first frame, then a few updates in each.

    Args:
        clusters: K.
        position_weight: see `colour_positions`.
        updates: Lloyd iterations in every frame after the first, from the frame before.
        size: frames are clustered at this shorter side, at most.
        seed: of the start.
        device: where it works.
    """

    discovers = True
    prompt_kinds = ()

    def __init__(
        self,
        *,
        clusters: int = 7,
        position_weight: float = 0.25,
        updates: int = 2,
        size: int | None = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(size=size, device=device)
        self.clusters = clusters
        self.position_weight = position_weight
        self.updates = updates
        self.seed = seed
        self.forget()

    def forget(self) -> None:
        self._centres: Tensor | None = None

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        points = colour_positions(frame[None], position_weight=self.position_weight)  # (1, P, 5)
        if self._centres is None:
            self._centres = kmeans(points, self.clusters, seed=self.seed)
        else:
            self._centres = kmeans(points, self.clusters, start=self._centres, iterations=self.updates)
        self.object_ids = tuple(range(1, self.clusters + 1))
        assigned = nearest_centre(points, self._centres)[0].view(frame.shape[1:])
        return _one_hot(assigned + 1, self.clusters + 1)


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]


def _spaced(length: int) -> list[int]:
    """At most FIT_FRAMES indices, evenly spaced."""
    count = min(length, FIT_FRAMES)
    return [round(place * (length - 1) / max(count - 1, 1)) for place in range(count)]


def _grid_places(grid: Size) -> Tensor:
    """(h * w, 2) row and column of each patch in [0, 1]."""
    rows, columns = torch.linspace(0, 1, grid[0]), torch.linspace(0, 1, grid[1])
    return torch.cartesian_prod(rows, columns)


def _one_hot(labels: Tensor, count: int) -> Tensor:
    """(h, w) int64 to (count, h, w) float."""
    return torch.nn.functional.one_hot(labels, count).permute(2, 0, 1).float()


def _upsample(assigned: Tensor, clusters: int, size: Size) -> Tensor:
    """(h, w) clusters to (H, W) uint8 labels 1..K, by bilinear masks as for slots."""
    return strongest(resize_masks(_one_hot(assigned, clusters), size), range(1, clusters + 1))
