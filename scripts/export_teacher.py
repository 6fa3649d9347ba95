"""The teacher's ViT of a DINO run as weights of method=dino-tiny: float16, without heads and mask token.

python scripts/export_teacher.py runs/dino_tiny/TIME/last.ckpt vosssl/weights/dino-tiny.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vosssl.backbones.weights import without_prefix
from vosssl.data.files import atomic_write
from vosssl.engine import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="last.ckpt of a run of vosssl.methods.dino")
    parser.add_argument("weights", type=Path, help="the file to write")
    arguments = parser.parse_args()
    teacher = without_prefix(checkpoint.load(arguments.checkpoint)["network"], "teacher.")
    if not teacher:
        parser.error(f"{arguments.checkpoint} holds no teacher; expected a run of vosssl.methods.dino")
    state = {name: tensor.half() for name, tensor in teacher.items() if name != "mask_token"}
    with atomic_write(arguments.weights) as path:
        torch.save(state, path)
    print(f"{arguments.weights}: {len(state)} tensors, {arguments.weights.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
