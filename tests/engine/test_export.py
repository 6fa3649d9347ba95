"""Graphs are written, compared with PyTorch, and described as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vosssl.engine.export import write_graphs
from vosssl.propagation.graph_folder import MANIFEST, Graph

EXAMPLES = [
    {"x": torch.rand(2, 3, 4), "y": torch.rand(2, 5)},
    {"x": torch.rand(3, 3, 7), "y": torch.rand(3, 2)},
]
FREE = {"x": {0: "objects", 2: "places"}, "y": {0: "objects", 1: "points"}}


def graph(function: Any, examples: Any = EXAMPLES) -> Graph:
    return Graph("sums", nn.Linear(3, 6), function, examples, ("z",), FREE)


def test_free_axes_have_the_names_that_the_graph_gives(tmp_path: Path) -> None:
    def function(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        mapped: Tensor = network(x.transpose(1, 2))  # (N, 3, P) -> (N, P, 6)
        return mapped + y.sum(dim=1)[:, None, None]

    manifest = write_graphs([graph(function)], tmp_path, facts={})
    entry = manifest["graphs"]["sums"]
    assert [one["shape"] for one in entry["inputs"]] == [["objects", 3, "places"], ["objects", "points"]]
    assert [one["shape"] for one in entry["outputs"]] == [["objects", "places", 6]]
    assert [check["fits"] for check in entry["checked"]] == [True, True]
    assert max(check["difference"] for check in entry["checked"]) < 1e-5


def test_an_axis_that_the_trace_fixed_is_a_number_in_the_manifest(tmp_path: Path) -> None:
    def function(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x.sum() * len(x) + y.sum(dim=1)  # len() of a tensor is a number, not a free size

    entry = write_graphs([graph(function)], tmp_path, facts={})["graphs"]["sums"]
    assert [one["shape"][0] for one in entry["inputs"]] == [2, 2]
    assert [check["fits"] for check in entry["checked"]] == [True, False]


def test_a_graph_that_differs_leaves_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")  # of an earlier export

    def function(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return y + (x.sum() if torch.compiler.is_exporting() else 0)

    with pytest.raises(ValueError, match=r"gives z that differs from PyTorch's by"):
        write_graphs([graph(function)], tmp_path, facts={})
    assert not (tmp_path / MANIFEST).exists()


def test_a_network_without_an_onnx_form_is_said_in_a_line(tmp_path: Path) -> None:
    def function(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.eigvals(x[..., :3] + 0 * y.sum()).real

    with pytest.raises(ValueError, match=r"graph 'sums' cannot be exported"):
        write_graphs([graph(function)], tmp_path, facts={})
