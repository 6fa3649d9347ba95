"""Runs the GPU tests, measures eager, bf16 and compiled side by side, and compares their numbers: one table.

    python scripts/gpu_check.py              # on a machine with a CUDA GPU, under nine minutes
    python scripts/gpu_check.py --cpu        # the same code in miniature, anywhere
    python scripts/gpu_check.py --json out.json

Without a GPU it says so, runs the miniature, and exits with 0. With one it exits with 1 when a GPU test or a
comparison fails. Weights are random, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout, installed or not

from vosssl.clip import Batch, collate  # noqa: E402

BUDGET_SECONDS = 500.0
COMPILE_SECONDS = 100.0  # left for a compiled row, or it is passed over
VARIANTS = (("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True))  # (precision, compiled)
LARGEST_ERROR = {"fp32": 2e-3, "bf16": 3e-2}  # of features and losses, relative to eager fp32
LARGEST_GRADIENT_ERROR = 1e-2  # of fp32; bf16 is shown only: fresh slots are nearly equal and cancel in it


@dataclass(frozen=True)
class Sizes:
    """How much work a check does."""

    images: int  # a batch for the ViT
    side: int  # pixels
    clips: int  # a batch for the training step
    frames: int
    repeats: int
    steps: int  # timed training steps
    workers: int
    depth: int  # blocks of the ViT
    variants: tuple[tuple[str, bool], ...] = VARIANTS


GPU_SIZES = Sizes(images=64, side=224, clips=32, frames=4, repeats=20, steps=20, workers=8, depth=12)
CPU_SIZES = Sizes(
    images=2, side=64, clips=2, frames=2, repeats=2, steps=2, workers=0, depth=2, variants=VARIANTS[:2]
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what ran.
        result: what came out.
        error: largest relative deviation from eager fp32, or None.
        passed: whether that is small enough; None where there is nothing to pass.
    """

    name: str
    result: str
    error: float | None = None
    passed: bool | None = None


class Clock:
    """Seconds left of the budget."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], Any], device: torch.device, *, repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    work()
    spent = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        spent.append(time.perf_counter() - start)
    return median(spent)


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return ((value.float() - truth.float()).norm() / truth.float().norm()).item()


def label(precision: str, compiled: bool) -> str:
    return f"{'compiled' if compiled else 'eager'} {precision}"


def vit_small(depth: int) -> nn.Module:
    """ViT-S/16 as the library builds it by name, or a shallow one for the miniature."""
    from vosssl.backbones.vit import dino

    if depth != GPU_SIZES.depth:
        return dino(patch_size=16, depth=depth)
    try:
        import vosssl

        return vosssl.create_model("dino-vits16")
    except ImportError:  # Hydra, which knows the names, is not on every GPU machine
        return dino(patch_size=16)


def check_environment(device: torch.device) -> Iterator[Row]:
    """Versions and device."""
    yield Row("torch", f"{torch.__version__}, Python {sys.version.split()[0]}")
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        yield Row("device", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    else:
        yield Row("device", f"{device}, {torch.get_num_threads()} threads")


def check_tests(clock: Clock) -> Iterator[Row]:
    """The tests marked gpu."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests"),
    ]
    try:
        limit = min(200.0, clock.left() - 60)
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        yield Row("pytest -m gpu", f"not done after {error.timeout:.0f} s", passed=False)
        return
    lines = [line for line in run.stdout.splitlines() if line.strip()] or run.stderr.splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            yield Row("pytest -m gpu", line[:150], passed=False)
    yield Row("pytest -m gpu", lines[-1] if lines else "said nothing", passed=run.returncode == 0)


def check_vit(device: torch.device, sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """ViT-S/16 forward in every variant."""
    torch.manual_seed(0)
    network = vit_small(sizes.depth).eval().to(device)
    images = torch.randn(sizes.images, 3, sizes.side, sizes.side, device=device)
    truth: Tensor | None = None
    for precision, compiled in sizes.variants:
        name = f"ViT-S/16 forward, {label(precision, compiled)}"
        if compiled and clock.left() < COMPILE_SECONDS:
            yield Row(name, "passed over: no time left")
            continue
        model = torch.compile(network) if compiled else network

        def forward(model: Callable = model, precision: str = precision) -> Tensor:
            with torch.inference_mode(), autocast(device, precision):
                return model(images).patches

        patches = forward()
        spent = seconds_of(forward, device, repeats=sizes.repeats)
        truth = patches if truth is None else truth
        error = relative_error(patches, truth)
        passed = error <= LARGEST_ERROR[precision]
        yield Row(name, f"{1e3 * spent:8.1f} ms {sizes.images / spent:9.0f} images/s", error, passed)


def autocast(device: torch.device, precision: str) -> Any:
    """bf16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class Repeated:
    """A loader that gives one batch again and again: what a step costs without reading."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.batch_size = len(batch)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        while True:
            yield self.batch


def slot_trainer(
    device: torch.device, sizes: Sizes, loader: Any, run_dir: str, *, precision: str, compiled: bool
) -> Any:
    """VideoSAUR over a frozen ViT-S/16, always with the same weights."""
    from vosssl.engine.rng import seed_everything
    from vosssl.engine.trainer import Trainer
    from vosssl.methods.videosaur import Objective, VideoSAUR

    seed_everything(0)
    side = sizes.side // 16
    network = VideoSAUR(
        backbone=vit_small(sizes.depth),
        features_dim=384,
        grid=(side, side),
        backbone_precision="bf16" if precision == "bf16" else "fp32",
    )
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Trainer(
        network,
        Objective(),
        loader,
        torch.optim.Adam(weights, lr=1e-4),
        steps=1,
        run_dir=run_dir,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        compile=compiled,
        clip_norm=0.05,
        log_every=10**6,
        save_every=10**6,
        bar=False,
    )


def check_training(device: torch.device, sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """A training step in every variant on one batch; its first loss and gradient against eager fp32."""
    from vosssl.data.synthetic import SyntheticClips

    clips = SyntheticClips(size=sizes.side, frames=sizes.frames, count=sizes.clips, flow=False)
    batch = collate([clips[index] for index in range(sizes.clips)], seeds=range(sizes.clips))
    truth: FirstStep | None = None
    for precision, compiled in sizes.variants:
        name = f"VideoSAUR ViT-S/16 step, {label(precision, compiled)}"
        if compiled and clock.left() < COMPILE_SECONDS:
            yield Row(name, "passed over: no time left")
            continue
        with tempfile.TemporaryDirectory() as run_dir:
            trainer = slot_trainer(
                device, sizes, Repeated(batch), run_dir, precision=precision, compiled=compiled
            )
            first, result = timed_run(trainer, sizes.steps)
        truth = first if truth is None else truth
        error = relative_error(first.loss, truth.loss)
        gradient_error = relative_error(first.gradient, truth.gradient)
        close = precision != "fp32" or gradient_error <= LARGEST_GRADIENT_ERROR
        passed = close and error <= LARGEST_ERROR[precision]
        speed = f"{1e3 / result.steps_per_second:8.1f} ms {result.clips_per_second:9.1f} clips/s"
        memory = f"{result.peak_memory_bytes / 2**30:6.1f} GiB, gradient {gradient_error:.0e}"
        yield Row(name, f"{speed} {memory}", error, passed)


class FirstStep(NamedTuple):
    """What the first training step computed."""

    loss: Tensor  # (1,)
    gradient: Tensor  # (all trained weights,)


def timed_run(trainer: Any, steps: int) -> tuple[FirstStep, Any]:
    """One step to compare (it compiles too), two to warm up, then the timed ones.

    Returns:
        The first step, and the timed steps' result.
    """
    if trainer.place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses = trainer.fit().losses
    gradients = [weight.grad.flatten() for weight in trainer.network.parameters() if weight.grad is not None]
    first = FirstStep(torch.tensor([losses["loss"]]), torch.cat(gradients).clone())
    trainer.steps += 2
    trainer.fit()
    trainer.steps += steps
    return first, trainer.fit()


def check_loader(device: torch.device, sizes: Sizes, clock: Clock) -> Iterator[Row]:
    """The training step in bf16 with the generator behind it: what share of the time is spent waiting."""
    from vosssl.data.sampling import ClipLoader
    from vosssl.data.synthetic import SyntheticClips

    clips = SyntheticClips(size=sizes.side, frames=sizes.frames, flow=False)
    loader = ClipLoader(clips, batch_size=sizes.clips, workers=sizes.workers)
    stream = loader.batches()
    next(stream)
    start = time.perf_counter()
    for _ in range(max(2, sizes.steps // 4)):
        next(stream)
    rate = max(2, sizes.steps // 4) * sizes.clips / (time.perf_counter() - start)
    stream.close() if hasattr(stream, "close") else None
    yield Row(f"generator alone, {sizes.workers} workers", f"{rate:8.1f} clips/s")
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = slot_trainer(device, sizes, loader, run_dir, precision="bf16", compiled=False)
        _, result = timed_run(trainer, sizes.steps)
    waiting = f"{result.clips_per_second:8.1f} clips/s, {100 * result.data_wait_share:.0f} % waiting for data"
    yield Row("VideoSAUR ViT-S/16 step with generator, eager bf16", waiting)


def collect(name: str, rows: Callable[[], Iterator[Row]], clock: Clock) -> list[Row]:
    """The rows of one check, shown as they come; a check that breaks is a row too."""
    found: list[Row] = []
    if clock.left() < 20:
        found.append(Row(name, "passed over: no time left"))
        return found
    try:
        for row in rows():
            print(line(row), flush=True)
            found.append(row)
    except Exception as error:  # whatever breaks in one check, the others still tell something
        found.append(Row(name, f"{type(error).__name__}: {str(error)[:200]}", passed=False))
        print(line(found[-1]), flush=True)
    return found


def line(row: Row) -> str:
    """A row as text."""
    error = "" if row.error is None else f"{row.error:9.1e}"
    mark = {None: "", True: "ok", False: "FAILED"}[row.passed]
    return f"{row.name:<52} {row.result:<62} {error:>9}  {mark}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cpu", action="store_true", help="the miniature on the CPU, even where there is a GPU"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and not options.cpu
    if not on_gpu:
        print("no CUDA GPU is used: a miniature runs on the CPU, its times mean nothing")
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    sizes, clock = (GPU_SIZES if on_gpu else CPU_SIZES), Clock(BUDGET_SECONDS)
    print(f"{'what':<52} {'result':<62} {'error':>9}")
    rows = collect("environment", lambda: check_environment(device), clock)
    if on_gpu:
        rows += collect("pytest -m gpu", lambda: check_tests(clock), clock)
    for check in (check_vit, check_training, check_loader):
        rows += collect(check.__name__, lambda check=check: check(device, sizes, clock), clock)  # type: ignore[misc]
    failed = [row for row in rows if row.passed is False]
    print(f"\n{len(rows)} rows, {len(failed)} failed, {BUDGET_SECONDS - clock.left():.0f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if failed and on_gpu else 0


if __name__ == "__main__":
    sys.exit(main())
