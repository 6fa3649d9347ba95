"""Exports a model, runs its graphs in ONNX Runtime, and says how far they are from PyTorch, and how fast.

python scripts/demo_export.py video.mp4 --mask first_mask.png
python scripts/demo_export.py video.mp4 --model vit-seg-tiny --weights RUN/last.ckpt --also int8,fp16

The first needs nothing but `pip install 'vosssl[export]'`. Models that discover objects need no mask.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vosssl
from vosssl.__main__ import main as run_command
from vosssl.clip import Clip
from vosssl.data.io import read_labels
from vosssl.engine.parity import agreement, followed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", help="a video file or a folder of frames")
    parser.add_argument("--mask", type=Path, help="label PNG of the first frame")
    parser.add_argument("--model", default="motion-features-propagation", help="see vosssl.list_models()")
    parser.add_argument("--weights", help="a known name or a file; default: what comes with the model")
    parser.add_argument("--also", default="", help="further precisions: int8,int8-static,fp16")
    parser.add_argument("--out", type=Path, default=Path("graphs"))
    arguments = parser.parse_args()
    video = vosssl.load_clip(arguments.source, annotations=None)
    height, width = video.frames.shape[-2:]
    command = ["mode=export", f"method={arguments.model}", "device=cpu"]  # as python -m vosssl takes it
    command += [f"export.folder={arguments.out}", f"export.frames=[[{height},{width}]]", "export.objects=[2]"]
    command += [f"export.also=[{arguments.also}]"]
    command += [f"weights={arguments.weights}"] if arguments.weights else []
    if status := run_command(command):
        raise SystemExit(status)

    labels = None if arguments.mask is None else read_labels(arguments.mask).expand(len(video.frames), -1, -1)
    video = Clip(name=video.name, frames=video.frames, labels=labels)
    segmenter = vosssl.create_segmenter(arguments.model, weights=arguments.weights, device="cpu")
    first = followed(segmenter, video)
    print(f"PyTorch: {1 / sorted(first.seconds)[len(first.seconds) // 2]:.1f} frames per second")
    for folder in [arguments.out, *(arguments.out / name for name in arguments.also.split(",") if name)]:
        other = followed(vosssl.create_segmenter("exported", weights=folder, device="cpu"), video)
        found, speed = agreement(first, other), 1 / sorted(other.seconds)[len(other.seconds) // 2]
        print(f"{folder}: {speed:.1f} frames per second, J&F with PyTorch's masks {found.j_and_f:.4f},")
        print(f"    equal labels {found.equal:.4f}, largest difference {found.difference:.1e}")


if __name__ == "__main__":
    main()
