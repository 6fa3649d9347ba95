"""What is said about flaws of files: how serious, with what effect, and what to do."""

from __future__ import annotations

from vosssl.data.check_findings import Severity

FLAWS: dict[str, tuple[Severity, str, str]] = {  # code -> severity, what (a count and names follow), effect
    "unreadable-frame": (
        "error",
        "frames that are truncated or damaged",
        "reading stops there; get them again, or remove them",
    ),
    "unreadable-labels": (
        "error",
        "label files that are truncated or damaged",
        "reading stops there; get them again",
    ),
    "labels-of-other-size": (
        "error",
        "labels of another size than their frame's",
        "reading stops there; fix them, or pass on_wrong_size=resize",
    ),
    "frames-of-several-sizes": (
        "error",
        "frames of another size than their video's first",
        "clips cannot hold them; re-export, or move them to a folder of their own",
    ),
    "ids-above-255": (
        "error",
        "label files with ids above 255",
        "expected 0..255; number each video's objects from 1",
    ),
    "coloured-labels": (
        "error",
        "label files in RGB",
        "ids are expected, in a palette or grey PNG; convert them, or pass binary=true where all that is "
        "coloured is one object",
    ),
    "lossy-labels": (
        "error",
        "label files in JPEG or WebP",
        "compression changes ids, so they are not read; get the PNGs",
    ),
    "zero-and-255": (
        "error",
        "first label files that hold only 0 and 255",
        "one object as in DAVIS 2016 (pass binary=true), or void without any object (pass binary=false)?",
    ),
    "several-ids-but-binary": (
        "warning",
        "label files with several ids instead of 0 and 255",
        "with binary=true all objects become one; labels of another release (DAVIS 2017 instead of 2016)?",
    ),
    "frame-twice": (
        "error",
        "frames that exist twice, with two suffixes",
        "reading stops there; keep one of each",
    ),
    "broken-link": ("error", "links that lead nowhere", "mount or copy what they point to"),
    "frames-of-split-missing": (
        "error",
        "frames of the split file that are not there",
        "its videos come out shorter; get them again",
    ),
    "names-differ-in-case": (
        "warning",
        "file names that differ only in case",
        "macOS and Windows keep one of them",
    ),
    "labels-without-frame": (
        "warning",
        "label files that belong to no frame",
        "they are never read; frames and labels need the same names",
    ),
    "gaps-in-frames": (
        "warning",
        "gaps in the numbers of frames",
        "motion jumps there; were frames lost?",
    ),
    "folder-among-frames": ("warning", "folders among the frames", "what is in them is not read"),
    "unsupported-frame-file": ("note", "files among the frames that are no images", "not read"),
    "unsupported-label-file": ("note", "files among the labels that are none", "not read"),
    "junk": ("note", "leftovers of macOS or Windows", "ignored; delete them"),
}
ALWAYS_READ = (
    "unreadable-frame",
    "frames-of-several-sizes",
    "frame-twice",
    "broken-link",
)  # also without labels
