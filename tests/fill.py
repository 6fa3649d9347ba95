"""Weights and inputs that any two implementations of one model can share without a file.

Every value depends on the parameter's name and shape only, so a replica that carries the official names and
is filled here computes what the official code computed with the same weights: its outputs are the goldens.
The numbers come from NumPy's legacy `RandomState`, whose stream never changes between versions.

    network.load_state_dict(filled(network.state_dict()))
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VIT_TOKENS = frozenset({"pos_embed", "cls_token", "register_tokens", "storage_tokens", "mask_token"})
SLOT_TOKENS = ("pos_emb", "pos_embed", "initializer.slots", "initializer.mean")
TOKEN_STD = 0.5  # tokens filled by their fan-in would be nearly zero, and mistakes in them invisible


def fill_tensor(name: str, like: Tensor, salt: str = "") -> Tensor:
    """The value of one parameter or buffer.

    Args:
        name: its key in the official checkpoint.
        like: any shape and dtype; only these are read.
        salt: another salt gives other weights; goldens use the empty one.

    Returns:
        Same shape and dtype as `like`: matrices and kernels with variance 1 / fan-in, scales near 1, biases
        near 0, running variances above 1. Integer entries are copied.
    """
    if not like.is_floating_point():
        return like.clone()
    seed = zlib.crc32(f"{salt}{name}".encode()) & (2**31 - 1)
    normal = np.asarray(np.random.RandomState(seed).standard_normal(tuple(like.shape)), dtype=np.float64)
    if name.endswith("running_var"):
        drawn = 1 + 0.1 * np.abs(normal)
    elif like.ndim < 2:
        drawn = 0.1 * normal + (1 if name.endswith(("weight", "gamma", "scale")) else 0)
    else:
        drawn = normal / math.sqrt(max(1, math.prod(like.shape[1:])))
    return torch.tensor(drawn, dtype=like.dtype)


def filled(state: Mapping[str, Tensor], salt: str = "") -> dict[str, Tensor]:
    """A state dict of the same keys, each entry from `fill_tensor`."""
    return {name: fill_tensor(name, like, salt) for name, like in state.items()}


def vit_filled(state: Mapping[str, Tensor], salt: str = "") -> dict[str, Tensor]:
    """`filled` for the ViTs: tokens and position embeddings of std 0.5, the constants of DINOv3 kept.

    Args:
        state: with the released checkpoint's keys, without any prefix.
        salt: see `fill_tensor`.

    Returns:
        The state dict. `rope_embed.periods` is 100^(i / n) for i < n, `qkv.bias_mask` 0 for keys, else 1.
    """
    state = dict(state)
    values = filled(state, salt)
    for name in VIT_TOKENS & state.keys():
        values[name] = values[name] * _token_gain(values[name])
    for name, like in state.items():
        if name == "rope_embed.periods":
            exponent = 2 * torch.arange(len(like), dtype=like.dtype) / (2 * len(like))
            values[name] = 100.0**exponent
        elif name.endswith("qkv.bias_mask"):
            values[name] = torch.tensor([1, 0, 1], dtype=like.dtype).repeat_interleave(len(like) // 3)
    return values


def slots_filled(state: Mapping[str, Tensor], salt: str = "") -> dict[str, Tensor]:
    """`filled` for slot models: loud embeddings and initial slots, kept coordinate grids, slot std 0.5.

    Args:
        state: with the official checkpoint's keys; entries ending in `grid` must hold their real values.
        salt: see `fill_tensor`.
    """
    values = filled(state, salt)
    for name, like in state.items():
        if name.endswith("log_std"):
            values[name] = torch.full_like(like, math.log(TOKEN_STD))
        elif name.endswith("grid"):
            values[name] = like.clone()
        elif name.endswith(SLOT_TOKENS):
            values[name] = values[name] * _token_gain(values[name])
    return values


def noise_video(frames: int, height: int, width: int, seed: int) -> Tensor:
    """A smooth random clip: 8x8 noise enlarged bicubically.

    Returns:
        (frames, 3, height, width) float32 RGB in (0, 1).
    """
    noise = np.random.RandomState(seed).standard_normal((frames, 3, 8, 8)).astype(np.float32)
    return F.interpolate(torch.from_numpy(noise), (height, width), mode="bicubic").sigmoid()


def box_mask(height: int, width: int, boxes: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Labels (height, width) int64: box k = (top, left, bottom, right), ends excluded, gets id k + 1."""
    labels = torch.zeros((height, width), dtype=torch.int64)
    for number, (top, left, bottom, right) in enumerate(boxes):
        labels[top:bottom, left:right] = number + 1
    return labels


def _token_gain(token: Tensor) -> float:
    return TOKEN_STD * math.sqrt(math.prod(token.shape[1:]))
