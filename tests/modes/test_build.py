"""yaml nodes to objects, what a foreign configuration may construct, and models by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import vosssl
from vosssl.engine.schedule import WarmupCosine
from vosssl.modes.build import build, create_model, create_segmenter, method_config

SCHEDULE = {"_target_": "vosssl.engine.schedule.WarmupCosine", "warmup_steps": 3}


def test_a_node_becomes_its_target_with_its_arguments() -> None:
    assert build(SCHEDULE) == WarmupCosine(warmup_steps=3)
    assert build(SCHEDULE, warmup_steps=4) == WarmupCosine(warmup_steps=4)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "vosssl.engine.schedule.Warmup"}, "cannot construct"),
        ({**SCHEDULE, "warmup": 1}, "unexpected keyword argument 'warmup'"),
        ({"warmup_steps": 3}, "expected a mapping with one _target_"),
        ([SCHEDULE], "expected a mapping with one _target_"),
    ],
)
def test_a_node_that_describes_nothing_is_a_clear_error(node, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(node)


def hostile(target: str) -> dict[str, object]:
    return {"_target_": target, "_args_": ["touch ran"]}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.exec",
        "vosssl.data.io.cv2.os.system",  # a module that a trusted one imports
        "vosssl.data.io.Path",  # a class that a trusted module imports
        "torch.optim.optimizer.functools.partial",
        "torch.hub.load",
        "vosssl.engine.checkpoint.save",  # ours, but writes files
        "vosssl.data.io.write_image",
        "vosssl.data.download.download",
        "vosssl.modes.build.build",
        "vosssl.methods.no_such_module.Network",
        "vosssl.methods.slots.Slots.forward",
    ],
)
@pytest.mark.parametrize("place", ["itself", "nested", "listed", "referred"])
def test_a_foreign_configuration_constructs_only_models_and_data(
    target: str, place: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = {
        "itself": hostile(target),
        "nested": {**SCHEDULE, "final": hostile(target)},
        "listed": {**SCHEDULE, "final": [[{"a": hostile(target)}]]},
        "referred": {**SCHEDULE, "final": "${root}"},
    }[place]
    config = OmegaConf.create({"root": hostile(target), "node": node})
    with pytest.raises(ValueError, match="not part of vosssl"):
        build(config.node, trusted_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", vosssl.list_models())
def test_every_model_of_ours_is_trusted(name: str) -> None:
    config = method_config(name)
    if "network" in config:
        shipped = {"features": None} if "features" in config.network else {}  # no reading on the meta device
        with torch.device("meta"):
            build(config.network, trusted_only=True, **shipped)
    if "objective" in config:
        build(config.objective, trusted_only=True)


def test_a_model_by_its_name_takes_a_run_or_its_weights(checkpoint: Path) -> None:
    network = create_model("slots-synthetic", weights=checkpoint)
    again = create_model("slots-synthetic", weights=network.state_dict())
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_segmenter_takes_frame_after_frame_and_options_by_name(checkpoint: Path) -> None:
    segmenter = create_segmenter("slots-synthetic", weights=checkpoint, device="cpu", num_slots=4, size=32)
    frames = torch.randint(256, (3, 3, 48, 64), dtype=torch.uint8)
    for frame in frames:
        labels = segmenter.step(frame)
        assert (labels.shape, labels.dtype) == ((48, 64), torch.uint8)
    assert segmenter.probabilities.shape == (5, 48, 64)
    assert segmenter.object_ids == (1, 2, 3, 4)
    assert not any(weight.requires_grad for weight in segmenter.network.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("slot-synthetic"), "did you mean slots-synthetic"),
        (lambda: create_model("copy-first-mask"), "has no network"),
        (lambda: create_segmenter("motion-features"), "gives features, not masks"),
        (lambda: create_segmenter("slots-synthetic", slots=3), "unexpected keyword argument 'slots'"),
        (lambda: create_segmenter("slots-synthetic", weights={}), "is no state dict"),
        (lambda: create_segmenter("slots-synthetic", device="tpu"), "device is 'tpu'"),
    ],
)
def test_a_wrong_call_says_what_was_meant(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="another model than MotionFeatures"):
        create_model("motion-features", weights=checkpoint)
