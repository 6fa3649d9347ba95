"""Folders of exported graphs: they run, and what is wrong with one is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from vosssl.propagation.graph_folder import (
    FORMAT,
    MANIFEST,
    Example,
    ExportedNetwork,
    GraphFolder,
    file_hash,
    random_frames,
    random_masks,
    read_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One graph that doubles rows of three numbers, and its manifest."""
    kind = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, kind, ["rows", 3]) for name in ("x", "y")]
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "double", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "double.onnx")
    entry = {
        "file": "double.onnx",
        "sha256": file_hash(tmp_path / "double.onnx"),
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["rows", 3]}],
    }
    write(tmp_path, {"format": FORMAT, "graphs": {"double": entry}})
    return tmp_path


def write(folder: Path, manifest: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_graph_runs_with_any_number_on_a_free_axis(folder: Path) -> None:
    graphs = GraphFolder(folder)
    for rows in (1, 4):
        numbers = torch.arange(3.0 * rows).view(rows, 3)
        (doubled,) = graphs("double", x=numbers, unused=numbers)
        assert torch.equal(doubled, 2 * numbers)
    assert "double" in graphs and "triple" not in graphs


def test_what_graphs_are_called_with_can_be_kept(folder: Path) -> None:
    graphs, seen = GraphFolder(folder), []
    graphs.record = lambda name, inputs: seen.append((name, inputs["x"].shape))
    graphs("double", x=torch.ones(2, 3))
    assert seen == [("double", (2, 3))]


def test_an_axis_that_is_fixed_is_named_in_the_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"was given x \(2, 4\) and takes x \('rows', 3\).*export.frames"):
        GraphFolder(folder)("double", x=torch.ones(2, 4))


def test_a_file_of_another_export_is_refused(folder: Path) -> None:
    with (folder / "double.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="its hash differs"):
        GraphFolder(folder)("double", x=torch.ones(2, 3))


def test_a_missing_file_and_a_missing_graph_are_said(folder: Path) -> None:
    graphs = GraphFolder(folder)
    with pytest.raises(ValueError, match="has no graph 'triple', only double"):
        graphs("triple", x=torch.ones(2, 3))
    (folder / "double.onnx").unlink()
    with pytest.raises(FileNotFoundError, match="though the manifest names it"):
        graphs("double", x=torch.ones(2, 3))


def test_without_onnx_runtime_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not there
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        GraphFolder(folder)("double", x=torch.ones(2, 3))


def test_a_manifest_leads_to_no_other_folder(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest["graphs"]["double"]["file"] = "../double.onnx"
    write(folder, manifest)
    with pytest.raises(ValueError, match="expected the name of a file beside it"):
        GraphFolder(folder)("double", x=torch.ones(2, 3))


def test_a_folder_without_a_good_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        read_manifest(tmp_path)
    for content in ({"format": "other/1"}, ["graphs"]):
        write(tmp_path, content)
        with pytest.raises(ValueError, match="expected 'vosssl-onnx/1'"):
            read_manifest(tmp_path)


def test_a_network_without_graphs_says_where_they_come_from() -> None:
    with pytest.raises(ValueError, match="weights=FOLDER"):
        _ = ExportedNetwork().graphs


def test_examples_are_frames_and_masks_of_their_sizes() -> None:
    examples = [Example((16, 24), 2), Example((8, 8), 1)]
    for example, frame, masks in zip(examples, random_frames(examples), random_masks(examples), strict=True):
        assert frame.shape == (1, 3, *example.size) and frame.min() >= 0 and frame.max() <= 1
        assert masks.shape == (1, example.objects, *example.size) and masks.sum(1).max() <= 1 + 1e-6
