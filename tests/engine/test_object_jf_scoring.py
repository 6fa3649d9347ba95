"""J&F of the object-centric papers, from a protocol's metrics to a report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vosssl.data.io import write_labels
from vosssl.engine.file_scoring import evaluate
from vosssl.engine.object_jf_scoring import ObjectJFScorer
from vosssl.engine.protocol import EvalProtocol, load_protocol
from vosssl.metrics.object_jf import image_object_jf, video_object_jf

METRICS = tuple(
    f"{scope}/{name}" for scope in ("video", "image") for name in ("object_jf", "object_j", "object_f")
)


def protocol(**options: object) -> EvalProtocol:
    fields = {"name": "p", "task": "unsupervised", "objects": "any-frame", "void": True, "metrics": METRICS}
    return EvalProtocol(**{**fields, **options})  # type: ignore[arg-type]


def maps(frames: int = 7, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coarse random labels and a truth with void, (T, 24, 40) each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (2, frames, 3, 5), generator=generator, dtype=torch.uint8)
    predicted, truth = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    truth[:, :4] = 255
    return predicted, truth


def scored(predicted: Tensor, truth: Tensor, used: EvalProtocol) -> dict[str, tuple[float, float]]:
    scorer = ObjectJFScorer("video", used)
    for pair in zip(predicted, truth, strict=True):
        scorer.update(*pair)
    return {score.metric: (score.value, score.weight) for score in scorer.finish()}


@pytest.mark.parametrize("background", [False, True])
def test_frame_by_frame_it_is_the_metric_of_the_whole_video(background: bool) -> None:
    predicted, truth = maps()
    found = scored(predicted, truth, protocol(background=background))
    whole = video_object_jf(predicted, truth, ignore_background=not background)
    frames = image_object_jf(predicted, truth, ignore_background=not background)
    assert [found[f"video/{name}"][0] for name in ("object_jf", "object_j", "object_f")] == pytest.approx(
        [*whole]
    )
    assert found["image/object_jf"] == (pytest.approx(sum(one.j_and_f for one in frames) / 7), 7)


def test_chunks_are_samples_and_what_is_left_over_is_dropped() -> None:
    predicted, truth = maps()
    chunks = [video_object_jf(predicted[t : t + 3], truth[t : t + 3]).jaccard for t in (0, 3)]
    found = scored(predicted, truth, protocol(chunk=3, metrics=("video/object_j",)))
    assert found == {"video/object_j": (pytest.approx(sum(chunks) / 2), 2)}


def test_perfect_segments_under_other_ids_score_one_and_nothing_scores_nothing() -> None:
    truth = maps()[1].masked_fill(maps()[1] == 255, 0)
    found = scored((truth * 7 + 1), truth, protocol(metrics=("image/object_jf",)))
    assert found["image/object_jf"][0] == pytest.approx(1.0)
    assert scored(truth, torch.zeros_like(truth), protocol()) == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_protocol_file_that_names_it_puts_it_into_the_report(tmp_path: Path, workers: int) -> None:
    predicted, truth = maps(60)  # more than one process takes at a time
    for name, labels in (("predicted", predicted), ("truth", truth)):
        for t, one in enumerate(labels):
            path = tmp_path / name / "video" / f"{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, one)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\ntask: unsupervised\nprompt: none\nobjects: any-frame\nvoid: true\n"
        "metrics: [video/fg_ari, video/object_jf]\n"
    )
    report = evaluate(tmp_path / "predicted", tmp_path / "truth", load_protocol(mine), workers=workers)
    assert report.metrics == ("video/fg_ari", "video/object_jf")
    assert report.mean("video/object_jf") == pytest.approx(video_object_jf(predicted, truth).j_and_f)
