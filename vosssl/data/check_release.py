"""Which release of a dataset is on disk: by folders, counts, frame numbers, sizes and kinds of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vosssl.data.check_findings import CheckReport, PartCounts, most
from vosssl.data.check_tally import PartTally
from vosssl.data.listing import holds_images
from vosssl.data.release import Release

_SAME_RATE = 0.2  # how far frames per video may be from the release's, as a share, before it is worth a word
_LONG = 60  # frames a video; at 6 fps YouTube-VOS has 27 on average, at 30 fps about 135
_FACTORS = range(2, 11)


def describe_release(root: Path, release: Release, tallies: Sequence[PartTally], report: CheckReport) -> None:
    """Says in words what is on disk, and warns where frame rate, size or labels are another release's.

    Args:
        root: of the dataset.
        release: what its authors offer; may be empty.
        tallies: of its parts.
        report: gets the lines and the findings.
    """
    for variant in release.variants:
        marker = variant.get("has")
        if marker and (root / str(marker)).exists():
            report.release.append(f"{variant['name']} ({marker} is there)")
    report.release += _resolutions(root)
    for tally in tallies:
        words = [
            _numbering(tally, report),
            _frame_rate(tally, report),
            _sizes(tally, report),
            _labels(tally, report),
        ]
        if any(words):
            report.release.append(f"{tally.spec.name}: {'; '.join(word for word in words if word)}")


def same_counts(parts: Sequence[PartCounts], others: Mapping[str, Release]) -> list[str]:
    """Names of other datasets whose release states exactly the numbers of videos that were found.

    Args:
        parts: what was found.
        others: name of a yaml -> its release.
    """
    found = {part.name: part.videos for part in parts if part.videos}
    matching = []
    for name, release in others.items():
        stated = {str(entry["part"]): entry["videos"] for entry in release.expect if entry.get("videos")}
        shared = found.keys() & stated.keys()
        if shared and all(found[part] == stated[part] for part in shared):
            matching.append(name)
    return matching


def _resolutions(root: Path) -> list[str]:
    """The folders of DAVIS's JPEGImages: one for each resolution, beside those of their labels."""
    lines = []
    for above in ("JPEGImages", "Annotations"):
        place = root / above
        if not place.is_dir():
            continue
        named = [name for name in ("480p", "1080p", "Full-Resolution") if (place / name).is_dir()]
        if named:
            lines.append(f"{above}: {' and '.join(named)}")
    return lines


def _numbering(tally: PartTally, report: CheckReport) -> str:
    """`every fifth frame number` or `every frame number`."""
    if not tally.steps or not tally.counts.videos:
        return ""
    step, videos = tally.steps.most_common(1)[0]
    mean = tally.counts.frames / tally.counts.videos
    how = "numbered one by one" if step == 1 else f"numbered in steps of {step}"
    every_fifth = tally.spec.fps == 6 and tally.spec.more.get("step") == 5  # LVOS: 6 fps, one by one
    if step == 5:
        how += " (every fifth frame: 6 of 30 fps)"
    elif step == 1 and every_fifth and mean > _LONG:
        how += " (all frames, about 30 fps)"
        report.add(
            "warning",
            "frame-rate",
            tally.spec.name,
            f"{mean:.0f} frames a video in steps of 1: all frames (about 30 fps) are on disk, the release "
            "has every fifth (6 fps); strides and gaps in frames mean other times, numbers are not "
            "comparable",
        )
    elif step == 1 and every_fifth:
        how += " (6 fps, renumbered)"
        report.add(
            "warning",
            "frame-rate",
            tally.spec.name,
            f"{mean:.0f} frames a video in steps of 1, the first releases numbered in steps of 5: frames "
            "renumbered at 6 fps (the release was replaced in 2024); names in results and on the server may "
            "differ",
        )
    others = sum(tally.steps.values()) - videos
    mixed = f", {others:,} videos otherwise" if others else ""
    return f"frames {how}{mixed}, {mean:.1f} a video"


def _frame_rate(tally: PartTally, report: CheckReport) -> str:
    """Frames per video beside the release's: a whole factor between them is another frame rate."""
    spec, counts = tally.spec, tally.counts
    if not spec.frames or not spec.videos or not counts.videos or not counts.frames:
        return ""
    stated, found = spec.frames / spec.videos, counts.frames / counts.videos
    ratio = max(stated, found) / min(stated, found)
    if ratio <= 1 + _SAME_RATE:
        if counts.videos == spec.videos and counts.frames != spec.frames:
            report.add(
                "warning",
                "frames-differ",
                spec.name,
                f"{spec.name} has {counts.frames:,} frames, the release {spec.frames:,}: "
                f"{'frames are missing' if found < stated else 'another release'}; numbers are not "
                f"comparable",
            )
        return f"{spec.fps:g} fps as in the release" if spec.fps else ""
    factor = next((f for f in _FACTORS if abs(ratio / f - 1) <= _SAME_RATE / 2), None)
    fps = f", about {spec.fps * found / stated:.0f} instead of {spec.fps:g} fps" if spec.fps else ""
    if factor is None:
        if counts.videos >= 0.5 * spec.videos:
            message = f"{found:.1f} frames a video, the release has {stated:.1f}"
            report.add("warning", "frames-differ", spec.name, f"{message}: numbers are not comparable")
        return ""
    kept = (
        f"one of {factor} frames of the release" if found < stated else f"{factor} times the release's frames"
    )
    report.add(
        "warning",
        "frame-rate",
        spec.name,
        f"{found:.1f} frames a video, the release has {stated:.1f}: {kept} is on disk{fps}; strides and "
        f"gaps in "
        "frames mean other times, numbers are not comparable",
    )
    return f"{kept}{fps}"


def _sizes(tally: PartTally, report: CheckReport) -> str:
    """The commonest size, and a warning where a folder called 480p holds another height."""
    sizes = tally.counts.image_sizes
    if not sizes:
        return ""
    height = min(map(int, sizes.most_common(1)[0][0].split("x")))
    stated = tally.spec.more.get("size")
    wanted = min(stated) if isinstance(stated, (list, tuple)) else stated
    if wanted is None and "480p" in Path(tally.spec.images).parts:
        wanted = 480
    if wanted is not None and height != int(wanted):
        report.add(
            "warning",
            "other-resolution",
            tally.spec.name,
            f"frames are {most(sizes)}, expected a short side of {wanted}: another resolution of the release "
            "(such as Full-Resolution, or MOVi's 256 instead of 128); numbers are not comparable",
        )
    return most(sizes)


def _labels(tally: PartTally, report: CheckReport) -> str:
    """The kind of labels: DAVIS 2016 has 0 and 255, 2017 palettes with several ids."""
    kinds, spec = tally.counts.label_kinds, tally.spec
    if not kinds or tally.counts.kind != "folders":
        return most(kinds) if kinds else ""
    only_ends = kinds["0/255"] > 0.9 * kinds.total()
    if spec.more.get("ids") == "palette" and only_ends:
        report.add(
            "warning",
            "other-labels",
            spec.name,
            "labels hold only 0 and 255 (as in DAVIS 2016), the release has ids in palettes: every object "
            "would be void; these are labels of another release",
        )
    ids = "" if spec.binary or not tally.largest_id else f", ids up to {tally.largest_id}"
    return f"labels {most(kinds)}{ids}"


def resolution_instead(root: Path, images: str) -> str | None:
    """`JPEGImages/Full-Resolution` where `JPEGImages/480p` was expected; None where nothing is like it."""
    wanted = root / images
    above = wanted.parent
    if above == root or not above.is_dir():
        return None
    for other in sorted(above.glob("*/")):
        first = next(iter(sorted(other.glob("*/"))), None)
        if first is not None and holds_images(first):
            return other.relative_to(root).as_posix()
    return None
