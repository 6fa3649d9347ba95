"""A small training run as a program, for tests that kill it or start several of it.

Usage: python training_run.py RUN_DIR [--steps N] [--resume] [--pause SECONDS] [--accumulate N] [--random]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.engine.distributed import World, process_group
from vosssl.engine.interrupt import TrainingStoppedError
from vosssl.engine.rng import seed_everything
from vosssl.engine.schedule import WarmupCosine
from vosssl.engine.trainer import Trainer
from vosssl.ops.noise import sample_noise


class StepLoader:
    """Batches of noise, each a function of its step; rank r gets rows r::world."""

    def __init__(self, *, batch_size: int = 8, rank: int = 0, world: int = 1) -> None:
        self.batch_size = batch_size
        self.rows = slice(rank, None, world)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        step = start_step
        while True:
            generator = torch.Generator().manual_seed(step)
            frames = torch.rand(self.batch_size, 2, 3, 4, 4, generator=generator)  # (B, T, 3, H, W)
            names = tuple(f"clip{step * self.batch_size + row}" for row in range(self.batch_size))
            seeds = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
            yield Batch(frames=frames[self.rows], names=names[self.rows], seeds=seeds[self.rows])
            step += 1


class SmallNetwork(nn.Module):
    """Two layers with dropout: (B, T, 3, 4, 4) -> (B, T, 48)."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(48, 32)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(32, 48)

    def forward(self, frames: Tensor, noise: Tensor) -> Tensor:
        hidden = self.dropout(self.hidden(frames.flatten(2)).relu())  # (B, T, 3, 4, 4) -> (B, T, 32)
        return self.out(hidden + noise[:, None])


def reconstruction(network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
    """Mean squared error of the frames from themselves, under noise that belongs to the sample."""
    noise = 0.1 * sample_noise(batch.seeds, (32,))
    prediction = network(batch.frames, noise.to(batch.frames.device))
    return {"mse": (prediction - batch.frames.flatten(2)).square().mean()}


def drawing_objective(network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
    """As `reconstruction`, with weights drawn from Python's and NumPy's global generators."""
    weight = random.random() + float(np.random.rand())
    return {"mse": weight * reconstruction(network, batch, step)["mse"]}


def make_trainer(run_dir: Path, *, world: World, steps: int, accumulate: int, drawn: bool) -> Trainer:
    """The run that every test here does: Adam, warm-up and cosine, clipping, weight average."""
    seed_everything(7)
    network = SmallNetwork(dropout=0.2 if drawn else 0.0)
    seed_everything(100 + world.rank)
    return Trainer(
        network,
        drawing_objective if drawn else reconstruction,
        StepLoader(rank=world.rank, world=world.size),
        torch.optim.Adam(network.parameters(), lr=1e-2),
        WarmupCosine(warmup_steps=5),
        steps=steps,
        run_dir=run_dir,
        accumulate=accumulate,
        clip_norm=0.5,
        ema=0.9,
        validate=lambda network, step: {"noise": random.random()},
        validate_every=7,
        best_metric="noise",
        save_every=3,
        world=world,
        config={"steps": steps},
        bar=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--random", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with process_group("cpu") as world:
        trainer = make_trainer(
            options.run_dir,
            world=world,
            steps=options.steps,
            accumulate=options.accumulate,
            drawn=options.random,
        )
        trainer.monitors = [lambda network, batch, step: time.sleep(options.pause) or {}]
        trainer.monitor_every = 1
        last = options.run_dir / "last.ckpt"
        if options.resume and last.exists():
            trainer.resume(last)
        try:
            trainer.fit()
        except TrainingStoppedError as stop:
            sys.exit(f"{stop}")


if __name__ == "__main__":
    main()
