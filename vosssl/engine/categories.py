"""Which objects of YouTube-VOS belong to categories seen in training, from its meta.json files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


def object_groups(truth: Path, sequence: str) -> Mapping[int, str]:
    """The group of each object of a sequence.

    The truth's `meta.json` (beside its annotations or one folder up) names each object's category:
    `videos -> sequence -> objects -> id -> category`. Whether it was seen is said there by `seen`, or follows
    from the categories in the `meta.json` of the training set, `../train/meta.json`.

    Args:
        truth: folder of the true labels.
        sequence: its name.

    Returns:
        id -> `seen` or `unseen`.

    Raises:
        FileNotFoundError: no meta.json.
        ValueError: it does not name the sequence, or does not say what was seen.

    Source: the layout of the YouTube-VOS releases; "seen" as the organisers define it (youtube-vos.org).
    """
    videos, trained = _metadata(truth)
    if sequence not in videos:
        raise ValueError(f"meta.json of {truth} has no sequence {sequence}; it has {len(videos)} others")
    groups = {}
    for identity, entry in videos[sequence]["objects"].items():
        seen = entry.get("seen")
        if seen is None and trained is None:
            raise ValueError(
                f"meta.json of {truth} does not say whether {entry.get('category')} was seen in training; "
                f"put the training set's meta.json at {truth.parent.parent / 'train' / 'meta.json'}"
            )
        groups[int(identity)] = (
            "seen" if (entry["category"] in (trained or ()) if seen is None else seen) else "unseen"
        )
    return groups


@lru_cache(maxsize=4)
def _metadata(truth: Path) -> tuple[dict[str, Any], frozenset[str] | None]:
    """Videos of the set, and categories of the training set where its file is there."""
    for folder in (truth, truth.parent):
        if (folder / "meta.json").is_file():
            trained = folder.parent / "train" / "meta.json"
            return _videos(folder / "meta.json"), _trained(trained) if trained.is_file() else None
    raise FileNotFoundError(f"no meta.json in {truth} or {truth.parent}: it names the objects' categories")


def _videos(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
        raise ValueError(f"{path} has no videos, expected the meta.json of YouTube-VOS")
    return content["videos"]


def _trained(path: Path) -> frozenset[str]:
    return frozenset(
        entry["category"] for video in _videos(path).values() for entry in video["objects"].values()
    )
