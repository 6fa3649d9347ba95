"""Smaller numbers in graphs that are made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from vosssl.engine.export import described, write_manifest
from vosssl.engine.quantise import quantise
from vosssl.propagation.graph_folder import FORMAT, GraphFolder

ROWS = torch.linspace(-1, 1, 24).view(2, 4, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph of two products: with a stack of matrices, and with one matrix."""
    drawn = np.random.RandomState(0)
    stack, matrix = (drawn.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 5), (5, 6)))
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "stack"], ["between"], name="stacked"),
        onnx.helper.make_node("MatMul", ["between", "matrix"], ["y"], name="plain"),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, "rows", size])
        for name, size in (("x", 3), ("y", 6))
    ]
    constants = [
        onnx.numpy_helper.from_array(part, name) for name, part in (("stack", stack), ("matrix", matrix))
    ]
    graph = onnx.helper.make_graph(nodes, "products", values[:1], values[1:], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    place = tmp_path / "fp32"
    place.mkdir()
    onnx.save(model, place / "products.onnx")
    entries = {"products": described(place / "products.onnx")}
    write_manifest(place, {"format": FORMAT, "precision": "fp32", "graphs": entries})
    return place


@pytest.mark.parametrize("precision", ["int8", "int8-static", "fp16"])
def test_smaller_numbers_give_nearly_the_same(folder: Path, precision: str) -> None:
    target = folder.parent / precision
    calls = {"products": [{"x": ROWS.numpy()}]}
    manifest = quantise(folder, target, precision=precision, calls=calls)  # type: ignore[arg-type]
    assert manifest["precision"] == manifest["graphs"]["products"]["precision"] == precision
    (own,), (smaller,) = (GraphFolder(place)("products", x=ROWS) for place in (folder, target))
    assert torch.allclose(own, smaller, atol=0.05 * float(own.abs().max()))


def test_a_stack_of_matrices_stays_as_it_is(folder: Path) -> None:
    quantise(folder, folder.parent / "int8", precision="int8")
    kept = {
        constant.name for constant in onnx.load(folder.parent / "int8" / "products.onnx").graph.initializer
    }
    assert "stack" in kept and "matrix" not in kept


def test_a_graph_that_does_not_run_with_smaller_numbers_is_copied(folder: Path) -> None:
    calls = {"products": [{"x": ROWS[..., :2].numpy()}]}  # too narrow: no run can succeed
    manifest = quantise(folder, folder.parent / "int8", precision="int8", calls=calls)
    assert manifest["graphs"]["products"]["precision"] == "fp32"
    assert manifest["graphs"]["products"]["sha256"] == described(folder / "products.onnx")["sha256"]


def test_a_graph_that_would_change_too_much_is_copied(folder: Path) -> None:
    calls = {"products": [{"x": ROWS.numpy()}]}
    manifest = quantise(folder, folder.parent / "int8", precision="int8", calls=calls, most_change=1e-6)
    assert manifest["graphs"]["products"]["precision"] == "fp32"


def test_what_was_not_called_is_not_calibrated(folder: Path) -> None:
    calls = {"others": [{"x": ROWS.numpy()}]}
    manifest = quantise(folder, folder.parent / "static", precision="int8-static", calls=calls)
    assert manifest["graphs"]["products"]["precision"] == "fp32"


def test_an_unknown_precision_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="expected one of int8, int8-static, fp16"):
        quantise(folder, folder.parent / "int4", precision="int4")  # type: ignore[arg-type]
