"""How far a mean would move with other videos: bootstrap intervals of a mean and of a paired difference.

Videos are drawn, not frames or objects: frames of a video resemble each other, and so do its objects, so that
drawing them would promise more certainty than there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.metrics.score import Score

Values = Mapping[str, Sequence[float]]  # video -> what was measured in it, a value per object


class Measured(NamedTuple):
    """Values of one kind, a list per video, and their weights; None: each weighs 1."""

    values: Values
    weights: Values | None = None


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
    return composed_interval(
        [Measured(values_by_video, weights_by_video)], confidence=confidence, resamples=resamples, seed=seed
    )


def composed_interval(
    parts: Sequence[Measured], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """As `bootstrap_interval`, of a mean of means such as that of YouTube-VOS, over seen and unseen objects.

    Args:
        parts: what the means are of; the videos are those of any part. A draw in which a part has nothing is
            left out.
        confidence: share of the draws' means inside the interval.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        (low, high); NaN for fewer than two videos, or for NaN among the values.
    """
    names = _videos(parts)
    drawn = _drawn(parts, names, _draws(len(names), resamples=resamples, seed=seed))
    return Interval(*_percentiles(drawn.means[drawn.usable], confidence))


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
    return composed_difference(
        [Measured(first, weights_first)],
        [Measured(second, weights_second)],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def composed_difference(
    first: Sequence[Measured],
    second: Sequence[Measured],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """As `paired_difference`, of means of means.

    Args:
        first: the parts, as for `composed_interval`.
        second: the other method's, of the same videos.
        confidence: share of the draws inside the interval.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        Second minus first.

    Raises:
        ValueError: videos that only one of them has (names them).
    """
    names = _videos(first)
    if alone := sorted({*names} ^ {*_videos(second)}):
        raise ValueError(
            f"{', '.join(alone[:5])}{' …' if len(alone) > 5 else ''} scored for one method only; a paired "
            "difference needs the same videos: leave these out of both"
        )
    draws = _draws(len(names), resamples=resamples, seed=seed)
    once = torch.ones(1, len(names), dtype=torch.float64)  # each video once gives the mean itself
    before, after = (_drawn(parts, names, torch.cat([once, draws])) for parts in (first, second))
    gain = after.means - before.means  # (1 + R,)
    mean, gain = float(gain[0]), gain[1:][(before.usable & after.usable)[1:]]
    low, high = _percentiles(gain, confidence)
    better = (gain > 0).double().mean() + (gain == 0).double().mean() / 2
    return Difference(mean, low, high, math.nan if math.isnan(low) else float(better))


def measured_by_metric(scores: Iterable[Score]) -> dict[str, Measured]:
    """The values and weights of every metric by video, as the functions above take them.

    Args:
        scores: of a report.

    Returns:
        By the metric's name, a list per video that has any.
    """
    found: dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]] = {}
    for score in scores:
        values, weights = found.setdefault(score.metric, ({}, {}))
        values.setdefault(score.video, []).append(score.value)
        weights.setdefault(score.video, []).append(score.weight)
    return {metric: Measured(*both) for metric, both in found.items()}


def _videos(parts: Sequence[Measured]) -> list[str]:
    """Names of the videos in which any part was measured, sorted."""
    return sorted({name for part in parts for name, row in part.values.items() if len(row)})


def _totals(part: Measured, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Each video's weighted sum and weight, (V,) float64; 0 where the part has nothing of a video."""
    sums, totals = [], []
    for name in names:
        row = [float(value) for value in part.values.get(name, ())]
        weight = [1.0] * len(row) if part.weights is None else [float(w) for w in part.weights.get(name, ())]
        if len(weight) != len(row) or any(not value > 0 for value in weight):
            raise ValueError(
                f"{name} has {len(row)} values and weights {weight}, expected a positive weight per value"
            )
        sums.append(math.fsum(value * w for value, w in zip(row, weight, strict=True)))
        totals.append(math.fsum(weight))
    return torch.tensor(sums, dtype=torch.float64), torch.tensor(totals, dtype=torch.float64)


@lru_cache(maxsize=2)  # a report asks for the same draws of the same number of videos once a metric
def _draws(videos: int, *, resamples: int, seed: int) -> Tensor:
    """(R, V) float64, how often each draw holds each video; (0, V) when there are too few to draw from."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1; 2000 give steady percentiles")
    if videos < 2:
        return torch.empty(0, videos, dtype=torch.float64)
    drawn = torch.randint(videos, (resamples, videos), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, videos, dtype=torch.float64)
    return times.scatter_add_(1, drawn, torch.ones_like(times))


class _Drawn(NamedTuple):
    """Per draw (R,) the mean of means, and whether every part has something in it."""

    means: Tensor
    usable: Tensor


def _drawn(parts: Sequence[Measured], names: Sequence[str], draws: Tensor) -> _Drawn:
    """The mean over the parts of their weighted means, for each of the (R, V) draws."""
    totals = [_totals(part, names) for part in parts]
    sums = draws @ torch.stack([one for one, _ in totals], dim=1)  # (R, V) @ (V, P) -> (R, P)
    weights = draws @ torch.stack([one for _, one in totals], dim=1)
    return _Drawn((sums / weights).mean(dim=1), (weights > 0).all(dim=1))


def _percentiles(drawn: Tensor, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    if not len(drawn):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
