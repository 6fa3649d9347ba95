"""Packs predictions for the servers that alone have the truth: what they expect, and a zip of it."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vosssl.clip import VOID
from vosssl.data.files import atomic_write
from vosssl.data.io import decode_labels, encode_labels, image_size, read_labels
from vosssl.data.listing import frame_name, image_names, neighbours
from vosssl.data.png import png_header
from vosssl.data.prediction_folders import LabelFolders, label_files
from vosssl.data.prediction_set import Predictions, some
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import Size

log = logging.getLogger(__name__)

_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same predictions make the same bytes


@dataclass(frozen=True)
class Server:
    """What an evaluation server takes.

    Attributes:
        name: what the command line calls it.
        folder: the folder in the zip that holds the sequences; empty: they lie at its top.
        videos: number of sequences of its split.
        source: where this is written.
    """

    name: str
    folder: str
    videos: int
    source: str


_TOP = "the DAVIS server's own message: sequences directly inside the zip (codalab-competitions #2709)"
_CUTIE = "what hkchengrex/Cutie uploads (make_zip, commit 23f2049)"
SERVERS = {
    server.name: server
    for server in (
        Server("youtube-vos-2018", "Annotations", 474, f"{_CUTIE}; youtube-vos.org: 474 videos"),
        Server("youtube-vos-2019", "Annotations", 507, f"{_CUTIE}; youtube-vos.org: 507 videos"),
        Server("mose-val", "", 311, f"{_CUTIE}; MOSE, arXiv:2302.01872: 311 videos"),
        Server("lvos-v1-test", "Annotations", 50, f"{_CUTIE}; LVOS README: 50 videos"),
        Server("davis17-test-dev", "", 30, f"{_TOP}; arXiv:1704.00675: 30 sequences"),
        Server("davis17-unsupervised-test-dev", "", 30, f"{_TOP}; arXiv:1905.00737: 30 sequences"),
    )
}


@dataclass(frozen=True)
class ExpectedSequence:
    """What has to be there for one sequence.

    Attributes:
        frames: names without suffix, in order.
        size: (H, W) of every label map.
        ids: objects that are given; None: any, where none is given.
    """

    frames: tuple[str, ...]
    size: Size
    ids: frozenset[int] | None


def expected_sequences(
    root: str | Path, *, sequences: Sequence[str] | None = None
) -> dict[str, ExpectedSequence]:
    """Learns from a dataset on disk what a submission has to hold; decodes the given masks, no frame.

    Args:
        root: holds `JPEGImages/<sequence>` and `Annotations/<sequence>` (each with `480p` between, in DAVIS).
        sequences: only these; None for all folders of frames.

    Returns:
        Sequence name -> its frames, size and objects.

    Raises:
        FileNotFoundError: no such folder, or a sequence without frames.
    """
    root = Path(root).expanduser()
    images, annotations = (_quality(root / name) for name in ("JPEGImages", "Annotations"))
    if not images.is_dir():
        raise FileNotFoundError(f"no frames of the dataset in {images}{neighbours(images)}")
    names = sorted(entry.name for entry in os.scandir(images) if entry.is_dir() and entry.name[0] != ".")
    missing = [name for name in sequences or () if name not in names]
    if missing or not names:
        raise FileNotFoundError(f"no frames of {some(missing) or 'any sequence'} in {images}")
    found = {}
    for name in names if sequences is None else sequences:
        files = image_names(images / name)
        given = annotations / name
        masks = [read_labels(given / file) for file in label_files(given).values()] if given.is_dir() else []
        size = image_size(images / name / files[0])
        ids = frozenset().union(*(object_ids(mask) for mask in masks)) if masks else None
        found[name] = ExpectedSequence(tuple(map(frame_name, files)), size, ids)
    return found


def _quality(folder: Path) -> Path:
    return folder / "480p" if (folder / "480p").is_dir() else folder


def pack(
    predictions: Predictions,
    expected: Mapping[str, ExpectedSequence],
    out: str | Path,
    *,
    server: Server,
    resize: bool = False,
    progress: bool = False,
) -> int:
    """Writes the zip for a server, whole or not at all.

    Label files that are as they have to be go in unchanged, all others are written as palette PNGs. Frames
    and sequences that the server does not ask for are left out.

    Args:
        predictions: from any program.
        expected: what the server asks for; see `expected_sequences`.
        out: the zip.
        server: says where the sequences lie in it.
        resize: stretch predictions of another size to that of the frames, by the nearest pixel.
        progress: show a bar.

    Returns:
        Number of frames written.

    Raises:
        FileNotFoundError: a sequence or frame has no prediction.
        ValueError: a prediction of another size, with an object that was not given, or damaged; names it.
        OSError: the disk is full.
    """
    require_split(expected, server)
    for name, sequence in expected.items():
        predictions.require_frames(name, sequence.frames)
    left_out = [name for name in predictions.sequences if name not in expected]
    if left_out:
        log.warning(
            "%s does not ask for %d sequences, left out: %s", server.name, len(left_out), some(left_out)
        )
    written = 0
    with (
        atomic_write(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,  # PNGs do not become smaller
    ):
        for name in tqdm(expected, desc="pack", unit="video", disable=not progress):
            for frame in expected[name].frames:
                place = "/".join(filter(None, (server.folder, name, f"{frame}.png")))
                entry = zipfile.ZipInfo(place, _DATE)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, _png(predictions, name, frame, expected[name], resize=resize))
                written += 1
    return written


def require_split(expected: Mapping[str, ExpectedSequence], server: Server) -> None:
    """Refuses a dataset folder that is not the server's split.

    Raises:
        ValueError: another number of sequences.
    """
    if len(expected) != server.videos:
        raise ValueError(
            f"the dataset folder has {len(expected)} sequences, {server.name} has {server.videos}; pass the "
            "folder of that split, or the list of its sequences"
        )


def _png(
    predictions: Predictions, name: str, frame: str, sequence: ExpectedSequence, *, resize: bool
) -> bytes:
    """The bytes of one label map: those of its file where nothing has to change."""
    encoded = None
    if isinstance(predictions, LabelFolders) and predictions.kind in ("auto", "labels"):
        encoded = Path(predictions.where(name, frame)).read_bytes()
        header = png_header(encoded)
        if header is None or not header.palette or header.size != sequence.size:
            encoded = None
    if encoded is not None:
        labels = decode_labels(encoded, predictions.where(name, frame))
    else:
        labels = predictions.labels(name, frame, size=sequence.size, resize=resize)
    problem = extra_ids(object_ids(labels), sequence, void=bool((labels == VOID).any()))
    if problem:
        raise ValueError(f"prediction {predictions.where(name, frame)} {problem}")
    return encode_labels(labels) if encoded is None else encoded


def extra_ids(ids: Sequence[int], sequence: ExpectedSequence, *, void: bool) -> str:
    """What is wrong with the ids of a label map; empty when nothing is."""
    if void:
        return "holds 255, which is no object; expected ids of objects and 0"
    extra = [] if sequence.ids is None else [identity for identity in ids if identity not in sequence.ids]
    if not extra:
        return ""
    given = some(map(str, sorted(sequence.ids or ())))
    return f"has {'ids' if len(extra) > 1 else 'id'} {some(map(str, extra))}, given are {given or 'none'}"


def read_split(path: str | Path) -> list[str]:
    """Names of sequences from a text file, one a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no names in it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no list of sequences {path}{neighbours(path)}")
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not names:
        raise ValueError(f"list of sequences {path} is empty, expected one name a line")
    return names
