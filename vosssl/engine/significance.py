"""How far a mean would move with other videos: bootstrap intervals of a mean and of a paired difference.

Videos are drawn, not frames or objects: frames of a video resemble each other, and so do its objects, so that
drawing them would promise more certainty than there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.metrics.score import Score

Values = Mapping[str, Sequence[float]]  # video -> what was measured in it, a value per object


class Interval(NamedTuple):
    """Where the mean of other videos of this kind is expected; NaN for fewer than two videos."""

    low: float
    high: float


class Difference(NamedTuple):
    """The second method against the first, on the same videos.

    Attributes:
        mean: second minus first.
        low: lower end of its interval; NaN for fewer than two videos.
        high: upper end.
        better: share of the draws in which the second is ahead, equal ones counted half; NaN likewise.
    """

    mean: float
    low: float
    high: float
    better: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values_by_video: Values,
    *,
    weights_by_video: Values | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a mean over all objects of all videos.

    Videos are drawn with replacement, as many as there are; each carries all of its objects, and their mean
    is taken anew. With few videos (fewer than about 20) such intervals are somewhat too narrow.

    Args:
        values_by_video: a value per object, by the video's name; a video without values does not count.
        weights_by_video: a weight per value; None: each weighs 1.
        confidence: share of the draws' means inside the interval.
        resamples: how many draws.
        seed: of the draws; the same gives the same interval, in whatever order the videos come.

    Returns:
        (low, high); NaN for fewer than two videos, of which nothing can be said, or for NaN among the values.

    Raises:
        ValueError: confidence not in (0, 1), no draws, or weights that do not fit.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979; the
        percentile interval: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    sums, weights = _totals(values_by_video, weights_by_video)
    drawn = _drawn_means(sums, weights, _draws(len(sums), resamples=resamples, seed=seed))
    return Interval(*_percentiles(drawn, confidence))


def paired_difference(
    first: Values,
    second: Values,
    *,
    weights_first: Values | None = None,
    weights_second: Values | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two means with its percentile interval: both methods see the same drawn videos.

    What makes a video hard is hard for both, so the interval of the difference is usually much narrower than
    those of the two means suggest.

    Args:
        first: as `values_by_video` of `bootstrap_interval`.
        second: the other method's, of the same videos.
        weights_first: as `weights_by_video`.
        weights_second: likewise.
        confidence: share of the draws inside the interval.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        Second minus first.

    Raises:
        ValueError: videos that only one of them has (names them), or as `bootstrap_interval`.

    Source: as `bootstrap_interval`; several samples drawn together, Efron and Tibshirani, chapter 8.
    """
    alone = {name for name in {*first, *second} if not (first.get(name) and second.get(name))}
    if alone := alone - {name for name in alone if not (first.get(name) or second.get(name))}:
        raise ValueError(
            f"{', '.join(sorted(alone)[:5])}{' …' if len(alone) > 5 else ''} scored for one method only; a "
            "paired difference needs the same videos: leave these out of both"
        )
    pairs = [_totals(first, weights_first), _totals(second, weights_second)]
    draws = _draws(len(pairs[0][0]), resamples=resamples, seed=seed)
    means = [float(sums.sum() / weights.sum()) for sums, weights in pairs]
    before, after = (_drawn_means(sums, weights, draws) for sums, weights in pairs)
    gain = after - before  # (R,)
    low, high = _percentiles(gain, confidence)
    better = (gain > 0).double().mean() + (gain == 0).double().mean() / 2
    return Difference(means[1] - means[0], low, high, math.nan if math.isnan(low) else float(better))


def values_of(scores: Iterable[Score], metric: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The values and weights of one metric by video, as the functions above take them.

    Args:
        scores: of a report.
        metric: a score's name, or `J&F`: each object's mean of J and F.

    Returns:
        Values and weights, a list per video that has any.
    """
    values: dict[str, list[float]] = {}
    weights: dict[str, list[float]] = {}
    if metric == "J&F":
        halves: dict[tuple[str, int | None], dict[str, float]] = {}
        for score in scores:
            if score.metric in ("J", "F"):
                halves.setdefault((score.video, score.object), {})[score.metric] = score.value
        for (video, _), half in halves.items():
            values.setdefault(video, []).append((half.get("J", math.nan) + half.get("F", math.nan)) / 2)
            weights.setdefault(video, []).append(1.0)
        return values, weights
    for score in scores:
        if score.metric == metric:
            values.setdefault(score.video, []).append(score.value)
            weights.setdefault(score.video, []).append(score.weight)
    return values, weights


def _totals(values: Values, weights: Values | None) -> tuple[Tensor, Tensor]:
    """Each video's weighted sum and weight, (V,) float64, in the order of the names."""
    sums, totals = [], []
    for name in sorted(name for name, row in values.items() if len(row)):
        row = [float(value) for value in values[name]]
        weight = [1.0] * len(row) if weights is None else [float(value) for value in weights.get(name, ())]
        if len(weight) != len(row) or any(not value > 0 for value in weight):
            raise ValueError(
                f"{name} has {len(row)} values and weights {weight}, expected a positive weight per value"
            )
        sums.append(math.fsum(value * w for value, w in zip(row, weight, strict=True)))
        totals.append(math.fsum(weight))
    return torch.tensor(sums, dtype=torch.float64), torch.tensor(totals, dtype=torch.float64)


def _draws(videos: int, *, resamples: int, seed: int) -> Tensor:
    """(R, V) int64 videos drawn with replacement; (0, V) when there are too few to draw from."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1; 2000 give steady percentiles")
    if videos < 2:
        return torch.empty(0, videos, dtype=torch.int64)
    return torch.randint(videos, (resamples, videos), generator=torch.Generator().manual_seed(seed))


def _drawn_means(sums: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """(R,) weighted means of the drawn videos."""
    return sums[draws].sum(dim=1) / weights[draws].sum(dim=1)  # (R, V) -> (R,)


def _percentiles(drawn: Tensor, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    if not len(drawn):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
