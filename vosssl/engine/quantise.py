"""Exported graphs with smaller numbers: int8 with or without calibration, and fp16, by ONNX Runtime."""

from __future__ import annotations

import logging
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vosssl.data.files import atomic_write
from vosssl.engine.export import described, require_exporter, write_manifest
from vosssl.propagation.graph_folder import MANIFEST, GraphFolder, read_manifest

log = logging.getLogger(__name__)

Smaller = Literal["int8", "int8-static", "fp16"]
Recorded = Mapping[str, Sequence[Mapping[str, np.ndarray]]]  # by graph, the inputs of its calls

PRODUCTS = ("MatMul", "Gemm")  # what weights are made int8 of without calibration; convolutions get slower
STATIC = ("MatMul", "Gemm", "Conv")
# Weights of 7 bits (`reduce_range`): sums of products of 8 overflow on processors without VNNI.
MOST_CALLS = 64  # of a graph that calibration looks at
MOST_BYTES = 2**30  # of what one graph is called with
TRIED_CALLS = 6  # that a new graph is compared with its source on
MOST_CHANGE = 0.05  # of an output's norm; Cutie's `predict` with 7 % cost .17 of J&F


@contextmanager
def recording(folder: GraphFolder) -> Iterator[Recorded]:
    """Keeps what the graphs of a folder are called with, for calibration; the first `MOST_CALLS` of each."""
    calls: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
    kept: dict[str, int] = defaultdict(int)

    def keep(name: str, inputs: dict[str, np.ndarray]) -> None:
        kept[name] += sum(value.nbytes for value in inputs.values())
        if not calls[name] or (len(calls[name]) < MOST_CALLS and kept[name] < MOST_BYTES):
            calls[name].append({key: value.copy() for key, value in inputs.items()})

    before, folder.record = folder.record, keep
    try:
        yield calls
    finally:
        folder.record = before


def require_precision(name: str) -> None:
    """Refuses, by a ValueError, what is no precision of graphs that are made smaller."""
    if name not in get_args(Smaller):
        raise ValueError(f"precision is {name!r}, expected one of {', '.join(get_args(Smaller))}")


def quantise(
    source: Path,
    target: Path,
    *,
    precision: Smaller,
    calls: Recorded | None = None,
    most_change: float = MOST_CHANGE,
) -> dict[str, Any]:
    """Makes a folder of graphs of smaller numbers from one of float32.

    Args:
        source: that `mode=export` wrote.
        target: gets the graphs and their manifest, which comes last.
        precision: `int8`: weights of matrix products, activations measured in every call; `int8-static`:
            also convolutions, activations by calibration; `fp16`: everything but inputs and outputs.
        calls: what calibration sees, of `recording`; each new graph is tried with some of its own.
        most_change: of the norm of an output on these calls.

    Returns:
        The new manifest. A graph that the tools cannot convert, whose outputs would change too much, or that
        calibration never called, is copied as it is; its `precision` says so.

    Raises:
        ValueError: an unknown precision, no calls for calibration, a source that is not float32.
        FileNotFoundError: there is no such source.
    """
    require_exporter()
    require_precision(precision)
    manifest = read_manifest(source)
    if manifest.get("precision") != "fp32":
        raise ValueError(f"{source} holds {manifest.get('precision')} graphs; quantise the fp32 ones")
    if precision == "int8-static" and not calls:
        raise ValueError("int8-static needs calibration: run the segmenter inside `recording` first")
    target.mkdir(parents=True, exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)
    graphs = {}
    for name, entry in manifest["graphs"].items():
        own = (calls or {}).get(name, [])
        path = target / entry["file"]
        reached = _convert(source / entry["file"], path, precision, own, most_change)
        graphs[name] = described(path) | {"precision": reached}
        log.info("%-18s %8.2f MB  %s", name, graphs[name]["bytes"] / 1e6, reached)
    made = {**manifest, "precision": precision, "graphs": graphs}
    write_manifest(target, made)
    return made


def _convert(
    source: Path,
    target: Path,
    precision: Smaller,
    calls: Sequence[Mapping[str, np.ndarray]],
    most_change: float,
) -> str:
    """Writes one graph, atomically; returns the precision that was reached."""
    ways: dict[str, Callable[[Path, Path], None]] = {
        "int8": _dynamic,
        "int8-static": lambda one, other: _static(one, other, calls),
        "fp16": _half,
    }
    with atomic_write(target) as partial:
        try:
            if precision == "int8-static" and not calls:
                raise ValueError("calibration never called it")
            ways[precision](source, partial)
            change = _change(source, partial, calls)
            if not change <= most_change:
                raise ValueError(f"an output would change by {change:.1%}, more than {most_change:.1%}")
        except Exception as error:  # the tools raise whatever they stumble over
            log.warning("%s stays fp32: %s", source.stem, str(error).splitlines()[0][:150])
            partial.write_bytes(source.read_bytes())
            return "fp32"
    return precision


def _change(source: Path, made: Path, calls: Sequence[Mapping[str, np.ndarray]]) -> float:
    """By how much of its norm an output changes, of that which changes most; 0 of a graph without calls."""
    session = _session(made)  # opens, at least
    tried = calls[:: max(len(calls) // TRIED_CALLS, 1)][:TRIED_CALLS]
    if not tried:
        return 0.0
    before = _session(source)
    errors = [_errors(before.run(None, dict(call)), session.run(None, dict(call))) for call in tried]
    return max(map(statistics.fmean, zip(*errors, strict=True)))


def _errors(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> list[float]:
    """By output, the norm of what changed as a part of its own norm; 0 of those that are no fractions."""
    changes = []
    for one, other in zip(before, after, strict=True):
        norm = max(float(np.linalg.norm(one)), 1e-12)
        changes.append(float(np.linalg.norm(one - other)) / norm if one.dtype.kind == "f" else 0.0)
    return changes


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _stacks(source: Path) -> list[str]:
    """Products with constants of more than two axes, which ONNX Runtime cannot run in int8 by channel."""
    import onnx

    graph = onnx.load(source).graph
    stacked = {constant.name for constant in graph.initializer if len(constant.dims) > 2}
    return [node.name for node in graph.node if node.op_type in PRODUCTS and stacked & set(node.input)]


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_exclude=_stacks(source),
        )


def _static(source: Path, target: Path, calls: Sequence[Mapping[str, np.ndarray]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calls)

        def get_next(self) -> Any:
            return next(self.left, None)

    with _quiet():
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(STATIC),
            nodes_to_exclude=_stacks(source),
        )


def _half(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers too small for fp16, which become the smallest
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools advise on the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
