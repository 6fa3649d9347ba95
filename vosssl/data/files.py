"""Writing files so that nothing is lost: whole or not at all, and not at all when it cannot fit."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL_BELOW = 1 << 20  # bytes; less free space than this after a failed write means that the disk is full


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True, needed: int | None = None) -> Iterator[Path]:
    """Writes a file so that readers see the old one or the whole new one, never a part.

    The body writes to the temporary path it is given, in the same folder and with the same suffix; when it
    ends without an error, that file takes the place of `path`. After an error (a full disk, Ctrl-C) the old
    file is still there and the temporary one is gone.

    Args:
        path: the file to write; its folder is made.
        durable: force the bytes to the disk before the exchange, so that a power cut cannot lose both files.
            Without it only a crash of this process is survived, which is enough for files made by the
            thousand. A durable file has one writer: what a killed one left behind is overwritten.
        needed: bytes of the file, where they are known, for the message when it cannot fit.

    Yields:
        The temporary path.

    Raises:
        OSError: when the disk is full; says which file and what is left of the old one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = "" if durable else f".{os.getpid()}"
    temporary = path.with_name(f".{path.stem}{writer}.partial{path.suffix}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _flush(path.parent)  # the exchange itself
    except BaseException as error:
        full = _disk_full(error, path.parent)
        temporary.unlink(missing_ok=True)
        if full:
            kept = "the file that was there is unchanged" if path.exists() else "nothing was written"
            free = f"{shutil.disk_usage(path.parent).free / 1e6:.2f} MB are free"
            wanted = "" if needed is None else f"it needs {needed / 1e6:.2f} MB, "
            raise OSError(
                errno.ENOSPC,
                f"disk full while writing {path}: {wanted}{free}; {kept}; make room or write to another disk",
            ) from error
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_full(error: BaseException, folder: Path) -> bool:
    """Some writers (torch.save, OpenCV) say nothing about the reason; then the free space tells."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, (OSError, RuntimeError)) and shutil.disk_usage(folder).free < _FULL_BELOW


def path_inside(folder: str | Path, name: str) -> Path:
    """A path inside a folder, from a name that came from somewhere else.

    Args:
        folder: where files may be written.
        name: of a video or a frame; may hold subfolders.

    Returns:
        folder / name.

    Raises:
        ValueError: a name that leads out of the folder, or to the folder itself.
    """
    path = Path(folder, name)
    inside = os.path.relpath(os.path.normpath(path), folder)
    if Path(name).is_absolute() or inside == os.curdir or Path(inside).parts[0] == os.pardir:
        raise ValueError(
            f"{name!r} names no place inside {folder}; expected a name without '..' or a leading '/'"
        )
    return path


def require_space(folder: str | Path, needed: int, *, what: str) -> None:
    """Refuses to start writing what cannot fit.

    Args:
        folder: where it will be written; it or a folder above it exists.
        needed: bytes.
        what: for the message, such as `the feature cache`.

    Raises:
        OSError: when less than `needed` is free.
    """
    existing = Path(folder).resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free at {folder}; make room or "
            "choose another folder",
        )
