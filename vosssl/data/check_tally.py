"""What the videos of one part add up to, and the findings that follow, each with its effect."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vosssl.data.check_files import Flaws, VideoFacts
from vosssl.data.check_findings import CheckReport, PartCounts, Severity, of, such_as
from vosssl.data.check_parts import PartSpec, VideoFolders
from vosssl.data.check_texts import ALWAYS_READ, FLAWS


@dataclass
class PartTally:
    """Sums over the videos of a part; of one size however many there are.

    Attributes:
        spec: what the part should be.
        counts: for the table.
        flaws: code -> files.
        steps: distance of frame numbers -> videos.
        without_labels: videos that have none.
        without_first: videos whose first frame has none, but others do.
        partly: videos with some of their frames labelled.
        first_only: how many videos have labels for nothing but the first frame.
        later: videos in which objects appear after the first label.
        id_gaps: videos whose ids are not 1..n.
        void: label files with void.
        largest_id: over all videos.
    """

    spec: PartSpec
    counts: PartCounts
    flaws: dict[str, Flaws] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    without_labels: Flaws = field(default_factory=Flaws)
    without_first: Flaws = field(default_factory=Flaws)
    partly: Flaws = field(default_factory=Flaws)
    first_only: int = 0
    later: Flaws = field(default_factory=Flaws)
    id_gaps: Flaws = field(default_factory=Flaws)
    void: int = 0
    largest_id: int = 0

    def add(self, facts: VideoFacts) -> None:
        """Counts one video."""
        counts = self.counts
        counts.videos += 1
        counts.frames += facts.frames
        counts.labelled += facts.labelled
        counts.checked += facts.checked
        counts.image_sizes += facts.sizes
        counts.label_kinds += facts.kinds
        for code, flaws in facts.flaws.items():
            self.flaws.setdefault(code, Flaws()).merge(flaws)
        if facts.step is not None:
            self.steps[facts.step] += 1
        if self.spec.annotations is not None and facts.frames:
            self._add_labels(facts)

    def _add_labels(self, facts: VideoFacts) -> None:
        self.counts.objects = (self.counts.objects or 0) + len(facts.ids)
        self.largest_id = max(self.largest_id, *facts.ids, 0)
        self.void += facts.void
        self.first_only += facts.labelled == 1 < facts.frames and facts.first_labelled
        if facts.labelled == 0:
            self.without_labels.add(facts.name)
        elif not facts.first_labelled:
            self.without_first.add(facts.name)
        if 0 < facts.labelled < facts.frames:
            self.partly.add(f"{facts.name}: {facts.labelled} of {facts.frames}")
        if facts.ids - facts.first_ids and facts.labelled > 1:
            self.later.add(facts.name)
        if facts.ids and max(facts.ids) != len(facts.ids):
            self.id_gaps.add(f"{facts.name}: {', '.join(map(str, sorted(facts.ids)[:6]))}")

    def report(self, report: CheckReport) -> None:
        """Adds all findings of the part."""
        for code, (severity, what, effect) in FLAWS.items():
            flaws = self.flaws.get(code)
            if flaws is None:
                continue
            if self.unlabelled_use and severity == "error" and code not in ALWAYS_READ:
                severity, effect = "warning", f"{effect} (training without labels works)"
            message = f"{what}: {flaws.count:,} ({such_as(flaws.examples, flaws.count)}): {effect}"
            report.add(severity, code, self.spec.name, message, count=flaws.count)
        self._report_labels(report)
        self._report_ids(report)
        _report_sizes(self.spec.name, self.counts.image_sizes, report)

    @property
    def unlabelled_use(self) -> bool:
        """Whether flaws of labels leave a use: self-supervised methods train on frames alone."""
        return self.spec.name.startswith("train")

    def _report_labels(self, report: CheckReport) -> None:
        spec, counts, name = self.spec, self.counts, self.spec.name
        if spec.annotations is None or counts.videos == 0:
            return
        serious: Severity = "warning" if self.unlabelled_use else "error"
        first_needed = spec.labels in ("all", "first")
        if counts.labelled == 0:
            effect = "training with labels and scores are impossible; pass annotations=null to do without"
            report.add(serious, "no-labels", name, f"no frame has labels: {effect}")
            return
        if self.first_only == counts.videos:
            report.add(
                "note" if spec.labels == "first" else "warning" if self.unlabelled_use else "error",
                "first-labels-only",
                name,
                f"{name} has labels for first frames only: J&F cannot be computed here; upload to the server"
                + ("" if spec.labels == "first" else " (pass labels=first to read it)"),
            )
            return
        if self.without_labels.count and spec.labels != "none":
            flaws = self.without_labels
            report.add(
                serious if first_needed else "warning",
                "videos-without-labels",
                name,
                f"{flaws.count:,} of {counts.videos:,} videos have no labels "
                f"({such_as(flaws.examples, flaws.count)}): annotations are missing, or lie elsewhere",
                count=flaws.count,
            )
        if self.without_first.count:
            flaws = self.without_first
            report.add(
                serious if first_needed else "note",
                "first-frame-without-labels",
                name,
                f"{flaws.count:,} videos have no labels for their first frame "
                f"({such_as(flaws.examples, flaws.count)}): nothing to follow from there",
                count=flaws.count,
            )
        if self.partly.count:
            flaws = self.partly
            report.add(
                serious if spec.labels == "all" else "note",
                "partly-labelled",
                name,
                f"{of(counts.labelled, counts.frames)} frames have labels "
                f"({such_as(flaws.examples, flaws.count)})"
                + ("; pass labels=first or labels=some where that is meant" if spec.labels == "all" else ""),
                count=flaws.count,
            )

    def _report_ids(self, report: CheckReport) -> None:
        name = self.spec.name
        for flaws, code, text in (
            (self.later, "objects-appear-later", "objects that appear after the first labels"),
            (self.id_gaps, "gaps-in-ids", "ids that are not 1..n in the frames that were looked at"),
        ):
            if flaws.count:
                such = such_as(flaws.examples, flaws.count)
                report.add("note", code, name, f"{text}: {flaws.count:,} videos ({such})", count=flaws.count)
        if self.void:
            files = f"label files with void (255): {self.void:,}: these pixels count for nothing"
            report.add("note", "void", name, files, count=self.void)


def report_presence(spec: PartSpec, folders: VideoFolders, report: CheckReport) -> None:
    """Findings about which videos are there, before any file is opened."""
    name, found = spec.name, len(folders.chosen)
    if folders.missing:
        listed = found + len(folders.missing)
        report.add(
            "error",
            "split-names-missing-videos",
            name,
            f"{len(folders.missing):,} of {listed:,} videos of {spec.split_file} are not in {spec.images} "
            f"({such_as(folders.missing, len(folders.missing))}): a partial dataset; reading refuses it; "
            f"get the "
            "rest, or take their lines out of a copy of the split file",
            count=len(folders.missing),
        )
    if folders.empty:
        report.add(
            "error",
            "empty-video-folder",
            name,
            f"{len(folders.empty):,} video folders are empty ({such_as(folders.empty, len(folders.empty))}): "
            "unpacking was cut off? Unpack again, or remove them",
            count=len(folders.empty),
        )
    if folders.unlisted:
        count = len(folders.unlisted)
        report.add(
            "note",
            "videos-not-in-split",
            name,
            f"{count:,} videos are not in {spec.split_file} ({such_as(folders.unlisted, count)}): not read",
            count=count,
        )
    folded = Counter(video.casefold() for video in folders.chosen)
    clashing = [video for video, count in folded.items() if count > 1]
    if clashing:
        report.add(
            "warning",
            "names-differ-in-case",
            name,
            f"{len(clashing):,} video names differ only in case ({such_as(clashing, len(clashing))}): macOS "
            f"and "
            "Windows keep one of them",
            count=len(clashing),
        )
    report_count(spec, found, report)


def report_count(spec: PartSpec, found: int, report: CheckReport) -> None:
    """A partial part is named as such, with the effect it will have."""
    if spec.videos is None or found == spec.videos:
        return
    train = spec.name.startswith("train")
    counted = f"{spec.name} has {of(found, spec.videos)} videos"
    if found < spec.videos:
        effect = (
            "training works, numbers are not comparable"
            if train
            else "scores are those of these videos, not comparable with published ones"
        )
        report.add("warning", "partial", spec.name, f"{counted}: {effect}", count=spec.videos - found)
        return
    counted = f"{spec.name} has {found:,} videos, the release {spec.videos:,}"
    effect = "another release, or videos of your own; numbers are not comparable"
    report.add("warning", "more-videos", spec.name, f"{counted}: {effect}", count=found - spec.videos)


def _report_sizes(part: str, sizes: Counter[str], report: CheckReport) -> None:
    """Sizes a pixel or two apart come from rounding while resizing: worth a word."""
    parsed = {name: tuple(map(int, name.split("x"))) for name in sizes}
    ordered = sorted(parsed, key=lambda name: -sizes[name])
    for place, rare in enumerate(ordered):
        for common in ordered[:place]:
            apart = [abs(a - b) for a, b in zip(parsed[rare], parsed[common], strict=True)]
            if max(apart) <= 2:
                report.add(
                    "note",
                    "sizes-nearly-equal",
                    part,
                    f"{sizes[rare]:,} frames are {rare} beside {sizes[common]:,} of {common}: rounded "
                    f"differently "
                    "when they were resized; results are upscaled to each frame's own size",
                    count=sizes[rare],
                )
                return
