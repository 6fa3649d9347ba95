"""Score: one measured number, with what it was measured on. A report is a list of them."""

from __future__ import annotations

from typing import NamedTuple


class Score(NamedTuple):
    """One number.

    Attributes:
        video: name of the sequence.
        object: id of the true object, or None when the number belongs to the whole video.
        metric: `video/fg_ari`, `video/ari`, `video/mbo`, `video/miou`, `image/…` likewise, `J`, `F`,
            `J/recall`, `J/decay`, `F/recall`, `F/decay`. `J&F` is derived from J and F, never stored.
        value: as the metric defines it; [0, 1] but for ARI and decay, which may be negative.
        weight: how many samples stand behind the value: frames for `image/…`, else 1.
    """

    video: str
    object: int | None
    metric: str
    value: float
    weight: float = 1.0
