"""The page of a dataset: what the file holds, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.webdriver import Browser, chromium
from vosssl.clip import Clip
from vosssl.data.sampling import Draw
from vosssl.data.video import clip_video
from vosssl.engine.data_page import DataPage, frames_text, percent, sheet_note
from vosssl.engine.data_sample import DataSample, Tally, read_sample, read_video

HOSTILE = "<script>window.broken = 1</script>\"'&{{script}}"


def clip_of(name: str = "a", *, flow: bool = False) -> Clip:
    """Four frames of a square that moves to the right, and a void stripe; the last is not labelled."""
    labels = torch.zeros(4, 24, 32, dtype=torch.uint8)
    for t in range(4):
        labels[t, 4:12, 4 * t : 4 * t + 8] = 3
    labels[:, 20:] = 255
    return Clip(
        name,
        frames=(labels[:, None] * 7 + 40).expand(-1, 3, -1, -1).contiguous(),
        labels=labels,
        labelled=torch.tensor([True, True, True, False]),
        frame_names=("00002", "00004", "00009", "00010"),
        flow=torch.ones(4, 2, 24, 32) if flow else None,
    )


class OneClip:
    """A dataset of a single clip."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return 1

    def __getitem__(self, draw: Draw | int) -> Clip:
        return self.clip


def training_sample(name: str = "train a") -> DataSample:
    return read_sample(OneClip(clip_of(name, flow=True)), Draw(0, seed=11, step=2))


def page_of(name: str = "val a") -> DataPage:
    page = DataPage({"train": Tally(videos=2, frames=99, clips=1234), "val": Tally(videos=1, frames=4)})
    page.add(training_sample())
    page.add(read_video(clip_video(clip_of(name))))
    return page


def report_of(page: Path) -> dict:
    found = re.search(r'id="report">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_file_needs_nothing_else_and_hostile_names_stay_text(tmp_path: Path) -> None:
    page = page_of(HOSTILE)
    path = page.write(tmp_path / "a.html", title=HOSTILE, config_text=HOSTILE)
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text
    assert "<script>window" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert not re.search(r"https?://|<link|<iframe|@import|url\(|src=\"", text)
    assert report_of(path)["samples"][1]["name"] == HOSTILE


def test_a_training_clip_says_how_it_was_drawn_and_what_it_holds(tmp_path: Path) -> None:
    sample, video = report_of(page_of().write(tmp_path / "a.html", title="t"))["samples"]
    facts = dict(sample["facts"])
    assert (facts["index"], facts["seed"], facts["step"]) == ("0", "11", "2")
    assert (facts["objects"], facts["ids"], facts["labelled"], facts["void"]) == ("1", "3", "3 of 4", "17 %")
    assert sample["note"] == "4 frames (gap 2, 5, 1) of 32 x 24 pixels."
    assert sample["gaps"] == [2, 5, 1]
    assert sample["ids"] == [[3], [3], [3], None]
    assert [anchor[0] for frame in sample["anchors"] for anchor in frame] == [3, 3, 3]
    assert sample["flow"] is not None
    assert sample["flowPeak"] == pytest.approx(2**0.5, abs=1e-4)
    assert video["flow"] is None
    assert "seed" not in dict(video["facts"])


def test_the_count_of_objects_that_a_clip_gives_is_believed() -> None:
    sample = read_sample(OneClip(replace(clip_of(), num_objects=5)), Draw(0))
    assert sample.num_objects == 5
    assert sheet_note(sample) == "32 x 24, 4 frames (gap 2, 5, 1), 5 objects, 3 of 4 labelled, void 17 %"


def test_the_summary_has_a_column_for_each_part(tmp_path: Path) -> None:
    text = page_of().write(tmp_path / "a.html", title="t").read_text()
    assert '<th scope="row">clips an epoch</th><td>1,234</td><td>-</td>' in text
    assert '<th scope="row">labelled frames</th><td>3 of 4 (75 %)</td><td>3 of 4 (75 %)</td>' in text
    assert '<dt>2</dt><dd><span class="bar" style="--share:100%">1</span></dd>' in text  # a gap


def test_what_may_be_a_mistake_is_said(tmp_path: Path) -> None:
    page = DataPage({"train": Tally(), "val": Tally()}, missing={})
    larger = replace(clip_of(), frames=torch.zeros(4, 3, 8, 8), labels=None, labelled=None)
    half_void = clip_of()
    half_void.labels[:, 6:] = 255  # type: ignore[index]
    for clip in (clip_of(), larger, half_void):
        page.add(read_sample(OneClip(clip), Draw(0)))

    def broken() -> DataSample:
        raise ValueError("labels <b> are too wide")

    page.take("val", broken)
    text = page.write(tmp_path / "a.html", title="t").read_text()
    assert "sizes or lengths differ, so that they cannot form a batch" in text
    assert "up to 75 % of a sample is void" in text
    assert "a sample cannot be read: labels &lt;b&gt; are too wide" in text
    assert "none was looked at" in text


def test_a_mistake_of_the_program_is_not_taken_for_one_of_the_data() -> None:
    def broken() -> DataSample:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        page_of().take("val", broken)


def test_clips_without_any_object_are_shown(tmp_path: Path) -> None:
    page = DataPage({"val": Tally()}, missing={"train": "no such folder"})
    empty = replace(clip_of(), labels=torch.zeros(4, 24, 32, dtype=torch.uint8), labelled=None)
    page.add(read_video(clip_video(empty)))
    path = page.write(tmp_path / "a.html", title="t")
    assert report_of(path)["samples"][0]["timeline"] is None
    assert "training clips cannot be opened: no such folder" in path.read_text()
    assert "1 of 1 have labels but no object" in path.read_text()


def test_a_contact_sheet_holds_the_first_samples_of_each_part() -> None:
    page = DataPage({"train": Tally(), "val": Tally()}, sheet_samples=1)
    with pytest.raises(ValueError, match="no samples"):
        page.contact_sheet()
    page.add(training_sample())
    height = page.contact_sheet().shape[1]
    page.add(training_sample())
    assert page.contact_sheet().shape[1] == height
    page.add(read_video(clip_video(clip_of())))
    assert page.contact_sheet().shape[1] > height


def test_numbers_read_well() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.012, 0.5, 1)] == [
        "0 %",
        "< 0.1 %",
        "1.2 %",
        "50 %",
        "100 %",
    ]
    video = read_video(clip_video(clip_of()), max_frames=2)
    assert frames_text(video) == "4 frames (2 shown)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no chromium with chromedriver on the PATH")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    browser.open(page_of(HOSTILE).write(tmp_path / "a.html", title=HOSTILE, config_text=HOSTILE))
    browser.wait_for("document.querySelectorAll('article[data-ready]').length === 2")
    return browser


def captions(page: Browser) -> list[str]:
    return page.script(
        "return [...document.querySelectorAll('#sample-0 figcaption')].map((node) => node.textContent)"
    )


def picture(page: Browser, place: int) -> str:
    return page.script(
        "return document.querySelectorAll('#sample-0 canvas')[arguments[0]].toDataURL()", place
    )


@pytest.mark.browser
def test_the_slider_moves_frames_and_labels_and_says_their_names_and_gaps(page: Browser) -> None:
    assert captions(page) == [
        "frame 00002", "labels: 1 object, id 3; void 16.7 %", "flow (full colour: 1.4 pixels)",
    ]  # fmt: skip
    before = picture(page, 0), picture(page, 1)
    page.type("#sample-0 input[type=range]", "Right", "Right")
    assert captions(page)[0] == "frame 00009 (+5)"
    assert picture(page, 0) != before[0]
    assert picture(page, 1) != before[1]
    page.type("#sample-0 input[type=range]", "End")
    assert captions(page)[1] == "not labelled"
    assert picture(page, 0) == picture(page, 1)
    assert page.console() == []


@pytest.mark.browser
def test_ids_and_tint_can_be_taken_away(page: Browser) -> None:
    numbered = picture(page, 1)
    page.click("#numbers")
    tinted = picture(page, 1)
    assert tinted != numbered
    page.type("#tint", "Home")
    assert picture(page, 1) == picture(page, 0) != tinted


@pytest.mark.browser
def test_nothing_hostile_runs_and_the_overview_leads_to_samples(page: Browser) -> None:
    assert page.script("return window.broken") is None
    assert page.script("return document.querySelector('h1').textContent") == HOSTILE
    rows = page.script(
        "return [...document.querySelectorAll('#overview-table tbody tr')].map((r) => r.innerText)"
    )
    assert [row.split("\t")[1] for row in rows] == ["training", "evaluation"]
    links = page.script("return [...document.querySelectorAll('#overview-table a')].map((a) => a.hash)")
    assert links == ["#sample-0", "#sample-1"]
    assert page.script("return document.querySelector('#val-list h3').textContent") == HOSTILE
    assert page.console() == []
