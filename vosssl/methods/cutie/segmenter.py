"""Cutie on video: the official program's settings around `MemorySegmenter`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vosssl.methods.cutie.network import Cutie
from vosssl.propagation.long_term import LongTerm
from vosssl.propagation.memory_segmenter import MemorySegmenter, Precision
from vosssl.propagation.multi_scale import at_scales
from vosssl.propagation.segmenter import VideoSegmenter


def cutie_segmenter(
    network: Cutie,
    *,
    mem_every: int = 5,
    top_k: int | None = 30,
    max_mem_frames: int | None = 5,
    max_mem_mb: float | None = None,
    stagger_updates: int = 5,
    chunk_size: int = -1,
    official_chunks: bool = False,
    max_internal_size: int = -1,
    flip_aug: bool = False,
    scales: Sequence[float] = (1.0,),
    use_long_term: bool = False,
    long_term_max_mem_frames: int = 10,
    long_term_min_mem_frames: int = 5,
    num_prototypes: int = 128,
    max_num_tokens: int = 10000,
    buffer_tokens: int = 2000,
    permanent_prompts: bool = False,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> VideoSegmenter:
    """Follows masks by Cutie's official settings for DAVIS and YouTube-VOS.

    Args:
        network: the trained one.
        mem_every, top_k, max_mem_frames, max_mem_mb, stagger_updates: see `MemorySegmenter`.
        chunk_size, official_chunks, max_internal_size, flip_aug: likewise.
        use_long_term: condense old frames instead of dropping them: for long videos.
        long_term_max_mem_frames, long_term_min_mem_frames: frames as `LongTerm` has them; they replace
            max_mem_frames.
        num_prototypes, max_num_tokens, buffer_tokens: see `LongTerm`.
        permanent_prompts, precision, device: see `MemorySegmenter`.

        scales: sizes of frames that are segmented side by side and averaged, as factors.

    Returns:
        The segmenter. Frames are padded with black, as in the official program.

    Raises:
        ValueError: options out of range.
    """
    long_term = LongTerm(
        max_mem_frames=long_term_max_mem_frames,
        min_mem_frames=long_term_min_mem_frames,
        num_prototypes=num_prototypes,
        max_num_tokens=max_num_tokens,
        buffer_tokens=buffer_tokens,
    )

    def at(scale: float) -> MemorySegmenter:
        return MemorySegmenter(
            network,
            mem_every=mem_every,
            top_k=top_k,
            max_mem_frames=max_mem_frames,
            max_mem_mb=max_mem_mb,
            long_term=long_term if use_long_term else None,
            stagger_updates=stagger_updates,
            permanent_prompts=permanent_prompts,
            flip_aug=flip_aug,
            chunk_size=chunk_size,
            official_chunks=official_chunks,
            max_internal_size=max_internal_size,
            precision=precision,
            device=device,
            scale=scale,
        )

    return at_scales(at, scales)
