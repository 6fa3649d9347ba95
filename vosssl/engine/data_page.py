"""A page and a contact sheet of a dataset: training clips as the model gets them, and evaluation videos.

Python measures and compresses pictures into sprite sheets; `data_page.js` beside this file draws and moves
them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from vosssl.clip import VOID
from vosssl.engine.data_pictures import flow_colors, flow_peak, id_anchors, sample_grid
from vosssl.engine.data_sample import DataSample, Part, Tally
from vosssl.engine.drawing import VOID_COLOR, id_colors, packed, stacked, titled
from vosssl.engine.html_page import css_color, number, write_html_page
from vosssl.engine.page_timeline import label_identity, timeline_payload
from vosssl.engine.sprite_sheets import image_sheet, label_sheet
from vosssl.ops.masks import object_ids

log = logging.getLogger(__name__)
PARTS: Mapping[Part, str] = {"train": "training clips", "val": "evaluation videos"}
SHEET_WIDTH = 1600  # pixels of the contact sheet, two blocks of eight pictures
MOST_BARS = 12  # of a histogram; rarer values are counted together


class DataPage:
    """Collects samples one by one, then writes them as a page and a contact sheet.

    Only compressed pictures and the blocks of the contact sheet are kept of a sample.

    Args:
        tallies: of each part that the data have, as known before the first sample.
        missing: why other parts cannot be shown.
        sheet_samples: how many samples of each part go into the contact sheet.
    """

    def __init__(
        self,
        tallies: Mapping[Part, Tally],
        *,
        missing: Mapping[Part, str] | None = None,
        sheet_samples: int = 8,
    ) -> None:
        self.tallies = dict(tallies)
        self.missing = dict(missing or {})
        self.sheet_samples = sheet_samples
        self._payload: list[dict[str, Any]] = []
        self._blocks: dict[Part, list[Tensor]] = {part: [] for part in tallies}

    def add(self, sample: DataSample) -> None:
        """Takes one more sample of a part that has a tally."""
        self.tallies[sample.part].add(sample)
        self._payload.append(_sample_payload(sample))
        blocks = self._blocks[sample.part]
        if len(blocks) < self.sheet_samples:
            clip = sample.clip
            grid = sample_grid(clip.frames, labels=clip.labels, flow=clip.flow)
            blocks.append(titled(sheet_title(sample), titled(sheet_note(sample), grid)))

    def take(self, part: Part, read: Callable[[], DataSample]) -> None:
        """Reads one more sample and adds it; one that cannot be read becomes a remark of the page."""
        try:
            sample = read()
        except (ValueError, OSError) as error:
            log.warning("%-11s a sample cannot be read: %s", part, error)
            self.tallies[part].failures.append(str(error))
        else:
            self.add(sample)

    def write(self, path: str | Path, *, title: str, config_text: str = "") -> Path:
        """Writes the page.

        Args:
            path: the HTML file, replaced at once when the page is complete.
            title: headline and window title.
            config_text: shown folded away at the end.

        Returns:
            The path.
        """
        parts = {
            "title": escape(title),
            "summary": _summary_html(self.tallies),
            "remarks": _remarks_html(self.tallies, self.missing),
            "config": escape(config_text) or "No configuration was given.",
        }
        return write_html_page(path, "data_page", parts=parts, report={"samples": self._payload})

    def contact_sheet(self) -> Tensor:
        """The first samples of each part, those of a part side by side where they are narrow.

        Returns:
            (3, H, W) uint8.

        Raises:
            ValueError: no sample was added.
        """
        rows = [row for blocks in self._blocks.values() for row in packed(blocks, width=SHEET_WIDTH)]
        if not rows:
            raise ValueError("a contact sheet of no samples was asked for, expected at least one")
        return stacked(rows)


def sheet_title(sample: DataSample) -> str:
    """Part, video, and first and last frame."""
    names = sample.clip.frame_names
    return f"{sample.part}   {sample.clip.name}" + (f"   {names[0]} to {names[-1]}" if names else "")


def sheet_note(sample: DataSample) -> str:
    """A line of facts: size, frames and their gaps, direction, objects, labelled frames, void."""
    facts = [f"{sample.size[1]} x {sample.size[0]}", frames_text(sample)]
    if sample.is_reversed:
        facts.append("reversed")
    if sample.num_objects is None:
        facts.append("no labels")
    else:
        facts.append(_counted(sample.num_objects, "object"))
        if sample.num_labelled < len(sample.clip):
            facts.append(f"{sample.num_labelled} of {len(sample.clip)} labelled")
        if sample.mean_void > 0:
            facts.append(f"void {percent(sample.mean_void)}")
    return ", ".join(facts)


def frames_text(sample: DataSample) -> str:
    """How many frames, and which gaps lie between their numbers."""
    text = _counted(sample.length, "frame")
    if sample.length > len(sample.clip):
        return f"{text} ({len(sample.clip)} shown)"
    gaps = sample.gaps
    if not gaps or set(gaps) == {1}:
        return text
    listed = str(gaps[0]) if len(set(gaps)) == 1 else ", ".join(map(str, gaps[:8]))
    return f"{text} (gap {listed}{', …' if len(set(gaps)) > 1 and len(gaps) > 8 else ''})"


def percent(share: float) -> str:
    """A share in percent; never 0 % where there is something."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _sample_payload(sample: DataSample) -> dict[str, Any]:
    """All that the page knows about one sample."""
    clip = sample.clip
    names = list(clip.frame_names) or [str(i) for i in range(len(clip))]
    peak = 0.0 if clip.flow is None else flow_peak(clip.flow)
    return {
        "part": sample.part,
        "name": clip.name,
        "frameNames": names,
        "gaps": list(sample.gaps),
        "note": _note(sample),
        "facts": _facts(sample),
        "size": f"{sample.size[1]} x {sample.size[0]}",
        "length": sample.length,
        "objects": sample.num_objects,
        "labelled": sample.num_labelled / len(clip),
        "void": number(sample.mean_void),
        "seconds": number(sample.seconds),
        "ids": [None if ids is None else list(ids) for ids in sample.ids],
        "voids": [number(share) for share in sample.void],
        "frames": image_sheet(clip.frames),
        "labels": None,
        "timeline": None,
        "flow": None if clip.flow is None else image_sheet(flow_colors(clip.flow, peak)),
        "flowPeak": number(peak),
        **({} if clip.labels is None else _labels_payload(clip.labels, names)),
    }


def _labels_payload(labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Labels (T, H, W) as pictures, where ids are written, and areas over time."""
    pictures = {"labels": label_sheet(labels), "anchors": [id_anchors(frame) for frame in labels]}
    if not object_ids(labels):
        return pictures
    ids, identity = label_identity(labels, None)
    colors = id_colors()
    tracks = [f"id {number}" for number in ids]
    timeline = timeline_payload(identity, frames=names, names=tracks, matched=False)
    return {
        **pictures,
        "timeline": timeline | {"names": tracks, "colors": [css_color(colors[number]) for number in ids]},
    }


def _note(sample: DataSample) -> str:
    """What is shown, in a sentence."""
    (height, width), (h, w) = sample.size, sample.clip.frames.shape[-2:]
    size = f"{width} x {height} pixels" + (f", shown at {w} x {h}" if (h, w) != (height, width) else "")
    direction = ", time runs backwards" if sample.is_reversed else ""
    return f"{frames_text(sample)} of {size}{direction}."


def _facts(sample: DataSample) -> list[tuple[str, str]]:
    """Names and values above a sample's pictures."""
    facts = []
    if sample.num_objects is None:
        facts.append(("labels", "none"))
    else:
        facts += [("objects", str(sample.num_objects)), ("ids", _listed(sample.objects))]
        facts.append(("labelled", f"{sample.num_labelled} of {len(sample.clip)}"))
        facts.append(("void", percent(sample.mean_void)))
    if sample.draw is not None:
        facts += [("index", str(sample.draw.index)), ("seed", str(sample.draw.seed))]
        facts.append(("step", str(sample.draw.step)))
    return [*facts, ("read in", _duration(sample.seconds))]


def _listed(ids: Sequence[int]) -> str:
    """Ids in words, the middle ones left out where there are many."""
    if len(ids) > MOST_BARS:
        return f"{', '.join(map(str, ids[: MOST_BARS - 1]))}, … {ids[-1]}"
    return ", ".join(map(str, ids)) or "none"


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _summary_html(tallies: Mapping[Part, Tally]) -> str:
    """A table of facts with a column for each part of the data."""
    head = "".join(f'<th scope="col">{escape(PARTS[part])}</th>' for part in tallies)
    rows: dict[str, dict[Part, str]] = {}
    for part, tally in tallies.items():
        for fact, value in _tally_facts(tally).items():
            rows.setdefault(fact, {})[part] = value
    body = "".join(
        f'<tr><th scope="row">{escape(fact)}</th>'
        + "".join(f"<td>{values.get(part, '-')}</td>" for part in tallies)
        + "</tr>"
        for fact, values in rows.items()
    )
    return (
        '<div class="scroll" role="region" aria-label="Summary" tabindex="0"><table class="facts">'
        f'<thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _tally_facts(tally: Tally) -> dict[str, str]:
    """Facts about one part and their values as HTML."""
    unlisted = "not listed"
    facts = {
        "videos in all": unlisted if tally.videos is None else f"{tally.videos:,}",
        "frames in all": unlisted if tally.frames is None else f"{tally.frames:,}",
    }
    if tally.clips is not None:
        facts["clips an epoch"] = f"{tally.clips:,}"
    facts["looked at here"] = f"{_counted(tally.samples, 'sample')}, {_counted(tally.frames_shown, 'frame')}"
    if not tally.samples:
        return facts
    objects: Counter[str] = Counter({str(count): times for count, times in sorted(tally.objects.items())})
    if tally.unlabelled:
        objects["no labels"] = tally.unlabelled
    mean_void = sum(tally.void) / len(tally.void) if tally.void else math.nan
    facts |= {
        "frame size": _histogram(tally.sizes),
        "frames of each": _histogram(_texts(tally.lengths)),
        "gaps of frame numbers": _histogram(_texts(tally.gaps)) if tally.gaps else "-",
        "time runs backwards": _share(tally.reversed, tally.samples),
        "labelled frames": _share(tally.frames_labelled, tally.frames_shown),
        "objects": _histogram(objects),
        "void of labelled frames": "-" if math.isnan(mean_void) else percent(mean_void),
        "flow": _share(tally.flow, tally.samples),
        "reading one": f"{_duration(tally.median_seconds)} (median)",
    }
    return facts


def _texts(counts: Counter[int]) -> Counter[str]:
    return Counter({str(value): times for value, times in sorted(counts.items())})


def _share(count: int, whole: int) -> str:
    return f"{count} of {whole} ({percent(count / max(whole, 1))})"


def _histogram(counts: Counter[str]) -> str:
    """Values with bars of how often they occur; one value alone needs no bar."""
    if len(counts) == 1:
        return escape(next(iter(counts)))
    kept = {value for value, _ in counts.most_common(MOST_BARS)}
    shown = {value: times for value, times in counts.items() if value in kept}
    if len(kept) < len(counts):
        shown["others"] = sum(times for value, times in counts.items() if value not in kept)
    largest = max(shown.values())
    bars = "".join(
        f'<dt>{escape(value)}</dt><dd><span class="bar" style="--share:{100 * times / largest:.0f}%">'
        f"{times}</span></dd>"
        for value, times in shown.items()
    )
    return f'<dl class="histogram">{bars}</dl>'


def _remarks_html(tallies: Mapping[Part, Tally], missing: Mapping[Part, str]) -> str:
    """What may be a mistake, or that nothing looks like one; and what the colours mean."""
    remarks = [f"{PARTS[part]} cannot be opened: {reason}" for part, reason in missing.items()]
    remarks += [f"{PARTS[part]}: {text}" for part, tally in tallies.items() for text in _remarks(part, tally)]
    found = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    red, green, blue = VOID_COLOR
    key = (
        f'<p class="note"><span class="swatch" style="background: rgb({red} {green} {blue})"></span>void '
        f"(id {VOID}): not counted by any score. Background is not tinted, nor is a frame without labels. "
        "Colours of flow: the hue is the direction, red to the right, and white stands still.</p>"
    )
    return (f'<ul class="remarks">{found}</ul>' if found else "") + key


def _remarks(part: Part, tally: Tally) -> list[str]:
    found = [f"a sample cannot be read: {reason}" for reason in dict.fromkeys(tally.failures)]
    if not tally.samples:
        return [*found, "none was looked at"]
    if part == "train" and len(tally.sizes) + len(tally.lengths) > 2:
        found.append("sizes or lengths differ, so that they cannot form a batch; crop or resize them")
    if tally.unlabelled < tally.samples and tally.objects[0]:
        found.append(f"{tally.objects[0]} of {tally.samples} have labels but no object in the frames shown")
    if part == "val" and tally.unlabelled == tally.samples:
        found.append("no labels at all: nothing can be scored")
    if tally.void and max(tally.void) > 0.5:
        found.append(
            f"up to {percent(max(tally.void))} of a sample is void; masks of 0 and 255 need binary=true"
        )
    return found
