"""What the authors of a dataset offer: files, sizes, licence, and what should be on disk afterwards."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

_NAME = re.compile(r"[\w][\w.+=-]*")  # of a file in the download folder
_SOURCES = ("url", "urls", "google_drive", "listing", "by_hand")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a release, or with `listing` many; exactly one of the first five says where it comes from.

    Attributes:
        url: http or https address.
        urls: addresses of the pieces of one file, which are joined in this order.
        google_drive: the file's id there.
        listing: address of a Google Cloud Storage listing (`…/storage/v1/b/BUCKET/o?prefix=…`); every object
            whose file name matches `select` is a file.
        by_hand: what a person has to do to get it; it is looked for under `name` in the download folder.
        name: of the file in the download folder; empty: the last part of its address.
        part: what `download.parts` chooses it by; empty: always wanted.
        sha256: checksum in hex, or its first 8 digits or more; of joined pieces: of the whole.
        md5: checksum in hex.
        sha1: checksum in hex, where the authors give no other.
        bytes: exact size, where known.
        unpack: whether it is an archive to unpack; otherwise it is put into place as it is.
        strip: leading folders of the archive's members to drop.
        into: folder below the root that gets the content.
        select: file name pattern of a listing.
        open: whether it may be had although the release as a whole has a gate.
    """

    url: str | None = None
    urls: tuple[str, ...] = ()
    google_drive: str | None = None
    listing: str | None = None
    by_hand: str | None = None
    name: str = ""
    part: str = ""
    sha256: str | None = None
    md5: str | None = None
    sha1: str | None = None
    bytes: int | None = None
    unpack: bool = True
    strip: int = 0
    into: str = ""
    select: str = "*"
    open: bool = False

    def __post_init__(self) -> None:
        given = [source for source in _SOURCES if getattr(self, source)]
        if len(given) != 1:
            raise ValueError(
                f"a file of a release has {' and '.join(given) or 'no source'}, expected exactly one of "
                f"{', '.join(_SOURCES)}"
            )
        if not self.name and self.url:
            object.__setattr__(self, "name", PurePosixPath(unquote(urlsplit(self.url).path)).name)
        if not self.listing and not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a file of a release ({getattr(self, given[0])}) is called {self.name!r}; give it a plain "
                "file name: name: images.zip"
            )
        for address in (self.url, self.listing, *self.urls):
            if address and urlsplit(address).scheme not in ("http", "https"):
                raise ValueError(f"a release names {address!r}, expected an http:// or https:// address")
        if self.google_drive and not re.fullmatch(r"[\w-]+", self.google_drive):
            raise ValueError(f"google_drive is {self.google_drive!r}, expected the file's id alone")
        if self.strip < 0:
            raise ValueError(f"strip of {self.name} is {self.strip}, expected 0 or more leading folders")
        if PurePosixPath(self.into).is_absolute() or ".." in PurePosixPath(self.into).parts:
            raise ValueError(f"into of {self.name} is {self.into!r}, expected a folder below the root")

    @property
    def address(self) -> str:
        """Where a person finds it."""
        if self.google_drive:
            return f"https://drive.google.com/file/d/{self.google_drive}/view"
        return self.url or self.listing or " + ".join(self.urls) or self.by_hand or ""


@dataclass(frozen=True)
class Release:
    """The `release:` block of a dataset's yaml.

    Attributes:
        title: what it is, with its version.
        home: web page of the authors.
        licence: in a few words.
        gate: what a person has to do before the files may be had (register, send a form); None: open.
        megabytes: rough size of the download, 10**6 bytes; None: unknown.
        unpacked_megabytes: rough size on disk afterwards.
        files: what to download.
        default_parts: the parts that are meant when none is named; empty: all.
        expect: for each part what a complete copy holds, as `mode=check` compares it.
        variants: how releases differ on disk.
        note: what a user should know before, or has to do after.
    """

    title: str = ""
    home: str = ""
    licence: str = ""
    gate: str | None = None
    megabytes: float | None = None
    unpacked_megabytes: float | None = None
    files: tuple[RemoteFile, ...] = ()
    default_parts: tuple[str, ...] = ()
    expect: tuple[Mapping[str, Any], ...] = ()
    variants: tuple[Mapping[str, Any], ...] = ()
    note: str = ""

    @classmethod
    def from_dict(cls, block: Mapping[str, Any] | None) -> Release:
        """Reads a `release:` block.

        Args:
            block: plain values; None or empty for data that nobody offers.

        Raises:
            ValueError: an unknown key, a value of the wrong kind, a file without exactly one source.
        """
        values = dict(_known(block or {}, cls, "release"))
        values["files"] = tuple(_remote_file(entry) for entry in _list(values, "files"))
        values["default_parts"] = tuple(_list(values, "default_parts"))
        for key, wanted in (("expect", "part"), ("variants", "name")):
            entries = _list(values, key)
            for entry in entries:
                if not isinstance(entry, Mapping) or not isinstance(entry.get(wanted), str):
                    raise ValueError(f"release.{key} holds {entry!r}, expected mappings with {wanted}: NAME")
            values[key] = tuple(entries)
        for key in ("megabytes", "unpacked_megabytes"):
            number = values.get(key)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
                raise ValueError(f"release.{key} is {number!r}, expected a number or null")
        for key in ("title", "home", "licence", "gate", "note"):
            if not isinstance(values.get(key, ""), str | None):
                raise ValueError(f"release.{key} is {values[key]!r}, expected text")
        return cls(**{key: value for key, value in values.items() if value is not None})

    @property
    def parts(self) -> list[str]:
        """Names that `download.parts` may hold."""
        return list(dict.fromkeys(file.part for file in self.files if file.part))

    def chosen(self, parts: Sequence[str] | None) -> list[RemoteFile]:
        """The files of some parts, with those that belong to every part.

        Args:
            parts: names of parts; None: `default_parts`.

        Raises:
            ValueError: there is no such part.
        """
        parts = parts or self.default_parts or None
        unknown = [part for part in parts or () if part not in self.parts]
        if unknown:
            there = f"it has {', '.join(self.parts)}" if self.parts else "it has no parts"
            raise ValueError(f"{self.title or 'the release'} has no part {unknown[0]!r}; {there}")
        return [file for file in self.files if parts is None or not file.part or file.part in parts]


def _remote_file(entry: Any) -> RemoteFile:
    if not isinstance(entry, Mapping):
        raise ValueError(f"release.files holds {entry!r}, expected mappings such as {{url: https://…/a.zip}}")
    values = dict(_known(entry, RemoteFile, "release.files"))
    values["urls"] = tuple(_list(values, "urls"))
    kinds: dict[str, type] = {"unpack": bool, "open": bool, "strip": int, "bytes": int}
    for key, value in values.items():
        wanted = kinds.get(key, str)
        if key != "urls" and value is not None and type(value) is not wanted:
            raise ValueError(
                f"release.files.{key} is {value!r}, expected {wanted.__name__}"
                + ("; put it in quotes" if wanted is str else "")
            )
    return RemoteFile(**{key: value for key, value in values.items() if value is not None})


def _known(block: Any, kind: type, where: str) -> Mapping[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(block, Mapping):
        raise ValueError(f"{where} is {block!r}, expected a mapping")
    for key in block:
        if key not in names:
            raise ValueError(f"{where} holds the unknown key {key!r}; it may hold {', '.join(names)}")
    return block


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    if found is None:
        return []
    if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
        raise ValueError(f"release.{key} is {found!r}, expected a list")
    return list(found)


def listed(file: RemoteFile, objects: Sequence[Mapping[str, Any]]) -> list[RemoteFile]:
    """The files that one listing stands for.

    Args:
        file: with `listing`.
        objects: `items` of the listing: name, size, md5Hash (base64), mediaLink.

    Returns:
        One file for each object whose file name matches `file.select`, with its size and checksum.

    Raises:
        ValueError: an object without a name or an address, or a name that is no plain file name.
    """
    found = []
    for item in objects:
        name = PurePosixPath(str(item.get("name", ""))).name
        if not name or str(item["name"]).endswith("/") or not fnmatchcase(name, file.select):
            continue
        if not item.get("mediaLink"):
            raise ValueError(f"the listing {file.listing} gives no address (mediaLink) of {name}")
        digest = base64.b64decode(str(item["md5Hash"])).hex() if item.get("md5Hash") else None
        size = int(item["size"]) if item.get("size") is not None else None
        found.append(
            RemoteFile(
                url=str(item["mediaLink"]),
                name=name,
                part=file.part,
                md5=digest,
                bytes=size,
                unpack=file.unpack,
                strip=file.strip,
                into=file.into,
            )
        )
    return found
