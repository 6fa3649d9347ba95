"""How fast clips are generated, beside how fast the embedded recipe consumes them: both in one process.

python scripts/bench_synthetic.py [--threads 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from vosssl.clip import collate
from vosssl.data.synthetic import SyntheticClips
from vosssl.methods.slots import Objective, Slots

BATCH = 12  # clips a step of cfg/hparam/slots.yaml


def median_rate(work: Callable[[], object], clips: int, rounds: int) -> float:
    """Clips per second, the median of several rounds after one that warms up."""
    work()
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        rates.append(clips / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    short, long = SyntheticClips(frames=3), SyntheticClips(frames=8)
    network, objective = Slots(), Objective()
    optimizer = torch.optim.Adam(network.parameters())
    batch = collate(short.__getitems__(list(range(BATCH))), seeds=list(range(BATCH)))

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(objective(network, batch, 0).values())).sum().backward()
        optimizer.step()

    rows = [
        ("generated, 8 frames of 64x64", lambda: long.__getitems__(list(range(64))), 64),
        ("generated, 3 frames of 64x64", lambda: short.__getitems__(list(range(64))), 64),
        ("trained on, 3 frames of 64x64", step, BATCH),
    ]
    for name, work, clips in rows:
        print(f"{name:32s}{median_rate(work, clips, options.rounds):8.1f} clips/s")


if __name__ == "__main__":
    main()
