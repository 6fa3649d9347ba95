"""Parameter groups: every parameter in one of them, rules in order, and rules that are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vosssl.engine.parameter_groups import parameter_groups


def network() -> nn.Module:
    parts = {"encoder": nn.Linear(2, 2), "queries": nn.Embedding(3, 2), "head": nn.Linear(2, 1)}
    return nn.ModuleDict(parts)


def test_without_rules_all_parameters_are_one_group() -> None:
    model = network()
    (group,) = parameter_groups(model)
    assert group == {"params": list(model.parameters())}


def test_the_first_rule_that_matches_counts_and_the_rest_keeps_the_optimizers_settings() -> None:
    model = network()
    rules = [
        {"name": "backbone", "match": "^encoder", "lr_factor": 0.1},
        {"name": "still", "match": r"(encoder|queries)\.weight$", "weight_decay": 0.0},
    ]
    groups = parameter_groups(model, rules, lr=0.5)
    optimizer = torch.optim.AdamW(groups, lr=0.5, weight_decay=0.01)
    found = [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [("backbone", 0.05, 0.01), ("still", 0.5, 0.0), ("rest", 0.5, 0.01)]
    assert [len(group["params"]) for group in groups] == [2, 1, 2]


def test_parameters_that_are_not_trained_are_left_out() -> None:
    model = network()
    model["encoder"].requires_grad_(False)
    (group,) = parameter_groups(model)
    assert len(group["params"]) == 3
    with pytest.raises(ValueError, match="no trainable parameter of ModuleDict is left"):
        parameter_groups(model, [{"name": "backbone", "match": "^encoder", "weight_decay": 0.0}])


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "a"},
        {"match": "head"},
        {"name": "a", "match": "head", "lr": 0.1},
        {"name": "a", "match": "head", "lr_factor": 0.1},  # of what? no lr was given
    ],
)
def test_rules_that_are_not_whole_are_refused(rule: dict) -> None:
    with pytest.raises(ValueError, match="expected name and match"):
        parameter_groups(network(), [rule])
