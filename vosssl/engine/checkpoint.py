"""Checkpoint files: written whole or not at all, read without running anything that is in them.

Content of a training checkpoint (`format` is `vosssl/1`): `config` (the composed configuration as plain
values), `network` and `ema` (state dicts with the same keys; `ema` may be None), `optimizer`, `schedule`,
`scaler`, `step`, `rng` (one state per process), `metrics` (the last validation), `best`, `alarms`.
"""

from __future__ import annotations

import errno
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.data.files import atomic_write

FORMAT = "vosssl/1"
_PLAIN = (str, int, float, bool, bytes, type(None), Tensor, torch.dtype, torch.Size)


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes a checkpoint such that the file at `path` is at every moment the old one or the new one, whole.

    The content is put together in memory first, so that a full disk is told by its size.

    Args:
        path: target; its folder is made.
        content: tensors, numbers, strings, and dicts, lists and tuples of them.

    Raises:
        ValueError: something in `content` could not be loaded again without running code; names it.
        OSError: the disk is full (names the file, its size and the free space), or the folder cannot be
            written; the old file stays.
    """
    _require_plain(content, "content")
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_write(path, needed=buffer.getbuffer().nbytes) as temporary:
        _write(temporary, buffer)


def _write(path: Path, buffer: io.BytesIO) -> None:
    path.write_bytes(buffer.getbuffer())


def _require_plain(value: Any, where: str) -> None:
    """Raises a ValueError unless a weights-only load can read `value` back."""
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        for key, item in value.items():
            _require_plain(key, where)
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not isinstance(value, _PLAIN) or type(value).__module__.startswith("numpy"):
        raise ValueError(
            f"{where} of the checkpoint is a {type(value).__module__}.{type(value).__qualname__}, expected "
            "tensors, numbers, strings and dicts or lists of them; convert it before saving"
        )


def load(path: Path | str, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint; never runs code that is in the file.

    Args:
        path: a file that `save` wrote.
        device: where its tensors go.

    Returns:
        The content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, would run code, or is no checkpoint of this library; says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            errno.ENOENT, "there is no such checkpoint; give the path of a .ckpt file", str(path)
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of an unusual pickle protocol: the error says it all
            content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, error)) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated or damaged; copy it again or use another one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = sorted(map(str, content))[:5] if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} is no checkpoint of this library: expected format {FORMAT!r}, found {found}; "
            "weights of other programs are given by weights=, not by resume="
        )
    return content


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Says why a file was refused: it wants code, or it is no checkpoint at all."""
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted:
        return (
            f"{path} was refused: loading it would run {wanted[1]} from the file; "
            "a checkpoint holds only tensors and plain values"
        )
    return (
        f"{path} was refused: it is no checkpoint but another kind of pickle, which could run code, or a "
        "damaged file; a checkpoint holds only tensors and plain values"
    )


def is_ours(path: Path | str) -> bool:
    """Whether a file is a whole checkpoint of this library, not official weights or a broken one."""
    try:
        load(path)
    except (ValueError, OSError):
        return False
    return True


def load_network(
    network: nn.Module, content: Mapping[str, Any], *, source: Path | str, prefer_ema: bool = True
) -> None:
    """Fills a network from a checkpoint's content.

    Args:
        network: network to fill; its `adapted_state(state)`, if any, completes weights of an earlier stage of
            its training.
        content: what `load` returned.
        source: where it comes from, for the error.
        prefer_ema: take the averaged weights where the checkpoint has some.

    Raises:
        ValueError: the checkpoint holds no network, or one of another model; says which names differ.
    """
    average = content.get("ema") if prefer_ema else None
    state = average or content.get("network")
    if not state:
        raise ValueError(f"{source} holds no network, only {', '.join(content)}")
    if hasattr(network, "adapted_state"):
        state = network.adapted_state(state)  # type: ignore[operator]
    load_state(network, state, source=source)


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Loads a state dict that has to fit exactly.

    Args:
        network: network to fill.
        state: tensors by name.
        source: where the state comes from, for the error.

    Raises:
        ValueError: names or shapes differ: a checkpoint of another model; says which names.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if missing or unexpected or reshaped:
        raise ValueError(
            f"{source} belongs to another model than {type(network).__name__}: "
            f"missing {_listing(missing)}; unexpected {_listing(unexpected)}; "
            f"of another shape {_listing(reshaped)}. Build the model that the checkpoint was saved from "
            "(its config is in the file)"
        )
    network.load_state_dict(state, strict=True)


def _listing(names: list[str], most: int = 6) -> str:
    """The first names and how many more there are."""
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
