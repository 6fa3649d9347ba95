"""What a ViT's patches look like: the three main directions of its features as red, green and blue.

python scripts/feature_picture.py docs/dino-tiny.png

Rows: frames of a generated clip that was held out, the shipped features on them, and those of the same
network untrained. One basis for all frames of a row: what keeps its colour is matched over time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import vosssl
from vosssl.data.io import write_image
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine.drawing import tile
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float


@torch.inference_mode()
def main_directions(network: nn.Module, frames: Tensor, *, patch_size: int) -> Tensor:
    """(T, 3, h, w) uint8: features of frames (T, 3, H, W) uint8 along their three main directions."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    features = network((as_float(frames) - mean) / std).patches  # (T, h*w, D)
    features = torch.nn.functional.normalize(features, dim=-1)
    centred = features - features.mean((0, 1))
    basis = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False).Vh[:3]
    places = centred @ basis.T  # (T, h*w, 3)
    low, high = (torch.quantile(places.flatten(0, 1), share, dim=0) for share in (0.01, 0.99))
    colours = ((places - low) / (high - low)).clamp(0, 1) * 255
    grid = (frames.shape[2] // patch_size, frames.shape[3] // patch_size)
    return colours.round().byte().transpose(1, 2).unflatten(2, grid)  # -> (T, 3, h, w)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--clip", type=int, default=0, help="which held-out clip")
    parser.add_argument("--size", type=int, default=192, help="its side in pixels")
    parser.add_argument("--columns", type=int, default=4, help="frames of it, every other")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    columns, size = arguments.columns, arguments.size
    clips = SyntheticClips(size=size, frames=2 * columns, split="val", flow=False)
    frames = clips[arguments.clip].frames[::2]
    networks = [vosssl.create_model("dino-tiny", weights=weights).eval() for weights in ("dino-tiny", None)]
    pictures = [main_directions(network, frames, patch_size=8) for network in networks]
    enlarged = [picture.repeat_interleave(8, -1).repeat_interleave(8, -2) for picture in pictures]
    write_image(arguments.picture, tile([frames, *enlarged]))
    print(f"{arguments.picture}: {arguments.picture.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
