"""What a page's timeline shows: areas, matched objects and switches of slots or predicted ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.engine.drawing import id_colors
from vosssl.engine.html_page import css_color, number
from vosssl.engine.slot_identity import SlotIdentity, Switch, slot_identity
from vosssl.ops.masks import object_ids


def timeline_payload(
    identity: SlotIdentity, *, frames: Sequence[Any], names: Sequence[str], matched: bool = True
) -> dict[str, Any]:
    """A timeline for `FrameView.timeline` of html_page.js.

    Args:
        identity: of T frames and K slots.
        frames: what the T frames are called.
        names: what the K slots are called.
        matched: whether there was truth to match with.

    Returns:
        Rows of K by T values, and the switches.
    """
    return {
        "areas": [[number(value) for value in row] for row in identity.areas.T.tolist()],
        "matched": identity.matched.T.tolist() if matched else None,
        "ious": [[number(value) for value in row] for row in identity.ious.T.tolist()],
        "switches": [_switch_payload(switch, frames, names) for switch in identity.switches],
    }


def label_identity(
    labels: Tensor, truth: Tensor | None, *, labelled: Tensor | None = None
) -> tuple[tuple[int, ...], SlotIdentity]:
    """The predicted ids of a label video against the truth.

    Args:
        labels: (T, H, W) uint8 ids.
        truth: (T, H, W) uint8 ids, or None.
        labelled: (T,) bool, frames with truth; None means all.

    Returns:
        The ids, and what each holds over time.
    """
    ids = object_ids(labels)
    place = torch.full((VOID + 1,), -1)
    place[list(ids)] = torch.arange(len(ids))
    return ids, slot_identity(place[labels.long()], truth, num_slots=len(ids), labelled=labelled)


def object_colors(truth: Tensor) -> dict[int, str]:
    """The colour of background and of every object in a truth of any shape."""
    colors = id_colors()
    return {identity: css_color(colors[identity]) for identity in (0, *object_ids(truth))}


def _switch_payload(switch: Switch, frames: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    past = []
    if switch.object_before is not None:
        past.append(f"it held object {switch.object_before} before")
    if switch.slot_before is not None:
        past.append(f"{names[switch.slot_before]} held it before")
    text = f"{names[switch.slot]} takes object {switch.object} ({'; '.join(past)})"
    return {"frame": switch.frame, "slot": switch.slot, "text": f"frame {frames[switch.frame]}: {text}"}
