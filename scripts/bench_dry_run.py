"""Foreseen against measured peak memory of training steps of SAM 2.1 tiny, three settings, a process each.

    python scripts/bench_dry_run.py
    python scripts/bench_dry_run.py --size 512 --device cuda

On a CPU the measured number is the largest resident size of the process, on CUDA what the allocator gave.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch

from vosssl.data.sampling import ClipLoader
from vosssl.data.synthetic import SyntheticClips
from vosssl.data.targets import TargetClips
from vosssl.engine.logs import peak_memory
from vosssl.engine.memory_forecast import GB, forecast_memory
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.training import Objective, Trains

SETTINGS: dict[str, tuple[Trains, bool]] = {  # what trains, and whether activations are computed again
    "decoder": ("decoder", False),
    "all": ("all", False),
    "all, checkpointing": ("all", True),
}


def measure(setting: str, what: str, *, size: int, frames: int, device: str) -> float:
    """Foresees or measures one setting in this process.

    Args:
        setting: a key of SETTINGS.
        what: `foreseen` or `measured`.
        size: side of the frames in pixels.
        frames: of a clip.
        device: where.

    Returns:
        GB.
    """
    trains, checkpointing = SETTINGS[setting]
    source = SyntheticClips(split="train", size=64, frames=8, count=100, flow=False)
    clips = TargetClips(source, num_frames=frames, max_objects=2)
    batch = next(ClipLoader(clips, batch_size=1).batches())
    network = SAM2().to(device)
    objective = Objective(
        trains=trains, checkpointing=checkpointing, image_size=size, max_objects=2, corrections=2
    )
    objective.prepare(network)
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-5)
    if what == "foreseen":
        return forecast_memory(network, objective, batch, optimizer).total / GB
    heaviest = objective.heaviest(batch).to(device)
    network.train()
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack(list(objective(network, heaviest, 0).values())).sum().backward()
        optimizer.step()
    return peak_memory(torch.device(device)) / GB


def main() -> None:
    """Prints the table, or one number of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--setting", choices=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=("foreseen", "measured"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    common = {"size": chosen.size, "frames": chosen.frames, "device": chosen.device}
    if chosen.setting:
        print(measure(chosen.setting, chosen.what, **common))
        return
    options = [f"--{name}={value}" for name, value in common.items()]
    print(f"{'trains':<20} {'foreseen':>9} {'measured':>9} {'off by':>7}   GB")
    for setting in SETTINGS:
        command = [sys.executable, __file__, *options, f"--setting={setting}"]
        foreseen, measured = (
            float(subprocess.run([*command, f"--what={what}"], check=True, capture_output=True).stdout)
            for what in ("foreseen", "measured")
        )
        print(f"{setting:<20} {foreseen:9.2f} {measured:9.2f} {foreseen / measured - 1:+7.1%}", flush=True)


if __name__ == "__main__":
    main()
