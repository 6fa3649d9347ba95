"""ARI, overlaps and object-centric J&F against the official VideoSAUR code, scikit-learn and SAVi."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.metrics.ari import adjusted_rand_index, image_ari, image_fg_ari, video_ari, video_fg_ari
from vosssl.metrics.object_jf import image_object_jf, video_object_jf
from vosssl.metrics.overlap import image_mbo, image_miou, video_mbo, video_miou

GOLDENS = Path(__file__).parents[1] / "goldens" / "metrics"
LABELS = np.load(GOLDENS / "labels.npz")
VALUES = json.loads((GOLDENS / "values.json").read_text())
CASES = [case for case in VALUES if f"{case}/true" in LABELS]
MASK_CASES = ["no_background_channel", "overlaps"]
PARTS = ("j_and_f", "jaccard", "boundary_f_measure")


def labels_of(case: str) -> tuple[Tensor, Tensor]:
    """(predicted, truth), each (T, H, W)."""
    return torch.from_numpy(LABELS[f"{case}/pred"]), torch.from_numpy(LABELS[f"{case}/true"])


def labels_of_masks(case: str) -> tuple[Tensor, Tensor]:
    """The same for cases with one mask per class: no class is background, two classes are void."""
    masks = LABELS[f"{case}/true_masks"]  # (T, C, H, W)
    count = masks.sum(axis=1)
    truth = np.where(count > 1, VOID, np.where(count == 0, 0, masks.argmax(axis=1) + 1))
    return torch.from_numpy(LABELS[f"{case}/pred"]), torch.from_numpy(truth.astype(np.uint8))


def measured(predicted: Tensor, truth: Tensor, *, foreground: bool) -> Iterator[tuple[str, Tensor]]:
    """Every metric by its official name, as (samples,) float64; a video is one sample."""
    ari = (video_fg_ari, image_fg_ari) if foreground else (video_ari, image_ari)
    yield "video_ari", torch.tensor([ari[0](predicted, truth)], dtype=torch.float64)
    yield "image_ari", ari[1](predicted, truth)
    options = {"ignore_background": foreground}
    for name, video, image in (("overlap", video_mbo, image_mbo), ("hungarian", video_miou, image_miou)):
        yield f"video_iou_{name}", torch.tensor([video(predicted, truth, **options)], dtype=torch.float64)
        yield f"image_iou_{name}", image(predicted, truth, **options)
    for by, flag in (("j_and_f", False), ("jaccard", True)):
        whole = [video_object_jf(predicted, truth, by_jaccard=flag, **options)]
        frames = image_object_jf(predicted, truth, by_jaccard=flag, **options)
        for place, part in enumerate(PARTS):
            yield f"video_jf_by_{by}/{part}", torch.tensor([v[place] for v in whole], dtype=torch.float64)
            yield f"image_jf_by_{by}/{part}", torch.tensor([v[place] for v in frames], dtype=torch.float64)


def check(name: str, samples: Tensor, expected: float | None) -> None:
    value = float(samples.nanmean())
    if expected is None:
        assert math.isnan(value), name
    else:
        assert value == pytest.approx(expected, abs=1e-6 if "_jf_" in name else 1e-9, rel=0), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("group", ["fg", "all"])
def test_every_value_equals_the_official_one(case: str, group: str) -> None:
    predicted, truth = labels_of(case)
    for name, samples in measured(predicted, truth, foreground=group == "fg"):
        check(name, samples, VALUES[case][f"{group}/{name}"])


@pytest.mark.parametrize("case", MASK_CASES)
def test_pixels_without_or_with_several_classes_are_treated_as_officially(case: str) -> None:
    predicted, truth = labels_of_masks(case)
    for name, samples in measured(predicted, truth, foreground=True):
        check(name, samples, VALUES[case][f"all/{name}"])


@pytest.mark.parametrize("group", ["fg", "all"])
def test_a_batch_is_the_mean_over_its_samples(group: str) -> None:
    official = VALUES["batch_plain_allbackground_nearlyperfect"]
    parts: dict[str, list[Tensor]] = {}
    for case in official["samples"]:
        for name, samples in measured(*labels_of(case), foreground=group == "fg"):
            parts.setdefault(name, []).append(samples)
    for name, samples_of in parts.items():
        check(name, torch.cat(samples_of), official[f"{group}/{name}"])


@pytest.mark.parametrize("case", CASES)
def test_ari_equals_that_of_scikit_learn_and_savi(case: str) -> None:
    predicted, truth = labels_of(case)
    got = {
        "sklearn/video_ari_all": video_ari(predicted, truth),
        "sklearn/video_ari_fg": video_fg_ari(predicted, truth),
        "sklearn/image_ari_all": float(image_ari(predicted, truth).mean()),
        "sklearn/image_ari_fg": float(image_fg_ari(predicted, truth).mean()),
    }
    for name, value in got.items():
        assert value == pytest.approx(VALUES[case][name], abs=1e-9), name
    for group in ("all", "fg"):
        assert got[f"sklearn/video_ari_{group}"] == pytest.approx(
            VALUES[case][f"savi/video_ari_{group}"], abs=1e-4
        )


def test_no_pixel_at_all_scores_one() -> None:
    assert adjusted_rand_index(torch.zeros(0, 3)) == 1.0
