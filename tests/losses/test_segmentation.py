"""Losses of supervised segmentation: solved by hand, and what void and class numbers mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vosssl.losses.segmentation import class_labels, cross_entropy, dice, focal, iou

LOSSES = [cross_entropy, focal, dice, iou]


def logits_of(foreground: list[float]) -> Tensor:
    """(1, 2, 1, W) logits whose softmax gives the foreground these probabilities."""
    shares = torch.tensor(foreground)
    return torch.stack([(1 - shares).log(), shares.log()])[None, :, None]


def test_cross_entropy_is_the_mean_surprise_of_the_known_pixels() -> None:
    classes = torch.tensor([[[1, 0, 255]]])
    expected = -(math.log(0.8) + math.log(0.6)) / 2
    assert cross_entropy(logits_of([0.8, 0.4, 0.9]), classes).item() == pytest.approx(expected, abs=1e-6)


def test_focal_weighs_easy_pixels_less() -> None:
    classes = torch.tensor([[[1, 0]]])
    logits = logits_of([0.9, 0.5])
    expected = -(0.1**2 * math.log(0.9) + 0.5**2 * math.log(0.5)) / 2
    assert focal(logits, classes).item() == pytest.approx(expected, abs=1e-6)
    assert focal(logits, classes, gamma=0).item() == pytest.approx(cross_entropy(logits, classes).item())


def test_dice_and_iou_by_hand() -> None:
    classes = torch.tensor([[[1, 1, 0, 255]]])
    logits = logits_of([0.5, 1 - 1e-7, 0.25, 0.9])  # shared 1.5, predicted 1.75, true 2
    assert dice(logits, classes, smooth=0).item() == pytest.approx(1 - 3 / 3.75, abs=1e-5)
    assert iou(logits, classes, smooth=0).item() == pytest.approx(1 - 1.5 / 2.25, abs=1e-5)


def test_a_class_that_is_neither_there_nor_predicted_costs_nothing() -> None:
    logits = torch.tensor([50.0, 0.0, -50.0])[None, :, None, None].expand(1, 3, 2, 2)
    nothing = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert dice(logits, nothing).item() == pytest.approx(0, abs=1e-5)
    assert iou(logits, nothing).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_void_pixels_do_not_count(loss) -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    classes[:, 2:] = 255
    other = logits.clone()
    other[:, :, 2:] = torch.randn(2, 3, 2, 4)
    assert torch.equal(loss(logits, classes), loss(other, classes))


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_but_void_is_a_loss_and_a_gradient_of_zero(loss) -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((1, 3, 3), 255))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_fall_along_their_gradient(loss) -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 4, 4))
    before = loss(logits, classes)
    before.backward()
    assert logits.grad is not None
    assert loss((logits - logits.grad).detach(), classes) < before


def test_two_classes_merge_objects_and_more_are_ids() -> None:
    labels = torch.tensor([[0, 1, 7, 255]], dtype=torch.uint8)
    assert class_labels(labels, 2).tolist() == [[0, 1, 1, 255]]
    assert class_labels(labels, 8).tolist() == [[0, 1, 7, 255]]
    with pytest.raises(ValueError, match="labels hold class 7, but num_classes is 3"):
        class_labels(labels, 3)
    with pytest.raises(ValueError, match="num_classes is 1"):
        class_labels(labels, 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_of_another_size_are_refused(loss) -> None:
    with pytest.raises(ValueError, match="resize the logits"):
        loss(torch.randn(1, 2, 2, 2), torch.zeros(1, 4, 4, dtype=torch.int64))
