"""Loading weights: what fits goes in whole, everything else is refused by name."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fill import vit_filled
from vosssl.backbones import weights as weights_module
from vosssl.backbones.known_weights import KNOWN_WEIGHTS
from vosssl.backbones.vit import VisionTransformer, dino, dinov2
from vosssl.backbones.weights import (
    DownloadError,
    fetch_weights,
    load_weights,
    read_checkpoint,
    slot_model_backbone,
    weights_path,
)
from vosssl.data.download import cached_path


def tiny(**options) -> VisionTransformer:
    return dino(**{"patch_size": 16, "width": 32, "heads": 2, "depth": 2} | options)


def tiny_v2(**options) -> VisionTransformer:
    return dinov2(**{"width": 32, "heads": 2, "depth": 2} | options)


def official(network: VisionTransformer) -> dict[str, Tensor]:
    return vit_filled(network.state_dict())


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def holds(network: VisionTransformer, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_any_torch_format_is_loaded(tmp_path: Path, zipped: bool) -> None:
    state = official(tiny())
    torch.save(state, tmp_path / "dino.pth", _use_new_zipfile_serialization=zipped)
    network = tiny()
    load_weights(network, tmp_path / "dino.pth")
    assert holds(network, state)


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    state = official(tiny())
    torch.save(state, tmp_path / "dino.pth")
    network = tiny()
    load_weights(network, str(tmp_path / "dino.pth"))
    with torch.no_grad():
        network.cls_token += 1
    (tmp_path / "dino.pth").write_bytes(b"")
    assert torch.equal(network.cls_token, state["cls_token"] + 1)


def test_a_dino_training_file_gives_its_teacher(tmp_path: Path) -> None:
    teacher, student = official(tiny()), vit_filled(tiny().state_dict(), salt="student")
    content = {
        "student": prefixed(student, "module.backbone.") | {"module.head.mlp.0.weight": torch.zeros(2, 2)},
        "teacher": prefixed(teacher, "backbone.") | {"head.mlp.0.weight": torch.zeros(2, 2)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }
    torch.save(content, tmp_path / "full.pth")
    network = tiny()
    load_weights(network, tmp_path / "full.pth")
    assert holds(network, teacher)


def test_a_dinov2_teacher_file_with_chunked_blocks_is_unwrapped() -> None:
    state = official(tiny_v2())
    chunked = {
        key.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): value
        for key, value in state.items()
    }
    content = {"teacher": prefixed(chunked, "backbone.") | {"dino_head.last.weight": torch.zeros(1)}}
    network = tiny_v2()
    load_weights(network, content)
    assert holds(network, state)


def test_the_vit_of_a_slot_model_is_taken_out_by_its_key_map() -> None:
    inner = tiny(layout="timm")
    state = official(inner)
    content = {
        "state_dict": prefixed(state, "encoder.module.backbone.model.")
        | {"initializer.mean": torch.zeros(1)},
        "pytorch-lightning_version": "1.9",
        "callbacks": {},
    }
    load_weights(inner, content, key_map=slot_model_backbone)
    assert holds(inner, state)
    with pytest.raises(ValueError, match="look like a slot model with its ViT, the network like a DINO ViT"):
        load_weights(tiny(layout="timm"), content)


def test_a_timm_layout_takes_official_weights_without_the_final_norm() -> None:
    for make in (tiny, tiny_v2):
        state = official(make())
        network = make(layout="timm")
        load_weights(network, state)
        assert holds(network, state)


@pytest.mark.parametrize(
    ("wrapper", "beside"),
    [
        ("model", {}),
        ("state_dict", {"epoch": 3}),
        ("network", {"format": "vosssl/1", "step": 3, "ema": None}),
    ],
)
def test_common_wrappers_are_taken_off(wrapper: str, beside: dict[str, Any]) -> None:
    state = official(tiny())
    network = tiny()
    load_weights(network, {wrapper: state} | beside)
    assert holds(network, state)


def test_what_does_not_fit_is_counted_named_and_described() -> None:
    state = official(tiny(patch_size=8))
    state["extra.weight"] = torch.zeros(1)
    del state["norm.bias"]
    with pytest.raises(ValueError) as caught:
        load_weights(tiny(), state)
    message = str(caught.value)
    assert "does not fit VisionTransformer: 1 missing (norm.bias); 1 unexpected (extra.weight)" in message
    assert "pos_embed (1, 785, 32), expected (1, 197, 32)" in message
    assert "look like a DINO ViT (width 32, patch 8, 2 blocks, 785 positions)" in message
    assert "the network like a DINO ViT (width 32, patch 16, 2 blocks, 197 positions)" in message


def test_many_faults_are_counted_and_the_network_stays_as_it_was() -> None:
    network = tiny()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"28 missing .*, and 23 more\)"):
        load_weights(network, {"cls_token": torch.ones(1, 1, 32), "pos_embed": torch.ones(1, 197, 32)})
    assert holds(network, before)


class _RunsCode:
    def __reduce__(self):
        return os.system, ("touch hostile",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _RunsCode()}, "hostile.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"would run code \(posix\.system\)"):
        read_checkpoint("hostile.pth")
    Path("plain.pkl").write_bytes(pickle.dumps(_RunsCode(), protocol=2))
    with pytest.raises(ValueError, match=r"would run code|damaged"):
        read_checkpoint("plain.pkl")
    assert not Path("hostile").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "damaged or no PyTorch file"),
        (b"not weights at all", "damaged or no PyTorch file"),
    ],
)
def test_files_that_are_no_weights_say_what_they_are(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save(official(tiny()), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"truncated|damaged"):
        read_checkpoint(path)


def test_content_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, expected a dict of weights"):
        load_weights(tiny(), tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"no state dict .* \(its entries: epoch, args\)"):
        load_weights(tiny(), {"epoch": 1, "args": {}})


def test_unknown_names_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights are called 'dino-vits61'.*did you mean dino-vits16"):
        load_weights(tiny(), "dino-vits61")
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        load_weights(tiny(), tmp_path / "absent.pth")


def test_gated_weights_say_how_to_get_them_and_are_found_when_put_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOSSSL_HOME", str(tmp_path))
    file = KNOWN_WEIGHTS["dinov3-vits16"]
    target = cached_path(file.url)
    with pytest.raises(DownloadError) as caught:
        fetch_weights("dinov3-vits16")
    assert "ai.meta.com" in str(caught.value) and str(target) in str(caught.value)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"not the real file")
    with pytest.raises(DownloadError, match="expected 08c60483"):
        fetch_weights("dinov3-vits16")


def test_every_known_file_has_its_own_place_and_a_secure_address(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [cached_path(file.url) for file in KNOWN_WEIGHTS.values()]
    assert len(set(paths)) == len(paths)
    assert all(file.url.startswith("https://") and file.licence for file in KNOWN_WEIGHTS.values())
    monkeypatch.setattr(weights_module, "fetch_weights", lambda name: Path(name))
    assert weights_path("dino-vits16") == Path("dino-vits16")
