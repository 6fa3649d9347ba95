from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.methods.savi import Objective, SAVi

SMALL: dict[str, Any] = {
    "size": (32, 32),
    "num_slots": 4,
    "slot_dim": 16,
    "channels": 8,
    "downsamplings": 1,
}
STARTS = ["boxes", "centres", "masks", "learned", "random"]


def _batch() -> Batch:
    labels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    labels[:, :, 4:12, 4:12] = 1
    labels[:, :, 20:28, 16:30] = 2
    return Batch(
        frames=torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8),
        labels=labels,
        flow=torch.randn(2, 3, 2, 32, 32),
        seeds=torch.tensor([1, 2]),
    )


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("target", ["rgb", "flow"])
def test_every_start_and_target_trains_all_parameters(start: Any, target: Any) -> None:
    network = SAVi(**SMALL, start=start, target=target)
    terms = Objective(start=start, target=target, objects=3)(network, _batch(), 0)
    assert list(terms) == [f"{target}_reconstruction"]
    terms[f"{target}_reconstruction"].backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []


def test_masks_and_reconstruction_have_the_resolution_of_the_frames() -> None:
    network = SAVi(**SMALL, start="learned")
    trace = Objective(start="learned").trace(network, _batch())
    assert trace.masks.shape == (2, 3, 4, 32, 32)
    assert trace.attention.shape == (2, 3, 4, 16, 16)
    assert trace.reconstruction.shape == trace.features.shape == (2, 3, 1024, 3)


def test_a_perfect_reconstruction_costs_nothing() -> None:
    batch = _batch()

    class Echo(nn.Module):
        """Returns the frames as the reconstruction."""

        def forward(self, frames: Tensor, **_: object) -> Any:
            trace = SAVi(**SMALL, start="learned")(frames)
            pixels = (frames.float() / 255).flatten(-2).transpose(-1, -2)
            return trace._replace(reconstruction=pixels)

    assert Objective(start="learned")(Echo(), batch, 0)["rgb_reconstruction"].item() == 0


def test_missing_hints_and_missing_flow_are_named() -> None:
    frames = torch.rand(1, 2, 3, 32, 32)
    with pytest.raises(ValueError, match="no labels"):
        Objective(start="boxes")(SAVi(**SMALL), Batch(frames=frames), 0)
    with pytest.raises(ValueError, match="optical flow"):
        network = SAVi(**SMALL, start="learned", target="flow")
        Objective(start="learned", target="flow")(network, Batch(frames=frames), 0)


def test_each_object_starts_from_its_own_hint() -> None:
    network = SAVi(**SMALL)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    slots = network.initial_slots(1, condition=boxes)
    swapped = network.initial_slots(1, condition=boxes.flip(1))
    assert torch.equal(slots[:, [0, 2, 1, 3]], swapped)


class _Dense(NamedTuple):
    patches: Tensor
    keys: Tensor
    grid: tuple[int, int]
    cls_attention: Tensor | None


class _Backbone(nn.Module):
    """Averages 8 x 8 pixels into a patch."""

    def dense(self, images: Tensor, *, cls_attention: bool = False) -> _Dense:
        pooled = torch.nn.functional.avg_pool2d(images, 8)
        patches = pooled.flatten(2).transpose(1, 2)
        return _Dense(patches, patches, (pooled.shape[-2], pooled.shape[-1]), None)


def test_a_vit_can_replace_the_cnn() -> None:
    network = SAVi(
        backbone=_Backbone(),
        features_dim=3,
        patch_size=8,
        size=(32, 32),
        num_slots=4,
        slot_dim=16,
        start="learned",
    )
    trace = Objective(start="learned").trace(network, _batch())
    assert trace.attention.shape == (2, 3, 4, 4, 4)
    assert trace.masks.shape == (2, 3, 4, 32, 32)
    assert Objective(start="learned")(network, _batch(), 0)["rgb_reconstruction"].isfinite()
