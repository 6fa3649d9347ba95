"""Writes networks as ONNX graphs: traced with one example, checked with others, with a manifest."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.data.files import atomic_write
from vosssl.propagation.graph_folder import FORMAT, MANIFEST, Graph, GraphFolder, file_hash

log = logging.getLogger(__name__)

LARGEST = 2 * 10**9  # bytes of a graph in one file: ONNX's format cannot hold more
TOLERANCE = 1e-2  # of an output's largest value: what is farther off is not the same computation


def write_graphs(
    graphs: Sequence[Graph],
    folder: Path,
    *,
    facts: Mapping[str, Any],
    opset: int = 18,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Exports graphs into a folder; its manifest comes last, when all of them are there and right.

    Args:
        graphs: what to export.
        folder: gets `NAME.onnx` for each and `manifest.json`; what it held under these names is replaced.
        facts: what else the manifest says: the method, its preprocessing, where the weights come from.
        opset: version of ONNX's operators.
        tolerance: how far ONNX Runtime may be from PyTorch, relative to an output's largest value.

    Returns:
        The manifest.

    Raises:
        ValueError: a graph that cannot be expressed, that is too large for one file, or whose results differ;
            nothing of an earlier export in this folder can be used then.
    """
    require_exporter()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # from here on the folder is incomplete
    manifest: dict[str, Any] = {"format": FORMAT, **facts, "opset": opset, "graphs": {}}
    for graph in graphs:
        entry = _written(graph, folder, opset=opset, tolerance=tolerance)
        manifest["graphs"][graph.name] = entry
        worst = max(check["difference"] for check in entry["checked"])
        log.info("%-18s %8.2f MB  differs by %.1e", graph.name, entry["bytes"] / 1e6, worst)
    write_manifest(folder, manifest)
    return manifest


def _written(graph: Graph, folder: Path, *, opset: int, tolerance: float) -> dict[str, Any]:
    """One graph in its file and its entry in the manifest: with free axes, or fixed ones if that fails."""
    path = folder / f"{graph.name}.onnx"
    try:
        write_graph(graph, path, opset=opset)
        return _entry(graph, path, tolerance)
    except ValueError as error:
        if not any(graph.free.values()):
            raise
        log.warning("%s: its axes are fixed, since with free ones %s", graph.name, error)
    fixed = replace(graph, free={})
    write_graph(fixed, path, opset=opset)
    return _entry(fixed, path, tolerance)


def _entry(graph: Graph, path: Path, tolerance: float) -> dict[str, Any]:
    entry = described(path)
    opened = GraphFolder(path.parent, manifest={"graphs": {graph.name: entry}})
    return entry | {"checked": [checked(graph, opened, inputs, tolerance) for inputs in graph.examples]}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Puts a manifest into a folder, whole or not at all."""
    with atomic_write(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=1))


def require_exporter() -> None:
    """Raises a ValueError unless the packages that write ONNX are installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"exporting needs {' and '.join(missing)}: pip install 'vosssl[export]'")


def write_graph(graph: Graph, path: Path, *, opset: int) -> None:
    """Exports one graph.

    Axes that the graph says are free stay free if the network's computations let them: what the exporter
    found out is in the file.

    Raises:
        ValueError: an operation that ONNX does not have, or weights of more than 2 GB.
    """
    weights = sum(weight.numel() * weight.element_size() for weight in graph.network.state_dict().values())
    if weights > LARGEST:
        raise ValueError(
            f"the network has {weights / 1e9:.1f} GB of weights; an ONNX file holds 2 GB at most"
        )
    traced = graph.examples[0]
    import onnx  # of the extra [export]

    free = tuple(dict.fromkeys(graph.free.get(name, ()), torch.export.Dim.AUTO) for name in traced)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                _Function(graph),
                tuple(tensor.clone() for tensor in traced.values()),  # of one tensor twice: one input
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=list(traced),
                output_names=list(graph.outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever went wrong
        raise ValueError(f"graph {graph.name!r} cannot be exported: {_reason(error)}") from error
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:]  # shapes in the exporter's own names of axes
    _name_axes(model.graph, graph, program.exported_program)
    with atomic_write(path) as partial:
        onnx.save(model, partial)


def _name_axes(written: Any, graph: Graph, traced: Any) -> None:
    """Calls axes of what goes in and comes out as the graph does; those that got fixed become numbers.

    Args:
        written: graph of an ONNX model; the exporter calls axes s0, s1, … here, also those it fixed later.
        graph: what was exported.
        traced: the exporter's program, which knows what became of each axis.
    """
    tensors = {node.name: node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"}
    given = zip(graph.examples[0], traced.graph_signature.user_inputs, strict=True)
    shapes = {name: tensors[placeholder].shape for name, placeholder in given}
    names = {
        str(shapes[name][axis]): label
        for name, labels in graph.free.items()
        if name in shapes
        for axis, label in labels.items()
    }
    for value in written.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes[value.name], strict=True):
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = names.get(str(size), str(size))
    for value in written.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param.replace(" ", ""), dim.dim_param)


class _Function(nn.Module):
    """A graph as the module that the exporter asks for."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.network = graph.network.eval()
        self.function = graph.function
        self.axes = [graph.free.get(name, {}) for name in graph.examples[0]]
        self.eval()

    def forward(self, *tensors: Tensor) -> Any:
        sizes: dict[str, int] = {}
        for tensor, labels in zip(tensors, self.axes, strict=True):
            for axis, label in labels.items():  # says that axes of one name are of one size
                torch._check(tensor.shape[axis] == sizes.setdefault(label, tensor.shape[axis]))
        return self.function(self.network, *tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps and warns of its own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"


def described(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: hash and size, names, types and shapes of what goes in and out."""
    import onnx  # of the extra [export]

    graph = onnx.load(path, load_external_data=False).graph
    return {
        "file": path.name,
        "sha256": file_hash(path),
        "bytes": path.stat().st_size,
        "inputs": [_value(value) for value in graph.input],
        "outputs": [_value(value) for value in graph.output],
    }


def _value(value: Any) -> dict[str, Any]:
    import onnx

    kind = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return {"name": value.name, "dtype": dtype, "shape": shape}


def checked(
    graph: Graph, opened: GraphFolder, inputs: Mapping[str, Tensor], tolerance: float
) -> dict[str, Any]:
    """Compares ONNX Runtime with PyTorch on one example.

    Returns:
        Shapes of the inputs, and the largest difference of any output in its own units; `fits` is False where
        a fixed axis has another size, so that there was nothing to compare.

    Raises:
        ValueError: the results differ by more than the tolerance.
    """
    shapes = {name: list(tensor.shape) for name, tensor in inputs.items()}
    fixed = opened.shapes(graph.name)
    if any(
        isinstance(axis, int) and axis != size
        for name, wanted in fixed.items()
        for axis, size in zip(wanted, shapes[name], strict=True)
    ):
        return {"inputs": shapes, "fits": False, "difference": 0.0}
    with torch.no_grad():
        expected = graph(inputs)
    largest = 0.0
    for name, own, other in zip(graph.outputs, expected, opened(graph.name, **inputs), strict=True):
        if own.shape != other.shape:
            raise ValueError(
                f"graph {graph.name!r} gives {name} {tuple(other.shape)} for {shapes}, PyTorch gives "
                f"{tuple(own.shape)}: the export fixed a size that should be free"
            )
        difference = float((own.float() - other.float()).abs().max()) if own.numel() else 0.0
        scale = max(1.0, float(own.float().abs().max())) if own.numel() else 1.0
        if not difference <= tolerance * scale:
            raise ValueError(
                f"graph {graph.name!r} gives {name} that differs from PyTorch's by {difference:.3g} for "
                f"{shapes}, expected at most {tolerance * scale:.3g}"
            )
        largest = max(largest, difference)
    return {"inputs": shapes, "fits": True, "difference": largest}
