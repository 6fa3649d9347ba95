"""Schedules against values worked out by hand."""

import math
from itertools import pairwise

import pytest

from vosssl.engine.schedule import Constant, Steps, WarmupCosine, WarmupExponential, decay_progress


def test_videosaur_schedule_has_its_published_values():
    schedule = WarmupExponential(warmup_steps=2500, decay_rate=0.5, decay_steps=100_000)
    assert schedule(0, 0.0) == 0.0
    assert schedule(1250, 0.0125) == 0.5
    assert schedule(2500, 0.025) == 1.0
    assert schedule(51_250, 0.5125) == pytest.approx(math.sqrt(0.5), rel=1e-12)
    assert schedule(100_000, 1.0) == pytest.approx(0.5, rel=1e-12)


def test_steps_lower_the_rate_at_their_points_and_keep_it_between():
    schedule = Steps(at=(0.5, 0.8), factor=0.3)
    rates = [schedule(0, fraction) for fraction in (0, 0.49, 0.5, 0.79, 0.8, 1)]
    assert rates == pytest.approx([1, 1, 0.3, 0.3, 0.09, 0.09])


def test_cosine_is_one_after_the_warm_up_half_in_the_middle_and_final_at_the_end():
    schedule = WarmupCosine(warmup_steps=10, final=0.1)
    assert schedule(5, 0.05) == 0.5
    assert schedule(10, 0.1) == 1.0
    assert schedule(55, 0.55) == pytest.approx(0.55, rel=1e-9)
    assert schedule(100, 1.0) == pytest.approx(0.1, rel=1e-9)


def test_a_run_on_the_clock_ends_its_cosine_whatever_its_number_of_steps():
    schedule = WarmupCosine(warmup_steps=10)
    for steps in (11, 37, 5000):
        assert schedule(steps, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_exponential_decay_without_a_step_reaches_its_rate_at_the_end_of_the_run():
    schedule = WarmupExponential(warmup_steps=10, decay_rate=0.25)
    assert schedule(321, 1.0) == pytest.approx(0.25)


def test_decay_progress_of_a_run_of_steps_counts_steps_after_the_warm_up():
    for step in range(20, 101):
        assert decay_progress(step, step / 100, 20) == pytest.approx((step - 20) / 80, abs=1e-12)


@pytest.mark.parametrize("schedule", [Constant(4), WarmupCosine(4), WarmupExponential(4, 0.5, 50)])
def test_every_schedule_rises_to_one_and_never_rises_again(schedule):
    factors = [schedule(step, step / 50) for step in range(51)]
    assert factors[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(later <= earlier for earlier, later in pairwise(factors[4:]))


def test_decay_that_would_end_within_the_warm_up_is_refused():
    with pytest.raises(ValueError, match="decay_steps is 100, expected more than the 2500"):
        WarmupExponential(decay_steps=100)
