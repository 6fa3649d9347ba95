"""The head of self-distillation: from a token to how well it fits each of many prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """A three-layer MLP, unit length, then cosine similarities to prototypes.

    Args:
        width: of the tokens.
        hidden_dim: of the MLP.
        bottleneck_dim: of its result.
        prototypes: K, how many logits.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, appendix C:
        the last layer is weight-normalised with its gain fixed at 1.
    """

    def __init__(
        self, width: int, *, hidden_dim: int = 2048, bottleneck_dim: int = 256, prototypes: int = 65536
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck_dim))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    def forward(self, tokens: Tensor, *, frozen_prototypes: bool = False) -> Tensor:
        """(..., width) -> (..., K).

        Args:
            tokens: of a ViT.
            frozen_prototypes: their gradient is then zero, and not missing: processes that exchange gradients
                wait for each of them.
        """
        directions = F.normalize(self.mlp(tokens), dim=-1, eps=1e-6)
        prototypes: Tensor = self.prototypes
        if frozen_prototypes:
            prototypes = prototypes.detach() + 0.0 * prototypes
        return directions @ F.normalize(prototypes, dim=-1).T
