"""STCN and Cutie on a video: time, equal pixels and memory, ours beside the official programs, one run.

    python scripts/bench_memory.py [--models stcn,cutie-base] [--objects 1,3,8] [--frames 60] [--threads 2]
        [--stcn CHECKOUT] [--cutie CHECKOUT] [--weights cutie-base=RUN/last.ckpt]
    python scripts/bench_memory.py --models cutie-base --objects 3 --frames 2000 --size 96x160  # flat memory
    python scripts/bench_memory.py --models cutie-base --objects 3 --frames 10 --profile
    python scripts/bench_memory.py --models stcn --objects 3 --rows official,ours,nudged --stcn CHECKOUT

CHECKOUTs are of hkchengrex/STCN and hkchengrex/Cutie. Frames are of a generated clip of so many objects,
played back and forth; weights are random, or a file's, and the same for both. Every row runs in a process of
its own. Seconds are wall time and CPU time (all threads) per frame after the first; memory is the peak above
the process with its network loaded. Equal pixels compares labels with those of the first row. Random networks
can be chaotic: the row "nudged" is the official program on frames that are 1e-6 brighter, and shows how far
that alone leads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import PeakMemory, cpu_seconds, in_process, random_weights
from torch import Tensor, nn

import vosssl
from vosssl.backbones.weights import read_checkpoint, state_of
from vosssl.clip import Clip
from vosssl.data.synthetic import SyntheticClips
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD

KEPT = 60  # frames that are made, and whose labels are compared
Step = Callable[[Tensor, Tensor | None], Tensor]  # frame and, first, labels -> labels


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(json.dumps(measured(options)))
        return
    print(f"{options.frames} frames of {options.size}, {options.threads} threads")
    print("| model, objects | program | wall s/frame | CPU s/frame | peak MB | equal pixels |")
    print("|---|---|---|---|---|---|")
    for model in options.models.split(","):
        for objects in options.objects.split(","):
            with tempfile.TemporaryDirectory() as folder:
                rows = ["ours"] if checkout(options, model) is None else options.rows.split(",")
                found = {
                    row: in_process(
                        row, "--models", model, "--objects", objects, "--labels", f"{folder}/{row}.pt"
                    )
                    for row in rows
                }
                first = torch.load(Path(folder) / f"{rows[0]}.pt", weights_only=True)
                for row, numbers in found.items():
                    labels = torch.load(Path(folder) / f"{row}.pt", weights_only=True)
                    same = (labels == first).float().mean().item()
                    times = f"{numbers['wall']:.3f} | {numbers['cpu']:.3f}"
                    cells = f"{row} | {times} | {numbers['peak_mb']:.0f} | {same:.5f}"
                    print(f"| {model}, {objects} | {cells} |", flush=True)


def checkout(options: argparse.Namespace, model: str) -> str | None:
    """Where the official program of a model is."""
    return options.stcn if model == "stcn" else options.cutie


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Seconds per frame and the peak memory of one row; its labels go to a file."""
    objects = int(options.objects)
    height, width = (int(side) for side in options.size.split("x"))
    network = vosssl.create_model(options.models)
    given = dict(pair.split("=", 1) for pair in options.weights.split(",") if pair).get(options.models)
    network.load_state_dict(state_of(read_checkpoint(given)) if given else random_weights(network))
    clip = made_clip(objects, options.frames, (height, width))
    assert clip.labels is not None
    step = ours(options, network) if options.row == "ours" else official(options, network)
    nudge = 1e-6 if options.row == "nudged" else 0.0
    del network
    peak = PeakMemory()
    with torch.inference_mode():
        kept = [step(frame(clip, 0) + nudge, clip.labels[0])]
        wall, cpu = time.perf_counter(), cpu_seconds()
        with torch.profiler.profile() if options.profile else _Nothing() as profile:
            for number in range(1, options.frames):
                labels = step(frame(clip, number) + nudge, None)
                if number < KEPT:
                    kept.append(labels)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    if options.profile:
        print(
            profile.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40
            )
        )
    torch.save(torch.stack(kept), options.labels)
    count = options.frames - 1
    return {"wall": wall / count, "cpu": cpu / count, "peak_mb": peak.megabytes}


class _Nothing:
    """No profiler."""

    def __enter__(self) -> Any:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def ours(options: argparse.Namespace, network: nn.Module) -> Step:
    """Our segmenter with the official defaults."""
    segmenter = vosssl.create_segmenter(options.models, weights=network.state_dict())
    return lambda image, labels: segmenter.step(image, labels)


def official(options: argparse.Namespace, network: nn.Module) -> Step:
    """The official inference class of the model, told that there is no GPU."""
    sys.path.insert(0, str(checkout(options, options.models)))
    offline()
    make = official_stcn if options.models == "stcn" else official_cutie
    return make(options, network.state_dict())


def offline() -> None:
    """Their networks start from ImageNet's weights, which are written over: nothing has to be fetched."""
    from torch.utils import model_zoo
    from torchvision.models import resnet18, resnet50
    from torchvision.models._api import WeightsEnum

    fresh = {"resnet18": resnet18().state_dict(), "resnet50": resnet50().state_dict()}

    def load(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        return fresh["resnet50" if "resnet50" in url else "resnet18"]

    model_zoo.load_url = load  # type: ignore[assignment]
    WeightsEnum.get_state_dict = lambda self, **_: load(self.url)  # type: ignore[method-assign]


def official_cutie(options: argparse.Namespace, state: dict[str, Tensor]) -> Step:
    """Cutie's InferenceCore with the settings of its eval_config."""
    from cutie.inference.inference_core import InferenceCore  # type: ignore[import-not-found]
    from cutie.model.cutie import CUTIE  # type: ignore[import-not-found]
    from omegaconf import OmegaConf

    settings = Path(options.cutie) / "cutie" / "config"
    config: Any = OmegaConf.load(settings / "eval_config.yaml")
    model: Any = OmegaConf.load(settings / "model" / f"{options.models.removeprefix('cutie-')}.yaml")
    config = OmegaConf.merge(
        OmegaConf.masked_copy(
            config, [key for key in config if key not in ("defaults", "hydra", "datasets")]
        ),
        {"model": model, "use_long_term": False, "mem_every": 5},
    )
    program = CUTIE(config).eval()
    program.load_state_dict(state)
    core = InferenceCore(program, cfg=config)

    def step(image: Tensor, labels: Tensor | None) -> Tensor:
        ids = None if labels is None else list(range(1, int(options.objects) + 1))
        rows = core.step(image, None if labels is None else labels.long(), ids)
        return core.output_prob_to_mask(rows).byte()

    return step


def official_stcn(options: argparse.Namespace, state: dict[str, Tensor]) -> Step:
    """STCN's parts in the order of its InferenceCore, which wants the whole video at once."""
    for module in ("model.eval_network", "inference_memory_bank", "model.aggregate", "util.tensor_util"):
        __import__(module)
    modules: dict[str, types.ModuleType] = sys.modules
    program: Any = modules["model.eval_network"].STCN().eval()  # type: ignore[attr-defined]
    program.load_state_dict(state)
    bank: Any = modules["inference_memory_bank"].MemoryBank(k=int(options.objects), top_k=20)  # type: ignore[attr-defined]
    aggregate: Any = modules["model.aggregate"].aggregate  # type: ignore[attr-defined]
    pad: Any = modules["util.tensor_util"].pad_divide_by  # type: ignore[attr-defined]
    unpad: Any = modules["util.tensor_util"].unpad  # type: ignore[attr-defined]
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    count = iter(range(1 << 30))

    def step(image: Tensor, labels: Tensor | None) -> Tensor:
        number = next(count)
        image, margins = pad(((image - mean) / std)[None], 16)
        key, thin, f16, f8, f4 = program.encode_key(image)
        if labels is not None:
            given = torch.stack([labels == row + 1 for row in range(int(options.objects))]).float()[:, None]
            rows = aggregate(pad(given, 16)[0], keep_bg=True)
        else:
            rows = aggregate(program.segment_with_query(bank, f8, f4, key, thin), keep_bg=True)
        if number % 5 == 0:
            bank.add_memory(key.unsqueeze(2), program.encode_value(image, f16, rows[1:]))
        return unpad(rows, margins).argmax(0)[0].byte()

    return step


def made_clip(objects: int, frames: int, size: tuple[int, int]) -> Clip:
    """The first held-out generated clip of so many objects that all show in its first frame."""

    def clips(sides: tuple[int, int]) -> SyntheticClips:
        count = min(frames, KEPT)
        return SyntheticClips(size=sides, frames=count, objects=(objects, objects), split="val", flow=False)

    small = clips((size[0] // 8, size[1] // 8))  # the same clips, made sooner
    for index in range(1000):
        labels = small[index].labels
        assert labels is not None
        seen = torch.bincount(labels[0].flatten().long(), minlength=objects + 1)
        if seen.min() > 0.005 * labels[0].numel():
            return clips(size)[index]
    raise ValueError(f"no generated clip shows {objects} objects in its first frame; expected fewer objects")


def frame(clip: Clip, number: int) -> Tensor:
    """(3, H, W) in [0, 1]: the clip's frames there and back again."""
    count = len(clip.frames)
    turn = number % max(2 * count - 2, 1)
    image = clip.frames[min(turn, 2 * count - 2 - turn) if turn else 0]
    return image if image.is_floating_point() else image / 255


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", default="stcn,cutie-base")
    made.add_argument("--objects", default="1,3,8")
    made.add_argument("--frames", type=int, default=60)
    made.add_argument("--size", default="480x854")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--stcn", help="checkout of hkchengrex/STCN")
    made.add_argument("--cutie", help="checkout of hkchengrex/Cutie")
    made.add_argument("--weights", default="", help="MODEL=FILE,…: trained here; random without")
    made.add_argument("--rows", default="official,ours", help="of official, ours, nudged")
    made.add_argument("--profile", action="store_true", help="where the time goes")
    made.add_argument("--row", help=argparse.SUPPRESS)
    made.add_argument("--labels", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()
