"""Slot attention: slots compete for patches and are updated by what they win."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.layers.mlp import MLP


class Grouping(NamedTuple):
    """What slot attention returns.

    Attributes:
        slots: (B, K, D) updated slots.
        attention: (B, K, P) share of each patch that each slot won in the last iteration (mean over heads).
    """

    slots: Tensor
    attention: Tensor


class SlotAttention(nn.Module):
    """Iterative attention in which the softmax runs over slots, so that slots compete for patches.

    The defaults are VideoSAUR's: one head, projections without bias, and the *normalised* slots as the
    hidden state of the GRU. `gru_state="raw"` is the original algorithm, which SAVi and DINOSAUR follow;
    with several heads the softmax runs over slots and heads together.

    Args:
        input_dim: width C of the patches.
        slot_dim: width D of the slots.
        kvq_dim: width of keys, queries and values; `slot_dim` when left out.
        hidden_dim: hidden width of the slot MLP; 4 D when left out.
        iterations: updates per call unless the call says otherwise.
        heads: attention heads, a divisor of `kvq_dim`.
        qkv_bias: whether keys, queries and values have biases.
        use_gru: update slots by a GRU; otherwise by addition, which needs `kvq_dim == slot_dim`.
        use_mlp: follow each update by a residual MLP.
        gru_state: what the update starts from, the `normed` slots or the `raw` ones.
        implicit: differentiate the last of `iterations + 1` steps only (a first-order fixed-point gradient).
        eps: added to the attention before it is normalised over patches.

    Raises:
        ValueError: sizes that do not fit.

    Source: Locatello et al., "Object-Centric Learning with Slot Attention", NeurIPS 2020, algorithm 1;
        implicit differentiation: Chang et al., "Object Representations as Fixed Points", NeurIPS 2022.
    """

    def __init__(
        self,
        input_dim: int,
        slot_dim: int,
        *,
        kvq_dim: int | None = None,
        hidden_dim: int | None = None,
        iterations: int = 3,
        heads: int = 1,
        qkv_bias: bool = False,
        use_gru: bool = True,
        use_mlp: bool = True,
        gru_state: Literal["normed", "raw"] = "normed",
        implicit: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        kvq_dim = slot_dim if kvq_dim is None else kvq_dim
        if kvq_dim % heads:
            raise ValueError(f"kvq_dim {kvq_dim} is not a multiple of {heads} heads; change one of them")
        if not use_gru and kvq_dim != slot_dim:
            raise ValueError(f"without a GRU kvq_dim must equal slot_dim, got {kvq_dim} and {slot_dim}")
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}, expected at least 1")
        self.slot_dim = slot_dim
        self.iterations = iterations
        self.heads = heads
        self.gru_state = gru_state
        self.implicit = implicit
        self.eps = eps
        self.scale = (kvq_dim // heads) ** -0.5
        self.to_k = nn.Linear(input_dim, kvq_dim, bias=qkv_bias)
        self.to_v = nn.Linear(input_dim, kvq_dim, bias=qkv_bias)
        self.to_q = nn.Linear(slot_dim, kvq_dim, bias=qkv_bias)
        self.gru = nn.GRUCell(kvq_dim, slot_dim) if use_gru else None
        hidden_dim = 4 * slot_dim if hidden_dim is None else hidden_dim
        self.mlp = (
            MLP(slot_dim, slot_dim, hidden_dims=(hidden_dim,), layer_norm=True, residual=True)
            if use_mlp
            else None
        )
        self.norm_features = nn.LayerNorm(input_dim)
        self.norm_slots = nn.LayerNorm(slot_dim)

    def project(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of patches, which do not change over the iterations.

        Args:
            inputs: (N, P, C) patches; all frames of a clip may be projected at once.

        Returns:
            Keys and values, each (N, P, heads, kvq_dim / heads).
        """
        inputs = self.norm_features(inputs)
        keys = self.to_k(inputs).unflatten(-1, (self.heads, -1))  # (N, P, kvq) -> (N, P, heads, d)
        values = self.to_v(inputs).unflatten(-1, (self.heads, -1))
        return keys, values

    def step(self, slots: Tensor, keys: Tensor, values: Tensor, *, visible: Tensor | None = None) -> Grouping:
        """One update of the slots.

        Args:
            slots: (B, K, D).
            keys: (B, heads, P, d).
            values: (B, heads, P, d).
            visible: (B, K, P) bool, which patches each slot may see. A slot that sees nothing takes no part.

        Returns:
            Slots (B, K, D) and attention (B, K, P).
        """
        normed = self.norm_slots(slots)
        queries = self.to_q(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, K, d)
        logits = queries @ keys.transpose(-2, -1) * self.scale  # (B, heads, K, P)
        if visible is not None:
            logits = logits.masked_fill(~visible[:, None], torch.finfo(logits.dtype).min)
        attention = logits.flatten(1, 2).softmax(dim=1).view_as(logits)  # over heads and slots together
        if visible is not None:  # a patch that no slot may see belongs to none
            attention = attention.masked_fill(~visible[:, None], 0.0)
        weights = attention + self.eps
        updates = weights @ values / weights.sum(dim=-1, keepdim=True)  # (B, heads, K, d)
        updates = updates.transpose(1, 2).flatten(2)  # (B, K, kvq)
        state = normed if self.gru_state == "normed" else slots
        if self.gru is None:
            slots = state + updates
        else:
            slots = self.gru(updates.flatten(0, 1), state.flatten(0, 1)).view_as(slots)
        if self.mlp is not None:
            slots = self.mlp(slots)
        return Grouping(slots, attention.mean(dim=1))  # (B, heads, K, P) -> (B, K, P)

    def iterate(
        self,
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        iterations: int | None = None,
        visible: Tensor | None = None,
    ) -> Grouping:
        """Several updates of the slots, in single precision whatever the autocast state.

        Args:
            slots: (B, K, D) before the first update.
            keys: (B, P, heads, d) from `project`.
            values: (B, P, heads, d) from `project`.
            iterations: how many updates; the constructor's number when left out.
            visible: (B, K, P) bool, which patches each slot may see.

        Returns:
            Slots (B, K, D) and the attention (B, K, P) of the last update.
        """
        count = self.iterations if iterations is None else iterations
        with torch.autocast(slots.device.type, enabled=False):
            slots = slots.float()
            keys = keys.float().transpose(1, 2)  # (B, P, heads, d) -> (B, heads, P, d)
            values = values.float().transpose(1, 2)
            if self.implicit:
                with torch.no_grad():
                    for _ in range(count):
                        slots = self.step(slots, keys, values, visible=visible).slots
                return self.step(slots, keys, values, visible=visible)
            grouping = self.step(slots, keys, values, visible=visible)
            for _ in range(count - 1):
                grouping = self.step(grouping.slots, keys, values, visible=visible)
            return grouping

    def forward(
        self,
        slots: Tensor,
        inputs: Tensor,
        *,
        iterations: int | None = None,
        visible: Tensor | None = None,
    ) -> Grouping:
        """Groups patches: `project`, then `iterate`.

        Args:
            slots: (B, K, D) initial or predicted slots.
            inputs: (B, P, C) patches.
            iterations: how many updates; the constructor's number when left out.
            visible: (B, K, P) bool, which patches each slot may see.

        Returns:
            Slots (B, K, D) and attention (B, K, P).
        """
        keys, values = self.project(inputs)
        return self.iterate(slots, keys, values, iterations=iterations, visible=visible)
