"""Training of SAM 2: what learns, from what, clips that do not touch each other, runs in miniature."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.sam2_models import tiny_sam2
from vosssl.__main__ import main
from vosssl.backbones.weights import load_weights
from vosssl.clip import Batch
from vosssl.data.io import write_image, write_labels
from vosssl.data.prompt_simulation import draw_plan
from vosssl.data.sampling import ClipLoader
from vosssl.engine.batches import split_batch
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.training import Objective, choose_trained

SIZES: dict[str, Any] = {"memory_layers": 1, "depths": (1, 1, 1, 1), "global_blocks": ()}


def small_batch(clips: int = 2, frames: int = 3, objects: int = 2, size: int = 64) -> Batch:
    """Random frames, and rectangles that move a pixel a frame."""
    labels = torch.zeros(clips, frames, size, size, dtype=torch.uint8)
    for clip in range(clips):
        for number in range(1, objects + 1):
            for time in range(frames):
                top, left = 4 + 5 * clip + time, 28 * number - 24 + 2 * time
                labels[clip, time, top : top + 20, left : left + 18] = number
    images = torch.rand(clips, frames, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Batch(images, labels, num_objects=torch.full((clips,), objects), seeds=torch.arange(5, 5 + clips))


def terms_and_gradients(objective: Objective, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
    network = tiny_sam2(**SIZES)  # in evaluation mode: no dropout
    objective.prepare(network)
    terms = objective(network, batch, 0)
    torch.stack(list(terms.values())).sum().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return {name: term.item() for name, term in terms.items()}, gradients


def seed_of(kind: str, frames: int = 3) -> int:
    """A seed whose clip begins with such a prompt, and where clicks may follow in two frames."""
    objective = Objective()
    for seed in range(200):
        plan = draw_plan(objective.rule, frames, seed=seed)
        if plan.first[0] == kind and (kind == "mask" or len(plan.corrected) == 2 > len(plan.first)):
            return seed
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("trains", "parts"),
    [
        ("decoder", {"sam_mask_decoder", "sam_prompt_encoder"}),
        (
            "memory",
            {
                "sam_mask_decoder",
                "sam_prompt_encoder",
                "memory_attention",
                "memory_encoder",
                "mask_downsample",
            }
            | {"maskmem_tpos_enc", "no_mem_embed", "no_obj_ptr", "no_obj_embed_spatial", "obj_ptr_proj"}
            | {"obj_ptr_tpos_proj"},
        ),
        ("lora", {"sam_mask_decoder", "sam_prompt_encoder", "image_encoder"}),
    ],
)
def test_what_trains_is_what_is_said(trains: Any, parts: set[str]) -> None:
    names = choose_trained(tiny_sam2(), trains)
    assert {name.split(".")[0] for name in names} == parts
    if trains == "lora":
        encoder = [name for name in names if name.startswith("image_encoder")]
        assert encoder and all(".lora_" in name and ".attn." in name for name in encoder)


def test_all_trains_everything_but_what_nothing_uses() -> None:
    network = tiny_sam2()
    everything = [name for name, _ in network.named_parameters()]
    assert choose_trained(network, "all") == [name for name in everything if name != "no_mem_pos_enc"]
    with pytest.raises(ValueError, match="decoder, memory, lora, all"):
        choose_trained(network, "head")  # type: ignore[arg-type]


def test_every_weight_that_trains_gets_a_gradient_from_clicks_masks_and_boxes() -> None:
    batch = small_batch(clips=3)
    seeds = torch.tensor([seed_of(kind) for kind in ("mask", "click", "box")])
    batch = Batch(batch.frames, batch.labels, num_objects=batch.num_objects, seeds=seeds)
    _, gradients = terms_and_gradients(Objective(trains="all", corrections=2), batch)
    network = tiny_sam2(**SIZES)
    untouched = set(choose_trained(network, "all")) - set(gradients)
    assert untouched <= {"no_obj_ptr", "no_obj_embed_spatial"}  # of objects that are not there


@pytest.mark.parametrize("kind", ["mask", "click", "box"])
def test_clips_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    batch = small_batch()
    batch = Batch(
        batch.frames,
        batch.labels,
        num_objects=batch.num_objects,
        seeds=torch.tensor([seed_of(kind), seed_of("click")]),
    )
    objective = Objective(corrections=2)
    together, _ = terms_and_gradients(objective, batch)
    apart = [terms_and_gradients(objective, part)[0] for part in split_batch(batch, 2)]
    for name, value in together.items():
        assert value == pytest.approx(sum(terms[name] for terms in apart) / 2, rel=1e-3), name


def test_recomputed_activations_give_the_same_gradients() -> None:
    batch = small_batch()
    plain = terms_and_gradients(Objective(trains="all", corrections=1), batch)
    saving = terms_and_gradients(Objective(trains="all", corrections=1, checkpointing=True), batch)
    assert saving[0] == pytest.approx(plain[0], rel=1e-4)
    assert plain[1].keys() == saving[1].keys()
    for name, gradient in plain[1].items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert (saving[1][name] - gradient).abs().max() / scale < 1e-3, name


def test_a_clip_that_is_given_masks_learns_from_the_other_frames_only() -> None:
    batch = small_batch(clips=1)
    seed = next(
        seed
        for seed in range(99)
        if tuple(draw_plan(Objective().rule, 3, seed=seed).first.items()) == ((0, "mask"),)
    )
    batch = Batch(batch.frames, batch.labels, num_objects=batch.num_objects, seeds=torch.tensor([seed]))
    objective = Objective()
    changed = Batch(
        batch.frames,
        batch.labels.clone(),
        num_objects=batch.num_objects,
        seeds=batch.seeds,  # type: ignore[union-attr]
    )
    assert changed.labels is not None
    changed.labels[:, 1:] = 255
    terms, _ = terms_and_gradients(objective, changed)
    assert terms["focal"] == terms["dice"] == terms["iou"] == 0


def test_objects_are_chosen_where_the_data_do_not_choose_them() -> None:
    batch = small_batch(clips=1)
    bare = Batch(batch.frames, batch.labels, names=("clip",), seeds=batch.seeds)
    rows, counts = Objective(max_objects=1).rows_of(bare)
    assert counts == [1] and len(rows.plans) == 1
    empty = Batch(batch.frames, torch.zeros_like(batch.labels), names=("clip",), seeds=batch.seeds)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="first frame of clip clip shows no object"):
        Objective().rows_of(empty)


def test_frames_without_labels_or_of_an_odd_size_are_refused() -> None:
    batch = small_batch(clips=1)
    network = tiny_sam2(**SIZES)
    with pytest.raises(ValueError, match="clips with labels"):
        Objective()(network, Batch(batch.frames), 0)
    odd = Batch(batch.frames[..., :60], batch.labels[..., :60])  # type: ignore[index]
    with pytest.raises(ValueError, match="multiples of 32 pixels"):
        Objective()(network, odd, 0)
    with pytest.raises(ValueError, match="expected a SAM2"):
        Objective().prepare(nn.Linear(2, 2))


def test_weights_with_low_rank_changes_are_loaded_merged() -> None:
    network, plain = tiny_sam2(**SIZES), tiny_sam2(**SIZES)
    choose_trained(network, "lora", lora_rank=2)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("lora_up"):
                weight.normal_(std=0.1)
    load_weights(plain, network.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        adapted, merged = network.encode_image(images).features, plain.encode_image(images).features
        assert torch.allclose(adapted, merged, atol=1e-4)
        assert not torch.allclose(merged, tiny_sam2(**SIZES).encode_image(images).features, atol=1e-3)
    assert isinstance(plain, SAM2) and not any("lora" in name for name in plain.state_dict())


MINIATURE = (
    "mode=train", "hparam=sam2_tiny_scratch", "device=cpu", "floors=null", "evaluate.limit=1",
    "evaluate.frames=4", "evaluate.clicks=[1]", "data.size=32", "data.length=4", "train.steps=4",
    "train.batch_size=2", "train.validate_every=null", "train.best_metric=null", "train.save_every=2",
    "method.network.width=8", "method.network.dim=32", "method.network.memory_dim=8",
    "method.network.feed_forward_dim=16", "method.network.memory_layers=1", "method.segmenter.image_size=64",
    "method.objective.corrections=1",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("trains", ["all", "lora"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(
    trains: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = [*MINIATURE, f"method.trains={trains}"]
    assert main([*recipe, "exp_name=whole"]) == 0
    batches = ClipLoader.batches

    def interrupted(self: ClipLoader, start_step: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(batches(self, start_step)):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoader, "batches", interrupted)
        assert main([*recipe, "exp_name=part"]) == 130
    (part,) = folder.glob("runs/part/*/last.ckpt")
    assert torch.load(part, weights_only=True)["step"] == 2
    assert main(["mode=train", f"resume={part}", "floors=null", "evaluate.limit=1", "evaluate.frames=4"]) == 0
    (whole,) = folder.glob("runs/whole/*/last.ckpt")
    one, two = (torch.load(path, weights_only=True) for path in (whole, part))
    assert one["step"] == two["step"] == 4
    assert any("lora" in name for name in one["network"]) == (trains == "lora")
    assert all(torch.equal(value, two["network"][name]) for name, value in one["network"].items())


@pytest.mark.parametrize("trains", ["decoder", "memory"])
def test_a_folder_of_frames_and_masks_is_learned_from(trains: str, folder: Path) -> None:
    for video in ("one", "two"):
        for time in range(5):
            labels = torch.zeros(48, 64, dtype=torch.uint8)
            labels[8 + time : 24 + time, 10:30], labels[30:44, 36 + time : 52 + time] = 1, 2
            image = (labels * 90)[None].expand(3, -1, -1).contiguous()
            write_image(folder / "data" / "JPEGImages" / video / f"{time:05}.png", image)
            write_labels(folder / "data" / "Annotations" / video / f"{time:05}.png", labels)
    recipe = [
        *("mode=train", "hparam=sam2_finetune", "data.root=data", f"method.trains={trains}", "device=cpu"),
        *("weights=null", "floors=null", "data.size=64", "data.frames=3", "method.objective.image_size=64"),
        *("train.steps=2", "train.workers=0", "train.batch_size=2", "train.accumulate=2"),
        *("train.validate_every=null", "train.best_metric=null", "evaluate.clicks=null", "evaluate.limit=1"),
        *("+method.segmenter.image_size=64", "+method.network.width=8", "+method.network.dim=32"),
        *(
            "+method.network.memory_dim=8",
            "+method.network.feed_forward_dim=16",
            "method.objective.lora_rank=2",
        ),
        *("+method.network.memory_layers=1", "+method.network.depths=[1,1,1,1]"),
        *("+method.network.global_blocks=[]", "+method.objective.corrections=1"),
    ]
    assert main([*recipe, "exp_name=tuned"]) == 0
    (checkpoint,) = folder.glob("runs/tuned/*/last.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == 2 and len(state["optimizer"]["state"]) > 0


def test_a_dry_run_says_what_it_takes_and_refuses_what_does_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*MINIATURE, "train.dry_run=true", "exp_name=dry"]) == 0
    assert "training will need" in capsys.readouterr().err
    assert not list(folder.glob("runs/dry/*/last.ckpt"))
    with pytest.raises(SystemExit):
        main([*MINIATURE, "train.dry_run=true", "train.memory_budget_gb=0.1"])
    said = capsys.readouterr().err
    assert "there are 0.10 GB" in said and "checkpointing=true" in said
