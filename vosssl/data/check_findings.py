"""What a check of a dataset found: counts of each part, and findings from errors to notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 3  # names that a message shows


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset on disk.

    Attributes:
        severity: error: reading it will fail; warning: it can be read, with an effect that the message names;
            note: good to know.
        code: the kind of finding, for programs.
        part: the part of the dataset (train, val); empty where it concerns all.
        message: what was found, its effect, and what to do, in one line.
        count: how many files, videos or folders it concerns.
    """

    severity: Severity
    code: str
    part: str
    message: str
    count: int = 1

    def line(self) -> str:
        """`error    train: …`, for the console."""
        said = not self.part or self.message.startswith(f"{self.part} ")
        return f"{self.severity:<8} {'' if said else self.part + ': '}{self.message}"


@dataclass
class PartCounts:
    """What one part of a dataset holds, and what its release should hold.

    Attributes:
        name: train, val and the like.
        kind: folders, tfrecord, tar or files (of video).
        videos: how many were found; `expected` holds what there should be, where known, by the same names.
        frames: of all videos.
        labelled: frames with labels.
        objects: ids, counted video by video; None where labels were not looked at.
        image_sizes: "854x480" -> frames that were looked at.
        label_kinds: palette, grey, 0/255, RGB and the like -> label files that were looked at.
        checked: frames that were decoded.
        expected: videos, frames, objects of the release.
    """

    name: str
    kind: str = "folders"
    videos: int = 0
    frames: int = 0
    labelled: int = 0
    objects: int | None = None
    image_sizes: Counter[str] = field(default_factory=Counter)
    label_kinds: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    expected: dict[str, int] = field(default_factory=dict)


@dataclass
class CheckReport:
    """All that a check found.

    Attributes:
        data: name of the dataset.
        root: its folder.
        release: what is on disk, in words; several lines.
        parts: counts.
        findings: errors first.
    """

    data: str
    root: str
    release: list[str] = field(default_factory=list)
    parts: list[PartCounts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether nothing that was found stops its readers."""
        return not any(finding.severity == "error" for finding in self.findings)

    def add(self, severity: Severity, code: str, part: str, message: str, *, count: int = 1) -> None:
        """Appends a finding, its message made one line."""
        self.findings.append(Finding(severity, code, part, " ".join(message.split()), count))

    def sort(self) -> None:
        """Errors first, then warnings, then notes; otherwise in the order they were found."""
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "data": self.data,
            "root": self.root,
            "usable": self.usable,
            "release": self.release,
            "parts": [vars(part) for part in self.parts],
            "findings": [vars(finding) for finding in self.findings],
        }

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of the table of counts."""
        header = ["part", "kind", "videos", "frames", "labelled", "objects", "checked", "sizes", "labels"]
        return header, [
            [
                part.name,
                part.kind,
                of(part.videos, part.expected.get("videos")),
                of(part.frames, part.expected.get("frames")),
                f"{part.labelled:,}",
                "-" if part.objects is None else of(part.objects, part.expected.get("objects")),
                f"{part.checked:,}",
                most(part.image_sizes),
                most(part.label_kinds),
            ]
            for part in self.parts
        ]


def of(found: int, expected: int | None) -> str:
    """`2,950 of 3,471`, or only what was found."""
    return f"{found:,}" if expected is None else f"{found:,} of {expected:,}"


def most(counts: Mapping[str, int]) -> str:
    """The commonest names, for a table's cell."""
    names = [name for name, _ in Counter(counts).most_common()]
    return ", ".join(names[:2]) + (f" +{len(names) - 2}" if len(names) > 2 else "") if names else "-"


def such_as(names: Iterable[str], count: int) -> str:
    """`a, b, c and 7 more`, for messages; of `count` names only the first need to be given."""
    shown = list(names)[:EXAMPLES]
    rest = count - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")
