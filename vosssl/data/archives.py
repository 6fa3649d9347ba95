"""Archives from the web into a folder: nothing outside it, whole or not there at all, once."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vosssl.data.files import atomic_write, require_space
from vosssl.data.joined_files import JoinedFiles
from vosssl.data.member_names import member_path

CHUNK = 1 << 20  # bytes copied at once
LOOK_EVERY = 256 << 20  # bytes between two looks at the free space
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
_MAGIC = (  # first bytes -> what it is
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "tar"),
    (b"BZh", "tar"),
    (b"\xfd7zXZ", "tar"),
    (b"Rar!", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)


@dataclass
class _Member:
    """One entry of an archive: where it goes below the target, and how to read it."""

    name: str
    path: PurePosixPath | None  # None: dropped by `strip`
    size: int
    kind: str  # file, folder, symlink, hardlink
    target: str
    open: Callable[[], IO[bytes]]


@dataclass
class _Staging:
    """The folder beside the target that is filled first; links wait until every file is there."""

    folder: Path
    archive: str
    files: int = 0
    bytes: int = 0
    symlinks: list[_Member] = field(default_factory=list)
    hardlinks: list[_Member] = field(default_factory=list)


def unpack(
    archive: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    strip: int = 0,
    into: str = "",
    marker: str | Path | None = None,
    identity: str = "",
    progress: Callable[[int], object] | None = None,
) -> bool:
    """Unpacks a zip or a tar (plain, gz, bz2, xz).

    Everything goes into a folder beside the target first, which then takes its place or is merged into what
    is there. After a kill the same call goes on: members that are whole are not written again.

    Args:
        archive: the file, or the pieces of one, in order.
        folder: the root; made.
        strip: leading folders of the members to drop; what lies higher is left out.
        into: folder below the root that gets the content.
        marker: file that says afterwards that this archive is unpacked; None: beside the archive,
            `NAME.unpacked.json`. While it fits and what came out is still there, the call does nothing.
        identity: what tells this archive from another of the same size, such as its checksum.
        progress: called with the bytes of each piece written.

    Returns:
        Whether anything was done.

    Raises:
        ValueError: a member that leads out of the folder, a device, a damaged member (named), encryption, or
            a file that is no archive that can be read here.
        OSError: it does not fit on the disk.
        FileNotFoundError: no such archive.
    """
    pieces = [Path(archive)] if isinstance(archive, str | Path) else [Path(piece) for piece in archive]
    for piece in pieces:
        if not piece.is_file():
            raise FileNotFoundError(f"there is no archive {piece}")
    marker = pieces[0].with_name(f"{pieces[0].name}.unpacked.json") if marker is None else Path(marker)
    target = Path(folder) / into
    said = {
        "archive": pieces[0].name,
        "bytes": sum(piece.stat().st_size for piece in pieces),
        "identity": identity,
        "strip": strip,
        "into": into,
    }
    if is_unpacked(marker, folder, expected=said):
        return False
    staging = _Staging(Path(folder) / f".unpacking-{pieces[0].name}", str(pieces[0]))
    journal = staging.folder.with_name(f"{staging.folder.name}.json")
    state = _read_json(journal)
    if state.get("said") != said:
        shutil.rmtree(staging.folder, ignore_errors=True)
        state = {}
    if not state.get("entries"):
        staging.folder.mkdir(parents=True, exist_ok=True)
        _write_json(journal, {"said": said})
        try:
            _fill(staging, pieces, strip, progress or (lambda count: None))
        except (ValueError, FileNotFoundError):  # going on could not help: the archive is at fault
            shutil.rmtree(staging.folder)
            journal.unlink()
            raise
        entries = sorted(path.name for path in staging.folder.iterdir())
        state = {"said": said, "entries": entries, "files": staging.files, "unpacked_bytes": staging.bytes}
        _write_json(journal, state)  # from here on a killed run goes on with the merge
    if staging.folder.exists():
        merge(staging.folder, target)
    _write_json(marker, {**said, **{key: state[key] for key in ("entries", "files", "unpacked_bytes")}})
    journal.unlink()
    return True


def is_unpacked(marker: str | Path, folder: str | Path, *, expected: dict[str, Any] | None = None) -> bool:
    """Whether a marker is there, fits, and what the archive held is still in the folder.

    Args:
        marker: file that `unpack` wrote.
        folder: the root.
        expected: values that the marker has to hold.
    """
    found = _read_json(Path(marker))
    if not found or any(found.get(key) != value for key, value in (expected or {}).items()):
        return False
    return all(os.path.lexists(Path(folder, found["into"], entry)) for entry in found.get("entries", ()))


def merge(source: Path, target: Path) -> None:
    """Moves a folder to where another may be: new files replace old ones, other old ones stay.

    Raises:
        ValueError: a file is where a folder belongs, or the reverse.
    """
    if not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        return
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        place = target / entry.name
        both = os.path.lexists(place)
        if both and entry.is_dir(follow_symlinks=False) != (place.is_dir() and not entry.is_symlink()):
            raise ValueError(
                f"{place} is {'a folder' if place.is_dir() else 'a file'}, the archive holds the opposite "
                "there; move it away and repeat"
            )
        if both and entry.is_dir(follow_symlinks=False):
            merge(Path(entry.path), place)
        else:
            os.replace(entry.path, place)
    source.rmdir()


def _fill(staging: _Staging, pieces: list[Path], strip: int, progress: Callable[[int], object]) -> None:
    """Writes all members into the staging folder; links last, so that nothing is written through one."""
    since_look = LOOK_EVERY
    with _members(pieces, strip, staging.folder) as members:
        for member in members:
            if member.path is None:
                continue
            place = staging.folder / member.path
            if member.kind == "folder":
                place.mkdir(parents=True, exist_ok=True)
            elif member.kind == "file":
                since_look += member.size
                if since_look >= LOOK_EVERY:
                    require_space(staging.folder, member.size, what=f"{member.name} of {staging.archive}")
                    since_look = 0
                with _damage_named(staging.archive, member.name):
                    _write_member(member, place, staging, progress)
            else:
                (staging.symlinks if member.kind == "symlink" else staging.hardlinks).append(member)
    _write_links(staging, strip)
    if not any(staging.folder.iterdir()):
        raise ValueError(f"{staging.archive} gives no files" + (f" with strip={strip}" if strip else ""))


def _write_member(member: _Member, place: Path, staging: _Staging, progress: Callable[[int], object]) -> None:
    """One file, under another name until it is whole and its checksum was right."""
    staging.files += 1
    staging.bytes += member.size
    if place.is_file() and place.stat().st_size == member.size:  # from the run before
        progress(member.size)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = staging.folder / ".member.partial"
    left = member.size
    with member.open() as source, open(partial, "wb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(
                    f"{staging.archive} says that {member.name} has {member.size} bytes, but it holds more; "
                    "not unpacked"
                )
            file.write(chunk)
            progress(len(chunk))
    if left:
        raise EOFError(f"{left} bytes are missing")
    os.replace(partial, place)


def _write_links(staging: _Staging, strip: int) -> None:
    """Hard links become copies by link; symbolic links are kept where they stay inside.

    Raises:
        ValueError: a link that leads out of the folder or to nothing in the archive.
    """
    root = Path(os.path.realpath(staging.folder))
    for member in staging.hardlinks:
        assert member.path is not None
        source = member_path(member.target, archive=staging.archive, strip=strip)
        original = staging.folder / source if source else None
        if original is None or not original.is_file():
            raise ValueError(
                f"{staging.archive} holds the hard link {member.name!r} to {member.target!r}, which is no "
                "file in it; not unpacked"
            )
        place = staging.folder / member.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        shutil.copyfile(original, place)
        staging.files += 1
    for member in staging.symlinks:
        assert member.path is not None
        place = staging.folder / member.path
        lexical = os.path.normpath(os.path.join(member.path.parent, member.target))
        if os.path.isabs(member.target) or ":" in member.target or lexical.split(os.sep)[0] == os.pardir:
            raise ValueError(_leads_out(staging.archive, member))
        if any((staging.folder / parent).is_symlink() for parent in member.path.parents):
            raise ValueError(_leads_out(staging.archive, member))  # nothing is made through a link
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            if not place.is_symlink():
                raise ValueError(f"{staging.archive} holds {member.name!r} twice, as a file and as a link")
            place.unlink()
        os.symlink(member.target, place)
    for member in staging.symlinks:  # a link through a link may lead further than its text says
        assert member.path is not None
        real = Path(os.path.realpath(staging.folder / member.path))
        if real != root and root not in real.parents:
            raise ValueError(_leads_out(staging.archive, member))


def _leads_out(archive: str, member: _Member) -> str:
    return (
        f"{archive} holds the link {member.name!r} to {member.target!r}, which leads out of the folder; "
        "nothing was unpacked. Get the archive from its authors"
    )


@contextmanager
def _members(pieces: list[Path], strip: int, folder: Path) -> Iterator[Iterator[_Member]]:
    """The members of an archive, each name checked; of a zip all of them before the first is given out."""
    name = str(pieces[0])
    with JoinedFiles(pieces) as joined:
        kind = _kind(joined, name)
        with _damage_named(name, ""):
            if kind == "zip":
                with zipfile.ZipFile(joined) as archive:
                    members = [_zip_member(archive, info, name, strip) for info in archive.infolist()]
                    new = [
                        member for member in members if member.path and not (folder / member.path).exists()
                    ]
                    needed = sum(member.size for member in new)
                    require_space(folder, needed, what=f"unpacking {name}")
                    yield iter(members)
            else:
                with tarfile.open(fileobj=joined, mode="r:*") as tar:
                    yield (_tar_member(tar, info, name, strip) for info in tar)
                    if tar.fileobj is not None and tar.fileobj.tell() <= tar.offset:  # no block of zeros
                        raise EOFError("it ends without an end mark, so it was cut off")
                    while tar.fileobj is not None and tar.fileobj.read(CHUNK):
                        pass  # a compressed one is only checked when it is read to its end


def _kind(file: IO[bytes], name: str) -> str:
    """`zip` or `tar`, by the first bytes.

    Raises:
        ValueError: neither; says what it is instead.
    """
    head = file.read(512)
    file.seek(0)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            if kind in ("zip", "tar"):
                return kind
            raise ValueError(f"{name} is a {kind} archive, which cannot be read here; unpack it by hand")
    if head[257:262] == b"ustar" or tarfile.is_tarfile(file):
        file.seek(0)
        return "tar"
    if head.lstrip()[:1] == b"<":
        raise ValueError(f"{name} is a web page, not an archive: delete it and download it again")
    raise ValueError(
        f"{name} is no zip or tar archive (its first bytes are {head[:8]!r}); delete it and get it again"
    )


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, strip: int) -> _Member:
    path = member_path(info.filename, archive=name, strip=strip)
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted ({info.filename}); unpack it by hand with its password")
    kind, target = ("folder" if info.is_dir() else "file"), ""
    if stat.S_ISLNK(mode):
        if info.file_size > 4096:  # no path is longer
            raise ValueError(f"{name} holds the link {info.filename!r} of {info.file_size} bytes")
        kind, target = "symlink", archive.read(info).decode("utf-8", "surrogateescape")
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{name} holds {info.filename!r}, which is a device or a pipe; nothing was unpacked")
    return _Member(info.filename, path, info.file_size, kind, target, lambda: archive.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, strip: int) -> _Member:
    path = member_path(info.name, archive=name, strip=strip)
    if info.isreg() or info.isdir():
        kind = "file" if info.isreg() else "folder"
    elif info.issym() or info.islnk():
        kind = "symlink" if info.issym() else "hardlink"
    else:
        raise ValueError(f"{name} holds {info.name!r}, which is a device or a pipe; nothing was unpacked")

    def opened() -> IO[bytes]:
        file = tar.extractfile(info)
        assert file is not None  # it is a regular file
        return file

    return _Member(info.name, path, info.size if kind == "file" else 0, kind, info.linkname, opened)


@contextmanager
def _damage_named(archive: str, member: str) -> Iterator[None]:
    """Errors of the archive's own format, with its name and the member's."""
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:  # a compression or encryption that zipfile lacks
        raise ValueError(
            f"{archive} cannot be unpacked here ({member}: {error}); unpack it by hand"
        ) from error
    except _DAMAGE as error:
        where = f"{archive}, member {member}," if member else archive
        raise ValueError(f"{where} is damaged ({error}); delete the archive and download it again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or cut off: as if it were not there
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
