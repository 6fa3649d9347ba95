"""The page of scores: what the file holds, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.engine.webdriver import Browser, chromium
from vosssl.clip import Clip
from vosssl.data.io import write_labels
from vosssl.data.video import Video, clip_video
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.report import Report
from vosssl.engine.score_page import ScoredMethod, write_score_page
from vosssl.engine.score_pictures import (
    CORRECT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    NOT_COUNTED,
    WRONG_OBJECT,
    error_map,
    matched_to_truth,
)
from vosssl.engine.scoring import Curve
from vosssl.metrics.score import Score

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\"'&{{script}}"
PLAIN = EvalProtocol(name="plain", task="semi-supervised", compare_with="nothing")
NAMES = tuple(f"{t:05d}" for t in range(6))


class Labels:
    """Label maps in memory, as a page asks for them; counts what it asked for."""

    def __init__(self, videos: dict[str, Tensor]) -> None:
        self.videos = videos
        self.asked: list[tuple[str, str]] = []

    def frames(self, sequence: str) -> tuple[str, ...]:
        return NAMES[: len(self.videos[sequence])]

    def labels(self, sequence: str, frame: str) -> Tensor:
        self.asked.append((sequence, frame))
        return self.videos[sequence][int(frame)]


def squares(length: int = 6) -> Tensor:
    """A square and a wider one that move towards each other, (T, 24, 36) ids 1 and 2."""
    truth = torch.zeros(length, 24, 36, dtype=torch.uint8)
    for t in range(length):
        truth[t, 2:10, t : t + 10] = 1
        truth[t, 14:22, 18 - t : 34 - t] = 2
    return truth


def shifted(truth: Tensor, pixels: int) -> Tensor:
    return truth.roll(pixels, dims=2)


TRUTH = {"near": squares(), "far": squares(), HOSTILE: squares()}
FIRST = Labels({"near": shifted(squares(), 1), "far": shifted(squares(), 4), HOSTILE: squares()})
SWAPPED = torch.tensor([0, 2, 1], dtype=torch.uint8)


def traded(truth: Tensor, at: int) -> Tensor:
    return torch.cat([truth[:at], SWAPPED[truth[at:].long()]])


SECOND = Labels({"near": traded(squares(), 3), "far": shifted(squares(), 2), HOSTILE: squares()})


def report_of(labels: Labels, truth: dict[str, Tensor] = TRUTH) -> Report:
    """IoU as J and its square as F, of all frames but the first."""
    scores, curves = [], []
    for name, video in truth.items():
        for identity in (1, 2):
            here, there = labels.videos[name][1:] == identity, video[1:] == identity
            iou = (here & there).sum(dim=(1, 2)) / (here | there).sum(dim=(1, 2))
            for metric, values in (("J", iou), ("F", iou**2)):
                curves.append(Curve(name, identity, metric, NAMES[1:], tuple(values.tolist())))
                scores.append(Score(name, identity, metric, float(values.mean())))
    return Report(scores, protocol="plain", curves=curves)


def frames(sequence: str) -> Video | None:
    truth = TRUTH[sequence]
    pixels = (truth[:, None] * 60 + 40).expand(-1, 3, -1, -1).contiguous()
    return None if sequence == HOSTILE else clip_video(Clip(sequence, pixels, frame_names=NAMES))


def both(path: Path, **options: Any) -> Path:
    return write_score_page(
        path,
        report_of(FIRST),
        name="first",
        predictions=FIRST,
        other=ScoredMethod(HOSTILE, report_of(SECOND), SECOND),
        truth=Labels(TRUTH),
        frames=frames,
        protocol=PLAIN,
        **options,
    )


def content_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="report">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def sequence_of(page: Path, name: str) -> dict[str, Any]:
    return next(sequence for sequence in content_of(page)["sequences"] if sequence["name"] == name)


def pixels_of(sheet: dict[str, Any]) -> np.ndarray:
    return np.array(Image.open(BytesIO(base64.b64decode(sheet["url"].split(",")[1]))).convert("RGBA"))


def test_every_kind_of_error_is_told_apart() -> None:
    predicted = torch.tensor([[0, 1, 1, 0, 2, 1]], dtype=torch.uint8)
    truth = torch.tensor([[0, 1, 0, 1, 1, 255]], dtype=torch.uint8)
    expected = [0, CORRECT, FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_OBJECT, NOT_COUNTED]
    assert error_map(predicted, truth)[0].tolist() == expected


def test_proposals_take_the_ids_of_the_objects_that_they_overlap_most() -> None:
    truth = squares()
    proposals = torch.tensor([0, 9, 4], dtype=torch.uint8)[truth.long()]
    proposals[:, 0, 0] = 7  # a third proposal, on background
    matched, renamed = matched_to_truth(proposals, truth)
    assert renamed == {9: 1, 4: 2, 7: 3}
    assert torch.equal(torch.where(matched == 3, 0, matched), truth)


def test_matching_needs_neither_proposals_nor_objects() -> None:
    nothing = torch.zeros(2, 4, 4, dtype=torch.uint8)
    assert matched_to_truth(nothing, nothing)[1] == {}
    assert matched_to_truth(nothing + 5, nothing)[1] == {5: 1}


def test_numbers_and_curves_are_those_of_the_report(tmp_path: Path) -> None:
    report = report_of(FIRST)
    near = sequence_of(both(tmp_path / "a.html"), "near")
    assert near["values"]["J"][0] == pytest.approx(report.mean("J", video="near"), abs=1e-4)
    assert [entry["object"] for entry in near["objects"]] == [1, 2]
    assert near["frameNames"] == list(NAMES)  # the first is not scored, but it is there
    curve = next(entry for entry in near["curves"] if (entry["object"], entry["metric"]) == (2, "F"))
    stored = next(c for c in report.curves if (c.video, c.object, c.metric) == ("near", 2, "F"))
    assert curve["points"][0] == [None, *(pytest.approx(value, abs=1e-4) for value in stored.values)]


def test_switches_of_the_second_method_are_found(tmp_path: Path) -> None:
    first, second = sequence_of(both(tmp_path / "a.html"), "near")["pictures"]["methods"]
    assert first["timeline"]["switches"] == []
    assert [(item["frame"], item["slot"]) for item in second["timeline"]["switches"]] == [(3, 0), (3, 1)]
    assert second["timeline"]["matched"][0] == [1, 1, 1, 2, 2, 2]


def test_a_perfect_method_has_no_error_colour(tmp_path: Path) -> None:
    sheet = sequence_of(both(tmp_path / "a.html"), HOSTILE)["pictures"]["methods"][0]["errors"]
    colors = {tuple(color) for color in pixels_of(sheet).reshape(-1, 4) if color[3]}
    assert colors == {(70, 170, 90, 110)}


def test_long_sequences_keep_their_curves_and_say_which_frame_is_pictured(tmp_path: Path) -> None:
    near = sequence_of(both(tmp_path / "a.html", max_frames=3), "near")
    pictures = near["pictures"]
    assert pictures["names"] == [NAMES[0], NAMES[2], NAMES[5]]
    assert pictures["pictureOf"] == [0, 0, 1, 1, 1, 2]
    assert len(near["curves"][0]["points"][0]) == len(pictures["methods"][0]["timeline"]["areas"][0]) == 6


def test_only_the_worst_sequences_are_read(tmp_path: Path) -> None:
    truth = Labels(TRUTH)
    report = report_of(FIRST)
    page = write_score_page(tmp_path / "a.html", report, truth=truth, predictions=FIRST, max_sequences=1)
    assert {sequence for sequence, _ in truth.asked} == {"far"}
    assert sequence_of(page, "near")["pictures"] is None
    assert "Pictures are shown of 1 of 3 sequences" in page.read_text(encoding="utf-8")


def test_void_and_merging_follow_the_protocol(tmp_path: Path) -> None:
    void = squares()
    void[:, 2:10][void[:, 2:10] == 1] = 255
    videos = dict.fromkeys(TRUTH, void)
    for options, colors in (
        ({"void": True}, {(70, 170, 90, 110), (235, 235, 225, 130)}),
        ({"void": False}, {(70, 170, 90, 110), (226, 60, 36, 215)}),
        ({"merge_truth": True, "merge_predictions": True}, {(70, 170, 90, 110)}),
    ):
        page = write_score_page(
            tmp_path / "a.html",
            report_of(FIRST),
            predictions=Labels(TRUTH),
            truth=Labels(videos),
            protocol=EvalProtocol(name="x", task="semi-supervised", **options),
        )
        shown = sequence_of(page, "near")["pictures"]["methods"][0]["errors"]
        assert {tuple(color) for color in pixels_of(shown).reshape(-1, 4) if color[3]} == colors


def test_folders_are_opened_and_binary_truth_is_read(tmp_path: Path) -> None:
    for t, labels in enumerate(squares()):
        write_labels(tmp_path / "pred" / "near" / f"{NAMES[t]}.png", labels)
        truth = tmp_path / "data" / "Annotations" / "480p" / "near" / f"{NAMES[t]}.png"
        write_labels(truth, (labels > 0).byte() * 255)
    report = report_of(FIRST)
    page = write_score_page(
        tmp_path / "a.html",
        Report(report.scores, protocol="davis16-val", curves=report.curves),
        predictions=tmp_path / "pred",
        truth=tmp_path / "data",
    )
    shown = sequence_of(page, "near")["pictures"]["methods"][0]
    assert shown["timeline"]["names"] == ["id 1"]
    assert shown["timeline"]["matched"] == [[1] * 6]
    with pytest.raises(FileNotFoundError, match="no folder of frames"):
        write_score_page(tmp_path / "b.html", report, frames=tmp_path / "nowhere")


def test_scores_alone_make_a_page(tmp_path: Path) -> None:
    page = write_score_page(tmp_path / "a.html", Report(report_of(FIRST).scores))
    assert sequence_of(page, "near")["frameNames"] == []
    with pytest.raises(ValueError, match="nothing to show"):
        write_score_page(tmp_path / "a.html", Report([]))


def test_other_protocols_and_missing_sequences_are_said_aloud(tmp_path: Path) -> None:
    part = Report([s for s in report_of(SECOND).scores if s.video != "far"], protocol="davis17-val")
    page = write_score_page(tmp_path / "a.html", report_of(FIRST), name="a", other=ScoredMethod("b", part))
    text = page.read_text(encoding="utf-8")
    assert "a follows protocol plain, b follows davis17-val: they do not measure the same." in text
    assert "a has sequence far that b has not scored." in text


def test_hostile_texts_stay_texts_and_nothing_is_asked_for(tmp_path: Path) -> None:
    text = both(tmp_path / "a.html", title=HOSTILE, notes=[HOSTILE]).read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "default-src 'none'" in text
    assert not re.search(
        r"https?://|<link|<iframe|@import|url\(|src=\"", text.replace("http://www.w3.org/", "")
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no chromium with chromedriver on the PATH")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    browser.open(both(tmp_path / "a.html", title=HOSTILE, notes=[HOSTILE]))
    browser.wait_for("document.querySelector('article[data-ready]')")
    return browser


def order(page: Browser) -> list[str]:
    names = page.script(
        "return [...document.querySelectorAll('#overview-table td:first-child')].map((n) => n.textContent)"
    )
    return ["hostile" if name == HOSTILE else name for name in names]


def shown_frame(page: Browser) -> str:
    return page.script("return document.querySelector('article output').textContent").split(" of ")[0]


@pytest.mark.browser
def test_nothing_hostile_runs_and_nothing_is_fetched(page: Browser) -> None:
    assert page.script("return window.broken") is None
    assert page.script("return document.querySelectorAll('img').length") == 0
    assert page.script("return document.querySelector('.notes li').textContent") == HOSTILE
    fetched = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.console() == []


@pytest.mark.browser
def test_sequences_are_sorted_by_either_method_and_by_their_difference(page: Browser) -> None:
    assert order(page) == ["far", "near", "hostile"]
    page.click("#order option[value=best]")
    assert order(page) == ["hostile", "near", "far"]
    page.click("#by option[value='1']")
    assert order(page) == ["hostile", "far", "near"]  # the second loses its objects in `near`
    page.click("#order option[value=loss]")
    assert order(page) == ["near", "hostile", "far"]
    page.click("#order option[value=gain]")
    assert order(page) == ["far", "hostile", "near"]


@pytest.mark.browser
def test_the_last_row_has_the_difference_of_the_means_with_its_interval(page: Browser) -> None:
    shown = page.script("return document.querySelector('#overview-table tfoot').textContent")
    summary = page.script("return document.querySelector('.difference').textContent")
    assert shown.startswith("mean")
    change, interval = re.findall(r"[+-][0-9.]+", summary)[:1], re.findall(r"\[[^]]+]", summary)[0]
    assert change[0] in shown and interval in shown
    assert page.script("return document.querySelector('.shift .range').getBoundingClientRect().width > 0")


@pytest.mark.browser
def test_a_worst_object_leads_to_its_worst_frame(page: Browser) -> None:
    page.click("#by option[value='1']")
    assert page.script("return document.querySelector('#worst-table button').textContent").startswith("near")
    page.click("#worst-table button")
    near = "document.querySelector('#sequence-0 output').textContent"
    assert page.script(f"return {near}").startswith("frame 00003")
    assert page.script("return document.activeElement.id") == "sequence-0"
    assert page.script("return document.querySelector('#sequence-0 select').value") == "1"


@pytest.mark.browser
def test_keys_move_curves_pictures_and_errors(page: Browser) -> None:
    pictures = "return [...document.querySelectorAll('article canvas')].slice(0, 5).map((c) => c.toDataURL())"
    before = page.script(pictures)
    page.type("article input[type=range]", "Right", "Right")
    assert shown_frame(page) == "frame 00002"
    after = page.script(pictures)
    assert all(one != other for one, other in zip(before, after, strict=True))
    legend = page.script("return document.querySelector('article .legend').textContent")
    assert legend.startswith("J of first 0.")
    page.type("article input[type=range]", "Home")
    assert "J of first -" in page.script("return document.querySelector('article .legend').textContent")


@pytest.mark.browser
def test_curves_follow_the_chosen_object(page: Browser) -> None:
    path = "return document.querySelector('article .chart .series').getAttribute('d')"
    mean = page.script(path)
    page.click("article .tools select option[value='1']")
    assert page.script(path) != mean
    page.type("article input[type=range]", "End")
    assert page.script("return document.querySelector('article .chart .cursor').getAttribute('x1')") == "5.5"


@pytest.mark.browser
def test_the_page_fits_a_narrow_screen_and_both_themes(page: Browser) -> None:
    page.script("document.body.style.width = '360px'")  # headless windows have a smallest width
    assert page.script("return [...document.querySelectorAll('article')].every((a) => a.scrollWidth <= 362)")
    color = "return getComputedStyle(document.body).backgroundColor"
    before = page.script(color)
    page.click("#theme")
    assert page.script(color) != before


@pytest.mark.browser
def test_a_page_of_numbers_alone_works(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_score_page(tmp_path / "a.html", Report(report_of(FIRST).scores)))
    assert order(browser) == ["far", "near", "hostile"]
    browser.click("#worst-table button")
    assert browser.console() == []
