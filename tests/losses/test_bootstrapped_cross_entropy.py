"""Cross-entropy of the hardest pixels: by hand, against the plain one, and its schedule."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vosssl.losses.bootstrapped_cross_entropy import bootstrapped_cross_entropy, hard_share


def two_by_two() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels whose cross-entropies are log 2, log 4, log 4/3 and log 4/3."""
    background = torch.tensor([[0.5, 0.25], [0.75, 0.75]])
    logits = torch.stack([background, 1 - background]).log()[None]
    return logits, torch.zeros(1, 2, 2, dtype=torch.int64)


def test_the_worst_half_of_four_pixels_counts() -> None:
    logits, classes = two_by_two()
    found = bootstrapped_cross_entropy(logits, classes, share=0.5)
    assert found.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2])
    assert bootstrapped_cross_entropy(logits, classes, share=0.1).tolist() == pytest.approx([math.log(4)])


def test_void_pixels_do_not_count() -> None:
    logits, classes = two_by_two()
    classes[0, 0, 1] = 255
    found = bootstrapped_cross_entropy(logits, classes)
    assert found.tolist() == pytest.approx([(math.log(2) + 2 * math.log(4 / 3)) / 3])
    assert bootstrapped_cross_entropy(logits, torch.full_like(classes, 255)).tolist() == [0.0]
    classes[0, 1] = 255
    assert bootstrapped_cross_entropy(logits, classes, share=0.75).tolist() == pytest.approx([math.log(2)])


def test_all_pixels_are_the_plain_cross_entropy_of_each_sample() -> None:
    logits, classes = torch.randn(3, 4, 5, 6), torch.randint(4, (3, 5, 6))
    expected = F.cross_entropy(logits, classes, reduction="none").mean(dim=(1, 2))
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, classes), expected)


def test_a_class_that_a_sample_lacks_changes_nothing_and_gets_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    classes = torch.randint(2, (1, 4, 4))
    lacking = logits.masked_fill(torch.tensor([False, False, True])[:, None, None], -torch.inf)
    loss = bootstrapped_cross_entropy(lacking, classes, share=0.5)
    torch.testing.assert_close(loss, bootstrapped_cross_entropy(logits[:, :2], classes, share=0.5))
    loss.sum().backward()
    assert logits.grad is not None and not logits.grad[:, 2].any() and logits.grad.isfinite().all()


def test_the_share_falls_along_a_line() -> None:
    assert [hard_share(step) for step in (0, 19_999, 20_000)] == [1.0, 1.0, 1.0]
    assert hard_share(45_000) == pytest.approx(0.575)
    assert [hard_share(step) for step in (70_000, 10**6)] == [0.15, 0.15]
    assert hard_share(5, start=5, end=5, share=0.3) == 0.3


def test_shapes_and_shares_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\)"):
        bootstrapped_cross_entropy(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="share in"):
        hard_share(0, share=0.0)
