"""mode=download: says what a dataset is, brings it to a folder, verifies, unpacks and looks at it."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vosssl.data import web
from vosssl.data.archives import is_unpacked, unpack
from vosssl.data.check import quick
from vosssl.data.download import DownloadError, Wanted, download_all, locked
from vosssl.data.files import path_inside, require_space
from vosssl.data.joined_files import JoinedFiles
from vosssl.data.release import Release, RemoteFile, listed
from vosssl.modes.config import closest, options

PROBED = 8  # most files whose size is asked for, one by one, before the user is asked
PROBE_TIMEOUT = 10  # seconds
CHUNK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Item:
    """One file of the release and its places.

    Attributes:
        file: as the release describes it.
        pieces: where it is downloaded to; several where the release splits it.
        root: of the dataset.
        marker: says that it is unpacked.
    """

    file: RemoteFile
    pieces: tuple[Path, ...]
    root: Path
    marker: Path

    @property
    def in_place(self) -> Path:
        """Where a file that is not unpacked ends up."""
        return self.root / self.file.into / self.file.name

    @property
    def is_done(self) -> bool:
        """Whether its content is below the root."""
        if not self.file.unpack:
            return self.in_place.is_file()
        said = {"strip": self.file.strip, "into": self.file.into}
        return is_unpacked(self.marker, self.root, expected=said)

    @property
    def is_loaded(self) -> bool:
        """Whether it lies in the download folder, put there by us or by hand."""
        return all(piece.is_file() for piece in self.pieces)


def run(cfg: DictConfig) -> None:
    """Downloads what `data=` names into `data.root`.

    Raises:
        ValueError: no data, no root, nothing to download, not agreed to, or files that a person has to get.
        OSError: it does not fit on the disk.
    """
    release, root = _asked_for(cfg)
    _open_log()
    name, folder = str(cfg.data.name), Path(cfg.download.folder or root / "downloads").expanduser()
    items = [_item(file, root, folder) for file in _files(release, cfg.download.parts)]
    missing = [item for item in items if not item.is_done]
    if not missing or (
        cfg.download.parts is None and root.is_dir() and release.expect and not _look(root, release)
    ):
        _say(f"{release.title or name} is in {root}; nothing to download")
        _say_findings(root, release)
        return
    ready = [item for item in missing if item.is_loaded or _is_free(item.file, release, cfg)]
    by_hand = [item for item in missing if item not in ready]
    sizes = _sizes([item for item in ready if not item.is_loaded])
    _say(_summary(release, name, root, missing, ready, sizes))
    if by_hand:
        _say(_instructions(by_hand, release, cfg))
    if ready:
        _agree(cfg)
        _load_and_unpack(ready, root, folder, sizes, release, cfg)
        _say_findings(root, release)
    if by_hand:
        names = ", ".join(item.file.name for item in by_hand[:4]) + (" …" if len(by_hand) > 4 else "")
        raise ValueError(
            f"{len(by_hand)} of {len(items)} files of {name} have to be fetched by hand ({names}): put them "
            f"into {folder}, then type: {_command()}"
        )


def _asked_for(cfg: DictConfig) -> tuple[Release, Path]:
    """The release that `data=` names, and the folder it goes to."""
    if not cfg.get("data"):
        raise ValueError(f"mode=download needs data=NAME root=FOLDER{closest('', options('data'))}")
    block = OmegaConf.to_container(cfg.data.release, resolve=True) if cfg.data.get("release") else None
    release = Release.from_dict(block if isinstance(block, dict) else None)  # type: ignore[arg-type]
    if not release.files:
        raise ValueError(f"data={cfg.data.name} is made or brought by you: there is nothing to download")
    if cfg.data.get("root") in (None, ""):
        raise ValueError(f"mode=download needs the folder to fill: data={cfg.data.name} root=FOLDER")
    return release, Path(cfg.data.root).expanduser()


def _files(release: Release, parts: Sequence[str] | None) -> list[RemoteFile]:
    """The files of the chosen parts; listings are asked for theirs."""
    found: dict[tuple[str, str], RemoteFile] = {}
    objects: dict[str, list[dict[str, object]]] = {}
    for file in release.chosen(parts):
        expanded = [file]
        if file.listing:
            if file.listing not in objects:
                objects[file.listing] = web.bucket_objects(file.listing)
            expanded = listed(file, objects[file.listing])
            if not expanded:
                raise DownloadError(f"the listing {file.listing} holds no {file.select}; it may have changed")
        for one in expanded:  # two parts may share a file
            found.setdefault((one.into, one.name), one)
    return list(found.values())


def _item(file: RemoteFile, root: Path, folder: Path) -> Item:
    names = [PurePosixPath(unquote(urlsplit(url).path)).name for url in file.urls] or [file.name]
    if (folder / file.name).is_file():  # somebody joined the pieces by hand
        names = [file.name]
    place = folder
    if not file.unpack and not (folder / file.name).is_file():
        place = root / file.into
    pieces = tuple(path_inside(place, name) for name in names)
    return Item(file, pieces, root, folder / f"{file.name}.unpacked.json")


def _is_free(file: RemoteFile, release: Release, cfg: DictConfig) -> bool:
    """Whether we may load it: it has an address, and no gate stands before it."""
    return not file.by_hand and (release.gate is None or file.open or cfg.download.registered)


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    """Bytes of each file that are known, from the release or from its server."""
    sizes = {item.file.name: item.file.bytes for item in items if item.file.bytes is not None}
    unknown = [item for item in items if item.file.bytes is None]
    for item in unknown if len(unknown) <= PROBED else []:
        try:
            totals = [web.probe(url, timeout=PROBE_TIMEOUT).total for url in _addresses(item.file)]
        except (OSError, HTTPException, web.RefusedError):
            continue  # what is wrong is said when it is loaded
        if None not in totals:
            sizes[item.file.name] = sum(total for total in totals if total is not None)
    return sizes


def _addresses(file: RemoteFile) -> list[str]:
    if file.google_drive:
        return [web.drive_url(file.google_drive)]
    return list(file.urls) or [file.url or ""]


def _summary(
    release: Release,
    name: str,
    root: Path,
    missing: Sequence[Item],
    ready: Sequence[Item],
    sizes: dict[str, int],
) -> str:
    """What it is, under which terms, how large, and where it goes."""
    lines = [
        f"{release.title or name}",
        f"  home       {release.home or '-'}",
        f"  licence    {release.licence or 'not stated; see the home page'}",
    ]
    if release.gate:
        lines.append(f"  gate       {release.gate}")
    known, total = sum(sizes.values()), sum(not item.is_loaded for item in ready)
    size = f"{known / 1e6:,.0f} MB to load" if sizes or not total else "size unknown"
    if len(sizes) < total and sizes:
        size += f", and {total - len(sizes)} files of unknown size"
    elif not sizes and total and release.megabytes:
        size = f"about {release.megabytes:,.0f} MB to load"
    if not ready:
        size = "to be fetched by hand"
    if release.parts:
        lines.append(f"  parts      {', '.join(release.parts)}; choose with download.parts=[…]")
    lines += [f"  files      {len(missing)}: {size}", f"  goes to    {root.absolute()}"]
    for item in missing[:12]:
        state = "already downloaded" if item.is_loaded else item.file.address
        mb = f" {sizes[item.file.name] / 1e6:,.1f} MB" if item.file.name in sizes else ""
        lines.append(f"    {item.file.name}{mb}  {state}")
    if len(missing) > 12:
        lines.append(f"    … and {len(missing) - 12} more")
    if release.note:
        lines.append(f"  note       {release.note}")
    return "\n".join(lines)


def _instructions(by_hand: Sequence[Item], release: Release, cfg: DictConfig) -> str:
    """What a person has to do for files that are not ours to load."""
    lines = ["", "not loaded for you:"]
    if release.gate:
        lines.append(f"  first      {release.gate}")
    for item in by_hand:
        lines.append(f"  save as    {item.pieces[0].absolute()}   ({item.file.by_hand or item.file.address})")
    lines.append(f"  then type  {_command()}")
    if release.gate and any(not item.file.by_hand for item in by_hand):
        lines.append(
            "  or, when you have registered and accepted the terms, let the copies above be loaded:\n"
            f"             {_command('download.registered=true')}"
        )
    return "\n".join(lines)


def _command(*more: str) -> str:
    """What the user typed, with something added."""
    typed = [text for text in HydraConfig.get().overrides.task if text not in more]
    return shlex.join(["python", "-m", "vosssl", *typed, *more])


def _agree(cfg: DictConfig) -> None:
    """Waits for yes on a terminal; elsewhere `download.yes=true` is needed.

    Raises:
        ValueError: not agreed; says what to type.
    """
    if cfg.download.yes:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        if input("download? [y/n] ").strip().lower() in ("y", "yes"):
            return
        raise ValueError("nothing was downloaded")
    raise ValueError(f"nothing was downloaded yet; to go on, type: {_command('download.yes=true')}")


def _load_and_unpack(
    items: Sequence[Item], root: Path, folder: Path, sizes: dict[str, int], release: Release, cfg: DictConfig
) -> None:
    """All files, then all archives; a second process waits for the first and finds its work done."""
    folder.mkdir(parents=True, exist_ok=True)
    _require_space(items, root, folder, sizes, release)
    try:
        with locked(folder / ".lock"):
            todo = [item for item in items if not item.is_done]
            wanted = [one for item in todo for one in _wanted(item)]
            total = sum(sizes.get(item.file.name, 0) for item in todo) or None
            with _bar("download", total) as bar:
                download_all(wanted, connections=cfg.download.connections, progress=bar.update)
            for item in todo:
                _put_in_place(item, keep=cfg.download.keep_archives)
    except DownloadError as error:
        raise DownloadError(f"{error}; then type: {_command()}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; what came is kept, to go on type: {_command()}") from None
    _say(f"{release.title} is in {root}")


def _require_space(
    items: Sequence[Item], root: Path, folder: Path, sizes: dict[str, int], release: Release
) -> None:
    """What is still to come, and at least as much again for what comes out of archives."""
    there = sum(_there(piece) for item in items for piece in item.pieces)
    loading = max(0, sum(sizes.values()) - there)
    archives = sum(sizes.get(item.file.name, 0) for item in items if item.file.unpack)
    unpacking = int(release.unpacked_megabytes * 1e6) if release.unpacked_megabytes else archives
    require_space(folder, loading, what=f"downloading {release.title}")
    require_space(root, loading + unpacking, what=f"downloading and unpacking {release.title}")


def _there(piece: Path) -> int:
    """Bytes on the disk of a partial file, which may have holes."""
    part = piece.with_name(piece.name + ".part")
    if not part.exists():
        return 0
    state = part.stat()
    return min(state.st_size, getattr(state, "st_blocks", state.st_size // 512) * 512)


def _wanted(item: Item) -> list[Wanted]:
    """The files to load; of joined pieces the checksum belongs to the whole."""
    file = item.file
    if len(item.pieces) > 1:
        return [Wanted(url, piece) for url, piece in zip(file.urls, item.pieces, strict=True)]
    return [Wanted(_addresses(file)[0], item.pieces[0], file.sha256, file.md5, file.bytes)]


def _put_in_place(item: Item, *, keep: bool) -> None:
    """Unpacks an archive, or moves a plain file to its folder."""
    file = item.file
    for kind in ("sha1",) if len(item.pieces) == 1 else ("sha1", "sha256", "md5"):
        if expected := getattr(file, kind):
            _verify_joined(item, kind, expected)
    if not file.unpack:
        item.in_place.parent.mkdir(parents=True, exist_ok=True)
        if item.pieces[0] != item.in_place:
            os.replace(item.pieces[0], item.in_place)
        return
    with _bar(f"unpack {file.name}", None) as bar:
        unpack(
            item.pieces,
            item.root,
            strip=file.strip,
            into=file.into,
            marker=item.marker,
            identity=file.sha256 or file.md5 or file.sha1 or "",
            progress=bar.update,
        )
    if not keep:
        for piece in item.pieces:
            piece.unlink()


def _verify_joined(item: Item, kind: str, expected: str) -> None:
    digest = hashlib.new(kind)
    with JoinedFiles(item.pieces) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if not digest.hexdigest().startswith(expected.lower()):
        places = " and ".join(map(str, item.pieces))
        raise DownloadError(
            f"{item.file.name} has {kind} {digest.hexdigest()}, expected {expected}: it is damaged or "
            f"another file; delete {places}"
        )


def _bar(name: str, total: int | None) -> tqdm:
    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=None)


class _Console(logging.Handler):
    """Messages of the download (waiting, going on after a break) on standard error, beside the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


def _open_log() -> None:
    root = logging.getLogger("vosssl")
    root.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_Console())


def _look(root: Path, release: Release) -> list[str]:
    return quick(root, release)


def _say_findings(root: Path, release: Release) -> None:
    """The quick part of mode=check."""
    findings = _look(root, release)
    for line in findings:
        _say(line)
    if release.expect and not findings:
        _say("a quick look found every part; mode=check reads the files too")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
