"""Settings for little memory."""

from __future__ import annotations

import pytest
import torch

import vosssl
from tests.methods.sam2_models import moving_rectangles, tiny_sam2
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.session import SAM2Session
from vosssl.methods.sam2.sizing import choose_settings, peak_mb


def tiny() -> SAM2:
    with torch.device("meta"):
        network = vosssl.create_model("sam2.1-hiera-tiny")
    assert isinstance(network, SAM2)
    return network


def test_less_memory_means_smaller_settings_and_never_more_than_there_is() -> None:
    sizes = []
    for gb in (8, 2, 1, 0.5):
        settings = choose_settings(tiny(), gb, objects=3)
        assert settings.needed_mb <= settings.given_mb == gb * 1024
        sizes.append(settings.image_size)
    assert sizes[0] == 1024 and sizes == sorted(sizes, reverse=True) and sizes[-1] < 1024
    with pytest.raises(ValueError, match=r"0\.1 GB do not hold SAM 2"):
        choose_settings(tiny(), 0.1)


def test_it_says_what_it_chose_in_one_line() -> None:
    line = str(choose_settings(tiny(), 8))
    assert line.startswith("SAM 2 with 1024 pixels in fp32, all objects at once") and "\n" not in line


def test_estimates_agree_with_measured_peaks() -> None:
    # megabytes of `scripts/bench_sam2.py --sizes 256,512 --objects 1,8` on a CPU, 10 frames
    for size, objects, measured in ((256, 1, 87), (256, 8, 122), (512, 1, 249)):
        estimate = peak_mb(tiny(), image_size=size, objects=objects, video_size=(480, 854), together=False)
        assert 0.7 * measured <= estimate <= 1.4 * measured


def test_a_session_takes_what_was_chosen() -> None:
    network = tiny_sam2()
    settings = choose_settings(network, 8, objects=1)
    session = SAM2Session(network, moving_rectangles(2, 48, 64, 11), **settings.options())  # type: ignore[arg-type]
    assert session.image_size == 1024 and session.memory_budget_mb == settings.memory_budget_mb
