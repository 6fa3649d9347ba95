"""Parameters with a learning rate or a weight decay of their own, told by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

_NEEDED = {"name", "match"}
_KNOWN = _NEEDED | {"lr_factor", "weight_decay"}


def parameter_groups(
    network: nn.Module, rules: Sequence[Mapping[str, Any]] = (), *, lr: float | None = None
) -> list[dict[str, Any]]:
    """The trainable parameters of a network in groups, as an optimizer takes them.

    Args:
        network: whose parameters.
        rules: mappings with `name` (of the group, for the log), `match` (a regular expression that is
            searched in the names of parameters; the first rule that matches counts), and optionally
            `lr_factor` (the group's learning rate as a multiple of the optimizer's) and `weight_decay`.
        lr: the optimizer's learning rate; needed where a rule has an `lr_factor`.

    Returns:
        One group a rule, then that of all other parameters, where there are any.

    Raises:
        ValueError: a rule without name or match, with anything unknown, or that no parameter is left for.
    """
    groups = [_empty_group(rule, lr) for rule in rules]
    patterns = [re.compile(rule["match"]) for rule in rules]
    rest: dict[str, Any] = {"name": "rest", "params": []} if rules else {"params": []}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            fitting = (group for group, pattern in zip(groups, patterns, strict=True) if pattern.search(name))
            next(fitting, rest)["params"].append(weight)
    for rule, group in zip(rules, groups, strict=True):
        if not group["params"]:
            raise ValueError(
                f"parameter group {rule['name']} matches {rule['match']!r}, but no trainable parameter of "
                f"{type(network).__name__} is left for it; names look like {next(iter(network.state_dict()))}"
            )
    return [*groups, rest] if rest["params"] or not groups else groups


def _empty_group(rule: Mapping[str, Any], lr: float | None) -> dict[str, Any]:
    """A rule as a group without parameters."""
    keys = {str(key) for key in rule}
    if not keys >= _NEEDED or keys - _KNOWN or ("lr_factor" in keys and lr is None):
        raise ValueError(
            f"a parameter group is {dict(rule)}, expected name and match, and lr_factor (of the optimizer's "
            "lr, which then has to be given), weight_decay or both"
        )
    group: dict[str, Any] = {"name": rule["name"], "params": []}
    if "lr_factor" in keys and lr is not None:
        group["lr"] = lr * rule["lr_factor"]
    if "weight_decay" in keys:
        group["weight_decay"] = rule["weight_decay"]
    return group
