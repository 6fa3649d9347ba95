"""yaml nodes to objects: networks, segmenters, datasets, by their `_target_` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vosssl.backbones.weights import load_weights
from vosssl.engine import checkpoint
from vosssl.engine.distributed import resolve_device
from vosssl.modes.config import EXPORTED, closest, config_dir, exported_method, options
from vosssl.propagation.graph_folder import ExportedNetwork
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.segmenter import VideoSegmenter

TRUSTED = (  # where the classes live that a configuration which came inside a checkpoint may construct
    "vosssl.methods.",
    "vosssl.layers.",
    "vosssl.backbones.",
    "vosssl.propagation.",
    "vosssl.data.",
    "vosssl.engine.schedule.",
    "torch.optim.",
)


def build(node: Mapping[str, Any] | DictConfig, *, trusted_only: bool = False, **arguments: Any) -> Any:
    """Constructs the object that a yaml node describes.

    Args:
        node: a mapping with one `_target_` and its keyword arguments; nested nodes are constructed first.
        trusted_only: construct only classes of `TRUSTED` and what our own yaml files name, for configurations
            read from a file that somebody else may have made.
        arguments: further keyword arguments, such as the network of a segmenter.

    Returns:
        Whatever the target returns.

    Raises:
        ValueError: the target does not exist, is not trusted, or rejects its arguments.
    """
    if not isinstance(node, Mapping | DictConfig) or not node.get("_target_"):
        raise ValueError(f"a part of the configuration is {node!r}, expected a mapping with one _target_")
    config = node if isinstance(node, DictConfig) else OmegaConf.create(dict(node))
    if trusted_only:
        _check_targets(OmegaConf.to_container(config, resolve=True))
    try:
        return instantiate(config, **arguments, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if type(error).__name__ == "InstantiationException" else error
        if isinstance(cause, FileNotFoundError | ValueError | MemoryError):
            raise cause from None
        if isinstance(cause, TypeError | ImportError | AttributeError) or cause is None:
            raise ValueError(f"cannot construct {config.get('_target_')}: {cause or error}") from cause
        raise


def _check_targets(node: Any) -> None:
    """Refuses every `_target_` that is neither a class of a trusted package nor named by our yaml files."""
    if isinstance(node, list):
        for value in node:
            _check_targets(value)
    if not isinstance(node, dict):
        return
    for value in node.values():
        _check_targets(value)
    target = node.get("_target_")
    if target is not None and not (isinstance(target, str) and _is_trusted(target)):
        raise ValueError(
            f"the checkpoint asks for {target!r}, which is not part of vosssl's models and data; if "
            "you wrote it yourself, choose its method=… (data=…, hparam=…) on the command line instead of "
            "taking it from the file"
        )


def _is_trusted(target: str) -> bool:
    """Functions can write files or fetch addresses, so only those that our own yaml files use pass."""
    if target in _named_targets():
        return True
    if not target.startswith(TRUSTED):
        return False
    try:
        found = get_object(target)
    except Exception:  # whatever an import raises: there is no such class
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(TRUSTED)


@cache
def _named_targets() -> frozenset[str]:
    """Every `_target_` in our yaml files."""
    texts = [path.read_text() for path in config_dir().rglob("*.yaml")]
    return frozenset(name for text in texts for name in re.findall(r"_target_:\s*([\w.]+)", text))


def list_models() -> list[str]:
    """Every model name: the files below cfg/method."""
    return options("method")


def method_config(name: str, *, weights: object = None) -> DictConfig:
    """The yaml of one model; that of `exported` is in the folder that `weights` names.

    Raises:
        ValueError: no such model; names the closest ones.
    """
    if name == EXPORTED and isinstance(weights, str | Path):
        return OmegaConf.create(exported_method(weights))
    if name not in options("method"):
        raise ValueError(f"no model is called {name!r}{closest(name, list_models())}")
    config = OmegaConf.load(config_dir() / "method" / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    return config


def create_model(name: str, *, weights: str | Path | Mapping[str, Tensor] | None = None) -> nn.Module:
    """Constructs a network by its name.

    Args:
        name: one of `list_models()`.
        weights: None for fresh weights; a known weight name, a path (an official checkpoint or one of ours)
            or a state dict. Loaded strictly.

    Returns:
        The network on the CPU, in evaluation mode; its state dict has the official checkpoint's keys.

    Raises:
        ValueError: unknown name, or weights that do not fit (names the keys).
        FileNotFoundError: no such weights file.
    """
    config = method_config(name, weights=weights)
    if "network" not in config:
        raise ValueError(f"{name} has no network; use create_segmenter({name!r})")
    network: nn.Module = build(config.network, trusted_only=name == EXPORTED)
    if weights is not None:
        load_network(network, weights)
    return network.eval()


def build_network(
    method: Mapping[str, Any] | DictConfig, *, weights: str | Path | None = None, trusted_only: bool = False
) -> nn.Module:
    """Constructs the network of a method's yaml, with weights where they are given.

    Args:
        method: the yaml, with a part `network`.
        weights: a checkpoint of ours, an official one, or a known name; None for fresh weights.
        trusted_only: see `build`.

    Returns:
        The network, on the CPU.
    """
    # whole weights make those of a first stage needless: its file may be gone by now
    first_stage = {"features": None} if weights and "features" in method["network"] else {}
    network: nn.Module = build(method["network"], trusted_only=trusted_only, **first_stage)
    if weights:
        load_network(network, weights)
    return network


def load_network(network: nn.Module, weights: str | Path | Mapping[str, Tensor]) -> None:
    """Loads one of our run checkpoints (averaged weights where it has them), or foreign weights, strictly.

    Raises:
        ValueError: weights that do not fit, a damaged or hostile file.
        FileNotFoundError: no such file.
    """
    if isinstance(network, ExportedNetwork):
        network.open(str(weights))
    elif isinstance(weights, str | Path) and checkpoint.is_ours(weights):
        checkpoint.load_network(network, checkpoint.load(weights), source=weights)
    else:
        load_weights(network, weights)


def create_segmenter(
    name: str,
    *,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    device: str = "auto",
    network: nn.Module | None = None,
    **options_by_name: Any,
) -> VideoSegmenter:
    """A model behind the interface every model shares: `reset()`, `step(frame, prompt=None)`.

    Args:
        name: one of `list_models()`.
        weights: as in `create_model`; None takes what the model's yaml names, or fresh weights.
        device: `auto`, `cpu`, `cuda`, `mps`, …
        network: use this network instead of constructing one.
        options_by_name: the segmenter's options by their official names.

    Returns:
        The segmenter, ready for the first frame; of a method that looks at the whole video first, an
        `OfflineSegmenter`: a function from videos to labelled frames.

    Raises:
        ValueError: unknown model or option, or weights that do not fit.
    """
    config = method_config(name, weights=weights)
    if "segmenter" not in config:
        raise ValueError(why_no_segmenter(config))
    return _over_network(name, config, "segmenter", network, weights, device, options_by_name)


def segmenters() -> list[str]:
    """The models that give masks."""
    return [name for name in list_models() if "segmenter" in method_config(name)]


def why_no_segmenter(config: DictConfig) -> str:
    """What to say of a method that does not follow objects through video, and what to do with it."""
    if config.name == EXPORTED:
        return "method=exported needs weights=FOLDER, which mode=export wrote; its manifest says the rest"
    if "prompter" in config:
        return (
            f"{config.name} answers prompts on images and follows nothing: it is a prompter, "
            f"vosssl.create_prompter({config.name!r}) or predict.prompter={config.name}; for the video "
            f"choose one of {', '.join(segmenters())}"
        )
    return f"{config.name} gives features, not masks; models with masks: {', '.join(segmenters())}"


def create_prompter(
    name: str = "mobile-sam",
    *,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    device: str = "auto",
    network: nn.Module | None = None,
    **options_by_name: Any,
) -> ImagePrompter:
    """A model that gives masks of an image from clicks, boxes and masks.

    Args:
        name: one of `prompters()`; `grab-cut` needs no weights.
        weights: as in `create_model`; None takes what the model's yaml names, or fresh weights.
        device: `auto`, `cpu`, `cuda`, `mps`, …
        network: use this network instead of constructing one.
        options_by_name: the prompter's options.

    Returns:
        The prompter: `set_image`, then `predict`; or for `ClickAndTrack`.

    Raises:
        ValueError: unknown model or option, one that takes no prompts, or weights that do not fit.
    """
    config = method_config(name, weights=weights)
    if "prompter" not in config:
        raise ValueError(
            f"{name} takes no clicks or boxes on images; models that do: {', '.join(prompters())}"
        )
    return _over_network(name, config, "prompter", network, weights, device, options_by_name)


def _over_network(
    name: str,
    config: DictConfig,
    part: str,
    network: nn.Module | None,
    weights: str | Path | Mapping[str, Tensor] | None,
    device: str,
    options_by_name: Mapping[str, Any],
) -> Any:
    """What a method's yaml builds over its network, which is frozen on the device; some need no network."""
    if "network" not in config:
        return build(config[part], **options_by_name)
    if network is None:
        network = create_model(name, weights=config.get("weights") if weights is None else weights)
    network = network.to(resolve_device(device)).eval().requires_grad_(False)
    return build(config[part], trusted_only=name == EXPORTED, network=network, **options_by_name)


def prompters() -> list[str]:
    """The models that give masks of images from clicks and boxes."""
    return [name for name in list_models() if "prompter" in method_config(name)]
