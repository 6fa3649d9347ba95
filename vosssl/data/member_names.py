"""Names of an archive's members, which come from somebody else: where they may be written."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_DRIVE = re.compile(r"[A-Za-z]:")
_LITTER = ("__MACOSX", ".DS_Store")  # what macOS adds; readers would take it for data


def member_path(name: str, *, archive: str, strip: int = 0) -> PurePosixPath | None:
    """Where a member goes below the target folder.

    Args:
        name: as the archive has it; a backslash separates folders as on Windows.
        archive: its file, for messages.
        strip: leading folders to drop.

    Returns:
        The path, or None when `strip` drops the member, when it names the folder itself, or when macOS added
        it.

    Raises:
        ValueError: an absolute name, a drive letter, `..`, or a character that no path may hold.
    """
    text = name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    reason = ""
    if text.startswith("/"):
        reason = "is absolute"
    elif any(_DRIVE.match(part) for part in parts):
        reason = "names a drive"
    elif ".." in parts:
        reason = "leads out of the folder"
    elif "\0" in text:
        reason = "holds a zero byte"
    if reason:
        raise ValueError(
            f"{archive} holds the member {name!r}, which {reason}; nothing was unpacked. Get the archive "
            "from its authors"
        )
    if any(part in _LITTER for part in parts) or len(parts) <= strip:
        return None
    return PurePosixPath(*parts[strip:])
