"""MobileSAM on one image: time and equal numbers, ours beside the official program, in one process.

    python scripts/bench_mobile_sam.py [--official CHECKOUT] [--repeats 3] [--threads 1] [--points 16]
    python scripts/bench_mobile_sam.py --everything 8 [--official CHECKOUT]      # a grid of 8 x 8 points, too

CHECKOUT is of ChaoningZhang/MobileSAM (its program needs timm). The image is noise on blocks of colour,
weights are random and the same for both, which take turns. Seconds are medians of wall and CPU time (all
threads). The last line is the largest difference of the three masks' logits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vosssl
from vosssl.propagation.image_prompting import ImagePrompter, PromptRows
from vosssl.propagation.mask_generation import MaskGenerator
from vosssl.propagation.segmenter import Clicks

Programs = dict[str, Callable[[], Any]]  # by name, in the order of their turns
HEIGHT, WIDTH = 720, 1280
SURE = {"pred_iou_thresh": 1e-6, "stability_score_thresh": 0.5, "stability_score_offset": 0.05}


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network: Any = vosssl.create_model("mobile-sam")
    official = official_network(options.official, network) if options.official else None
    blocks = torch.randint(30, 226, (3, 9, 16)).repeat_interleave(80, 1).repeat_interleave(80, 2)
    image = (blocks + torch.randint(-30, 31, (3, HEIGHT, WIDTH))).byte()
    print(f"{HEIGHT} x {WIDTH}, {options.threads} threads, median of {options.repeats}")
    print("| step | program | wall s | CPU s |")
    print("|---|---|---|---|")
    for step, programs in steps(network, official, image, options).items():
        found = {name: [timed(program)] for name, program in programs.items()}  # warms up
        for _ in range(options.repeats):
            for name, program in programs.items():
                found[name].append(timed(program))
        for name, times in found.items():
            wall, cpu = (statistics.median(column) for column in zip(*times[1:], strict=True))
            print(f"| {step} | {name} | {wall:.3f} | {cpu:.3f} |", flush=True)
    if official is not None:
        print(f"largest difference: {difference(network, official, image):.2e}")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--official", help="checkout of ChaoningZhang/MobileSAM")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--points", type=int, default=16, help="prompts that are decoded at once")
    arguments.add_argument(
        "--everything", type=int, default=0, help="points per side of the grid; 0: skipped"
    )
    return arguments


def official_network(checkout: str, network: torch.nn.Module) -> Any:
    """The official network with the same weights."""
    sys.path.insert(0, checkout)
    from mobile_sam import sam_model_registry  # type: ignore[import-not-found]

    official = sam_model_registry["vit_t"]()
    official.load_state_dict(network.state_dict())
    return official.eval()  # after loading: the bias of its attention is cached then


def steps(network: Any, official: Any, image: Tensor, options: argparse.Namespace) -> dict[str, Programs]:
    """What is timed: by step, the programs that take turns."""
    prompter = ImagePrompter(network)
    frame = torch.randn(1, 3, network.image_size, network.image_size)
    clicks = Clicks(torch.tensor([[600.5, 300.5]]), torch.tensor([True]))
    rows = PromptRows(
        torch.rand(options.points, 1, 2) * HEIGHT, torch.ones(options.points, 1, dtype=torch.int32)
    )
    timed_steps: dict[str, Programs] = {
        "image encoder": {"ours": torch.inference_mode()(lambda: network.image_encoder(frame))},
        "set an image": {"ours": lambda: prompter.set_image(image)},
        "one point, three masks": {"ours": lambda: prompter.predict(clicks)},
        f"decode {options.points} points": {"ours": lambda: prompter.decode(rows, multimask=True)},
    }
    grid = {"points_per_side": options.everything, **SURE}
    if options.everything:
        timed_steps["everything"] = {"ours": lambda: MaskGenerator(network, **grid)(image)}
    if official is not None:
        for step, program in official_steps(official, frame, image, clicks, rows, grid).items():
            if step in timed_steps:
                timed_steps[step] = {"official": program, **timed_steps[step]}
    return timed_steps


def official_steps(
    official: Any, frame: Tensor, image: Tensor, clicks: Clicks, rows: PromptRows, grid: dict[str, Any]
) -> Programs:
    """The same steps by the official program."""
    from mobile_sam import SamAutomaticMaskGenerator, SamPredictor

    predictor, pixels = SamPredictor(official), image.permute(1, 2, 0).contiguous().numpy()
    points, labels = (clicks.points - 0.5).numpy(), clicks.positive.int().numpy()

    def decode() -> None:
        tokens, maps = official.prompt_encoder(points=(rows.points, rows.labels), boxes=None, masks=None)
        positions = official.prompt_encoder.get_dense_pe()
        official.mask_decoder(
            image_embeddings=predictor.features,
            image_pe=positions,
            sparse_prompt_embeddings=tokens,
            dense_prompt_embeddings=maps,
            multimask_output=True,
        )

    return {
        "image encoder": torch.no_grad()(lambda: official.image_encoder(frame)),
        "set an image": lambda: predictor.set_image(pixels),
        "one point, three masks": lambda: predictor.predict(points, labels),
        f"decode {len(rows.labels)} points": torch.no_grad()(decode),  # type: ignore[arg-type]
        "everything": lambda: SamAutomaticMaskGenerator(official, **grid).generate(pixels),
    }


def difference(network: Any, official: Any, image: Tensor) -> float:
    """Between the logits of both programs for one point."""
    from mobile_sam import SamPredictor

    prompter, predictor = ImagePrompter(network), SamPredictor(official)
    prompter.set_image(image)
    predictor.set_image(image.permute(1, 2, 0).contiguous().numpy())
    found = prompter.predict(Clicks(torch.tensor([[600.5, 300.5]]), torch.tensor([True]))).logits[0]
    point, label = torch.tensor([[600.0, 300.0]]).numpy(), torch.ones(1).int().numpy()
    expected, _, _ = predictor.predict(point, label, return_logits=True)
    return float((found - torch.from_numpy(expected)).abs().max())


def timed(program: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    program()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
