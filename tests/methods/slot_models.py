"""Comparing whole slot models with the official code's recorded outputs, losses and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.fill import slots_filled
from tests.layers.goldens import arrays, names_and_shapes, official
from vosssl.clip import Batch
from vosssl.layers.slot_network import SlotNetwork, SlotTrace
from vosssl.ops.resize import resize_masks

THEIR_LOSSES = {
    "temporal_similarity": "loss_timesim",
    "feature_reconstruction": "loss_featrec",
    "slot_contrast": "loss_ss",
}


def filled_network(network: SlotNetwork, name: str) -> SlotNetwork:
    """The network with the weights of the goldens, after checking its parameter names."""
    assert names_and_shapes(network) == official(name)
    network.load_state_dict(slots_filled(network.state_dict()))
    return network


def backbone_features(name: str, clips: int = 2) -> dict[str, dict[str, Tensor]]:
    """The features that the official model was given, as an argument of the network."""
    golden, prefix = arrays(), f"model/{name}/"
    return {
        "features": {
            "features": golden[f"{prefix}block12"][:clips],
            "keys": golden[f"{prefix}keys12"][:clips],
        }
    }


def given_noise(name: str) -> dict[str, Tensor]:
    """The noise of the official model's random slots as an argument; none for learned slots."""
    noise = arrays().get(f"model/{name}/noise")
    return {} if noise is None else {"noise": noise}


def check_trace(network: SlotNetwork, trace: SlotTrace, name: str) -> None:
    """Slots within 5e-5, the rest within 1e-5."""
    golden, prefix = arrays(), f"model/{name}/"
    predicted = network.predict(trace.slots.flatten(0, 1)).view_as(trace.slots)
    compared = {
        "slots": (trace.slots, 5e-5),
        "slots_predicted": (predicted, 5e-5),
        "grouping_masks": (trace.attention.flatten(-2), 1e-5),
        "decoder_masks": (trace.masks.flatten(-2), 1e-5),
        "reconstruction": (trace.reconstruction, 1e-5),
    }
    for key, (mine, tolerance) in compared.items():
        assert torch.allclose(mine, golden[prefix + key], atol=tolerance, rtol=0), key


def check_masks(trace: SlotTrace, name: str) -> None:
    """Masks resized bilinearly to 24 x 24, and the winners there."""
    golden, prefix = arrays(), f"model/{name}/"
    masks = resize_masks(trace.masks, (24, 24))
    assert torch.allclose(masks[:1], golden[f"{prefix}decoder_masks_24"], atol=1e-5, rtol=0)
    assert torch.equal(masks.argmax(2), golden[f"{prefix}decoder_argmax_24"].long())


def check_gradients(
    network: SlotNetwork,
    objective: Callable[[nn.Module, Batch, int], dict[str, Tensor]],
    name: str,
    weights: Mapping[str, float],
) -> None:
    """Losses within 1e-6, relative, and the norm of every parameter's gradient."""
    golden, prefix = arrays(), f"model/{name}/"

    class WithNoise(nn.Module):
        """The network with the recorded noise instead of seeds."""

        def forward(self, frames: Tensor, *, seeds: Tensor | None, **options: Any) -> SlotTrace:
            trace: SlotTrace = network(frames, **given_noise(name), **options)
            return trace

    batch = Batch(frames=torch.zeros(2, 4, 3, 96, 96), **backbone_features(name))
    terms = objective(WithNoise(), batch, 0)
    assert set(terms) == set(weights)
    for term, value in terms.items():
        theirs = golden[prefix + THEIR_LOSSES[term]] * weights[term]
        assert torch.allclose(value, theirs, rtol=1e-6), term
    loss = torch.stack(list(terms.values())).sum()
    assert torch.allclose(loss, golden[f"{prefix}loss"], rtol=1e-6)
    loss.backward()
    for parameter_name, parameter in network.named_parameters():
        theirs = golden[f"{prefix}grad_norm/{parameter_name}"]
        assert parameter.grad is not None, parameter_name
        # the bias of a softmax's keys has no gradient but rounding: the absolute part
        assert torch.allclose(parameter.grad.norm(), theirs, rtol=1e-5, atol=1e-6), parameter_name
