"""Exported graphs in a folder: what a graph is before it is written, and how a folder of them is run.

A folder holds one ONNX file per graph and `manifest.json`, which says which files belong together (by their
hashes), what goes in and out, what was checked, and how to make a segmenter of them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMAT = "vosssl-onnx/1"
MANIFEST = "manifest.json"
PLANE: Mapping[int, str] = {2: "height", 3: "width"}  # free axes of images

Inputs = Mapping[str, Tensor]


class Example(NamedTuple):
    """What a graph is traced or checked with: frames of `size` (H, W), showing so many objects."""

    size: tuple[int, int]
    objects: int


@dataclass(frozen=True)
class Graph:
    """A function of tensors that becomes one ONNX file.

    Attributes:
        name: of the file.
        network: holds the weights.
        function: network and tensors, in the order of the inputs, to a tensor or several.
        examples: inputs by name; the graph is traced with the first and has to be right for all.
        outputs: names.
        free: by input its axes that may change, if the network lets them, and what they are called; axes of
            one name are of one size.
    """

    name: str
    network: nn.Module
    function: Callable[..., Any]
    examples: Sequence[Inputs]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]

    def __call__(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What PyTorch computes."""
        result = self.function(self.network, *inputs.values())
        return (result,) if isinstance(result, Tensor) else tuple(result)


class Export(NamedTuple):
    """A network as graphs.

    Attributes:
        graphs: in the order in which they are written.
        network: the `_target_` and arguments of the `ExportedNetwork` that runs them.
        preprocessing: what the graphs want of a frame, in words.
    """

    graphs: list[Graph]
    network: dict[str, Any]
    preprocessing: str


def random_frames(examples: Sequence[Example]) -> list[Tensor]:
    """A frame (1, 3, H, W) in [0, 1] for each example, always the same: smooth colours."""
    generator = torch.Generator().manual_seed(0)
    return [
        F.interpolate(
            torch.rand(1, 3, 6, 8, generator=generator), size=example.size, mode="bicubic", antialias=True
        ).clamp(0, 1)
        for example in examples
    ]


def random_masks(examples: Sequence[Example]) -> list[Tensor]:
    """Soft masks (1, N, H, W) in [0, 1] of each example's objects, summing to at most 1."""
    generator = torch.Generator().manual_seed(1)
    masks = []
    for example in examples:
        logits = 4 * torch.randn(1, example.objects + 1, 4, 5, generator=generator)
        masks.append(F.interpolate(logits, size=example.size, mode="bilinear").softmax(dim=1)[:, 1:])
    return masks


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of exported graphs.

    Raises:
        FileNotFoundError: no such folder, or none with a manifest.
        ValueError: a manifest that cannot be read, or of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {MANIFEST}; expected a folder that mode=export wrote (export.folder=…)"
        )
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); export the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{path} is of format {found!r}, expected {FORMAT!r}; export the model again")
    return manifest


class GraphFolder:
    """The graphs of a folder in ONNX Runtime; each is opened, and its file compared with the manifest, when
    it is first called.

    Args:
        folder: that `mode=export` wrote.
        device: `cuda` runs on CUDA where ONNX Runtime can; the rest runs on the CPU.
        manifest: what its manifest says; None: it is read.

    Attributes:
        manifest: its content.
        record: called with each graph's name and inputs, as arrays; for calibration.

    Raises:
        FileNotFoundError, ValueError: see `read_manifest`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        manifest: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder) if manifest is None else manifest
        self.device = torch.device(device)
        self.record: Callable[[str, dict[str, np.ndarray]], None] | None = None
        self._sessions: dict[str, Any] = {}  # of onnxruntime, imported when the first is opened

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["graphs"]

    def __call__(self, name: str, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs a graph.

        Args:
            name: of the graph.
            inputs: by name; those that the graph has no use for are left out.

        Returns:
            Its outputs, on the device of the first input.

        Raises:
            ValueError: no such graph, one whose file is not the exported one, or an input that it does not
                take: says what it was exported for.
            FileNotFoundError: its file is not there.
        """
        session = self._session(name)
        wanted = [one.name for one in session.get_inputs()]
        arrays = {key: inputs[key].detach().cpu().contiguous().numpy() for key in wanted if key in inputs}
        if self.record is not None:
            self.record(name, arrays)
        try:
            results = session.run(None, arrays)
        except Exception as error:  # ONNX Runtime's have no common class
            raise ValueError(self._refusal(name, arrays, error)) from error
        device = next(iter(inputs.values())).device
        return tuple(torch.from_numpy(result).to(device) for result in results)

    def shapes(self, name: str) -> dict[str, list[int | str]]:
        """Shapes of a graph's inputs; an axis that may change has a name instead of a number."""
        entry = self._entry(name)
        return {one["name"]: one["shape"] for one in entry["inputs"]}

    def _entry(self, name: str) -> dict[str, Any]:
        graphs = self.manifest["graphs"]
        if name not in graphs:
            raise ValueError(f"{self.folder} has no graph {name!r}, only {', '.join(graphs)}; export again")
        entry: dict[str, Any] = graphs[name]
        return entry

    def _session(self, name: str) -> Any:
        if name in self._sessions:
            return self._sessions[name]
        onnxruntime = _runtime()
        entry = self._entry(name)
        file = str(entry["file"])
        path = self.folder / file
        if Path(file).name != file:
            raise ValueError(f"the manifest names {file!r}, expected the name of a file beside it")
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, though the manifest names it; export again")
        if file_hash(path) != entry["sha256"]:
            raise ValueError(
                f"{path} is not the file that was exported with this manifest (its hash differs): the two "
                "come from different exports, or the file is damaged; export again"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors: a hint about a constant helps nobody here
        self._sessions[name] = onnxruntime.InferenceSession(path, options, providers=self._providers())
        return self._sessions[name]

    def _providers(self) -> list[str]:
        wanted = ["CUDAExecutionProvider"] if self.device.type == "cuda" else []
        available = _runtime().get_available_providers()
        return [*(name for name in wanted if name in available), "CPUExecutionProvider"]

    def _refusal(self, name: str, arrays: Mapping[str, np.ndarray], error: Exception) -> str:
        given = ", ".join(f"{key} {tuple(array.shape)}" for key, array in arrays.items())
        taken = ", ".join(f"{key} {tuple(shape)}" for key, shape in self.shapes(name).items())
        reason = " ".join(str(error).split())[:200]
        return (
            f"graph {name!r} of {self.folder} was given {given} and takes {taken}: {reason}. Where "
            "an axis is a number there, it could not be left free: export for this size (export.frames)"
        )


def _runtime() -> Any:
    """ONNX Runtime; imported when the first graph is opened, since it takes a while."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            "running exported graphs needs ONNX Runtime: pip install onnxruntime, or onnxruntime-gpu for CUDA"
        ) from error
    return onnxruntime


class ExportedNetwork(nn.Module):
    """A network whose computations are exported graphs: what a segmenter gets in place of the real one.

    It is constructed empty, like any network, and `open` gives it its graphs. It cannot learn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1), requires_grad=False)  # says on which device it is
        self._graphs: GraphFolder | None = None

    def open(self, folder: str | Path) -> None:
        """Takes the graphs of a folder; where they run is decided when the first is called.

        Raises:
            FileNotFoundError, ValueError: see `read_manifest`.
        """
        self._graphs = GraphFolder(folder)

    @property
    def graphs(self) -> GraphFolder:
        """The graphs.

        Raises:
            ValueError: there are none yet.
        """
        if self._graphs is None:
            raise ValueError("no graphs were opened; give weights=FOLDER, a folder that mode=export wrote")
        self._graphs.device = self.anchor.device
        return self._graphs
