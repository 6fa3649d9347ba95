"""Weights into networks: by name, by path or as a state dict; strictly, and running nothing a file contains.

Foreign checkpoints are unwrapped by one key map per format (`FORMATS`); what comes out must then match the
network's keys and shapes one by one.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.backbones.known_weights import KNOWN_WEIGHTS
from vosssl.data.download import DownloadError, cached_path, download

__all__ = [
    "DownloadError",
    "download",
    "fetch_weights",
    "load_weights",
    "read_checkpoint",
    "slot_model_backbone",
    "state_of",
]

logger = logging.getLogger(__name__)

KeyMap = Callable[[Mapping[str, Any]], Mapping[str, Any]]
SLOT_BACKBONE = "encoder.module.backbone.model."  # where VideoSAUR and SlotContrast keep their ViT
SHIPPED = Path(__file__).resolve().parent.parent / "weights"  # what comes with the library
SHOWN = 5  # keys named in an error before the rest is only counted


class Format(NamedTuple):
    """A kind of checkpoint: its name, how to tell it by its content, and the state dict in it."""

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    state: KeyMap


def load_weights(
    network: nn.Module, weights: str | Path | Mapping[str, Any], *, key_map: KeyMap | None = None
) -> None:
    """Loads weights into a network; every key and shape must match.

    Args:
        network: changed in place. Its attribute `omitted_keys`, if any, names entries of the official
            checkpoint that it does without; its `adapted_state(state)`, if any, completes the
            weights of a part of it.
        weights: a name in vosssl/weights or of `KNOWN_WEIGHTS` (downloaded once), an http(s) address, a path,
            or a checkpoint's content: a state dict, or one of the foreign formats around it.
        key_map: turns the content into a state dict, instead of the format that the content shows.

    Raises:
        ValueError: keys missing, unexpected or of another shape (names them, and what the weights look like);
            an unknown name; a file that is damaged, a web page, or would run code.
        FileNotFoundError: no such file.
    """
    if isinstance(weights, Mapping):
        source, content = "the state dict", weights
    else:
        path = weights_path(weights)
        source, content = str(weights), read_checkpoint(path)
    state = dict(key_map(content) if key_map else state_of(content, source=source))
    for key in getattr(network, "omitted_keys", ()):
        state.pop(key, None)
    if hasattr(network, "adapted_state"):
        state = dict(network.adapted_state(state))  # type: ignore[operator]
    _require_match(network, state, source)
    network.load_state_dict(state, strict=True)


def weights_path(weights: str | Path) -> Path:
    """The file that a name, an address or a path stands for; downloads what does not come with the library.

    Raises:
        ValueError: no such name (names the closest), or the download failed.
        FileNotFoundError: no such file.
    """
    if isinstance(weights, str) and (SHIPPED / f"{weights}.pt").is_file() and Path(weights).name == weights:
        return SHIPPED / f"{weights}.pt"
    if isinstance(weights, str) and weights in KNOWN_WEIGHTS:
        return fetch_weights(weights)
    if isinstance(weights, str) and weights.startswith(("http://", "https://")):
        return download(weights)
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no weights file {path}")
    close = difflib.get_close_matches(str(weights), KNOWN_WEIGHTS, n=3, cutoff=0.4)
    raise ValueError(
        f"no weights are called {str(weights)!r} and there is no such file"
        + (f"; did you mean {', '.join(close)}?" if close else "")
    )


def fetch_weights(name: str) -> Path:
    """The file of known weights, downloaded if it is not in the cache yet.

    Args:
        name: a key of `KNOWN_WEIGHTS`.

    Raises:
        DownloadError: it cannot be had; says why, where to put it by hand, and for gated files how to get it.
    """
    file = KNOWN_WEIGHTS[name]
    target = cached_path(file.url)
    if file.gated and not target.exists():
        raise DownloadError(
            f"the weights {name} cannot be downloaded freely: {file.gated}. Then save the file as {target}, "
            "or give its path instead of the name"
        )
    return download(file.url, sha256=file.sha256, md5=file.md5)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """The content of a PyTorch file; nothing that is in it is run.

    Args:
        path: a file of `torch.save`, of any version. Tensors stay on disk until they are used, where the
            file's format allows it.

    Raises:
        ValueError: a web page, a Git LFS pointer, a truncated or damaged file, one that would run code, or
            one that holds no mapping.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    with open(path, "rb") as file:
        head = file.read(512)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(f"{path} is a web page, not weights: its download went wrong; get the file again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not weights; fetch the file with `git lfs pull`")
    whole = zipfile.is_zipfile(path)
    if head.startswith(b"PK\x03\x04") and not whole:
        raise ValueError(f"{path} is truncated ({path.stat().st_size} bytes); get the file again")
    try:
        with (
            torch.serialization.safe_globals([argparse.Namespace]),  # plain attributes, in DINO's files
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", UserWarning)  # of an odd pickle protocol: the error says it all
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from None
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        why = f": {reason}" if " " in reason else ""  # some say only which byte they met
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is damaged or no PyTorch file{why}; get the file again"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict of weights")
    return content


def _refusal(path: Path, message: str) -> str:
    """What to say of a file that the restricted unpickler did not read."""
    named = re.search(r"GLOBAL ([\w.]+)", message)
    if named is None:
        return (
            f"{path} is damaged or no PyTorch file, but perhaps another pickle, which could run code and was "
            "refused; get the file again, or save its tensors with torch.save"
        )
    return (
        f"{path} was refused: loading it would run code ({named[1]}). If you trust its author, load it "
        "yourself and save its state dict alone with torch.save(model.state_dict(), path)"
    )


def state_of(content: Mapping[str, Any], *, source: str = "the checkpoint") -> Mapping[str, Any]:
    """The state dict in a checkpoint, by the first of `FORMATS` that its content shows.

    Raises:
        ValueError: none of them.
    """
    for kind in FORMATS:
        if kind.matches(content):
            logger.debug("%s is read as %s", source, kind.name)
            return kind.state(content)
    listing = ", ".join(map(str, list(content)[:SHOWN]))
    raise ValueError(
        f"{source} is no state dict and no known kind of checkpoint (its entries: {listing}); pass the state "
        f"dict in it, or a key_map. Known: {', '.join(kind.name for kind in FORMATS)}"
    )


def without_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose key starts with `prefix`, without it; the others are left out."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def dino_teacher(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """DINO's training file: the teacher's backbone without its projection head."""
    teacher = {key.removeprefix("module."): value for key, value in content["teacher"].items()}
    return without_prefix(teacher, "backbone.")


def dinov2_teacher(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """DINOv2's training file: the teacher's backbone, with its chunks of blocks taken apart."""
    backbone = without_prefix(content["teacher"], "backbone.")
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value for key, value in backbone.items()}


def slot_model_backbone(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ViT in a VideoSAUR or SlotContrast checkpoint; pass it as `key_map`."""
    return without_prefix(state_of(content), SLOT_BACKBONE)


def crw_training_file(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """CRW's file: weights of convolutions that were saved behind a module for padding lose its number."""
    return {re.sub(r"(conv\d)\.1\.weight$", r"\1.weight", key): v for key, v in content["model"].items()}


def _is_crw(key: str) -> bool:
    return key.startswith("encoder.model.")


def _is_state(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())


def _has_teacher(content: Mapping[str, Any]) -> bool:
    teacher = content.get("teacher")
    return isinstance(teacher, Mapping) and any(
        key.removeprefix("module.").startswith("backbone.") for key in teacher
    )


FORMATS: tuple[Format, ...] = (
    Format("a plain state dict", _is_state, lambda content: content),
    Format(
        "a run of this library",
        lambda content: str(content.get("format", "")).startswith("vosssl/"),
        lambda content: content.get("ema") or content["network"],
    ),
    Format(
        "a DINO training file", lambda content: _has_teacher(content) and "student" in content, dino_teacher
    ),
    Format("a DINOv2 teacher file", _has_teacher, dinov2_teacher),
    Format(
        "a training file of STCN",
        lambda content: "it" in content and _is_state(content.get("network")),
        lambda content: content["network"],
    ),
    Format(
        "a Lightning checkpoint (VideoSAUR, SlotContrast)",
        lambda content: _is_state(content.get("state_dict")),
        lambda content: content["state_dict"],
    ),
    Format(
        "a file to resume Cutie's training",
        lambda content: _is_state(content.get("weights")),
        lambda content: content["weights"],
    ),
    Format(
        "a CRW training file",
        lambda content: _is_state(content.get("model")) and any(map(_is_crw, content["model"])),
        crw_training_file,
    ),
    Format(
        "a state dict under `model` (SAM 2)",
        lambda content: _is_state(content.get("model")),
        lambda content: content["model"],
    ),
)


def _require_match(network: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Raises a ValueError that names what is missing, unexpected or of another shape."""
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    no_tensors = [key for key, value in state.items() if not isinstance(value, Tensor)]
    reshaped = [
        f"{key} {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if isinstance(state.get(key), Tensor) and state[key].shape != own[key].shape
    ]
    faults = [
        _listing("missing", missing),
        _listing("unexpected", unexpected),
        _listing("of another shape", reshaped),
        _listing("no tensor", no_tensors),
    ]
    if any(faults):
        raise ValueError(
            f"{source} does not fit {type(network).__name__}: {'; '.join(filter(None, faults))}. "
            f"The weights look like {describe(state)}, the network like {describe(own)}"
        )


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{more})"


_FAMILIES = (  # a key's beginning -> what has it
    ("rope_embed.", "a DINOv3 ViT"),
    ("register_tokens", "a DINOv2 ViT with registers"),
    ("blocks.0.ls1.", "a DINOv2 ViT"),
    ("pos_embed", "a DINO ViT"),
    (SLOT_BACKBONE, "a slot model with its ViT"),
    ("processor.", "a slot model"),
    ("image_encoder.trunk.", "SAM 2"),
    ("image_encoder.layers.", "MobileSAM"),
    ("pixel_encoder.", "Cutie"),
    ("key_encoder.", "STCN"),
    ("encoder.model.", "CRW"),
    ("segformer.encoder.", "SegFormer or its encoder"),
    ("layer1.", "a ResNet"),
)


def describe(state: Mapping[str, Any]) -> str:
    """A few words on the model that a state dict belongs to, from its keys and shapes."""
    family = next((name for start, name in _FAMILIES if any(key.startswith(start) for key in state)), None)
    if family is None:
        return "no model known here"
    patch = state.get("patch_embed.proj.weight")
    if not isinstance(patch, Tensor) or patch.ndim != 4:
        return family
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    facts = [f"width {patch.shape[0]}", f"patch {patch.shape[-1]}", f"{depth} blocks"]
    if isinstance(state.get("pos_embed"), Tensor):
        facts.append(f"{state['pos_embed'].shape[1]} positions")
    if "norm.weight" not in state:
        facts.append("no final norm")
    return f"{family} ({', '.join(facts)})"
