"""The HTML report: what the file holds, and how it behaves in a real browser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.webdriver import Browser, chromium
from vosssl.engine.inspect_page import InspectedClip, write_inspect_page

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\"'&{{script}}"


def moving_square(
    name: str, *, length: int = 6, size: tuple[int, int] = (32, 48), score: float = 0.5, trade_at: int = 99
) -> InspectedClip:
    """Two squares on a plain ground; slots 2 and 3 hold them and trade them at frame `trade_at`."""
    height, width = size
    truth = torch.zeros(length, height, width, dtype=torch.uint8)
    for t in range(length):
        left = t * width // (2 * length)
        truth[t, : height // 3, left : left + width // 3] = 1
        truth[t, height // 2 :, width // 2 - left // 2 : width - left // 2] = 2
    slots = truth.long()
    slots[trade_at:] = torch.tensor([0, 2, 1])[slots[trade_at:]]
    masks = torch.nn.functional.one_hot(slots, 4).movedim(-1, 1).float() * 0.7 + 0.075  # (T, 4, H, W)
    frames = (truth[:, None] * 90 + 40).expand(-1, 3, -1, -1).contiguous()
    return InspectedClip(
        name,
        frames,
        (slots + 1).to(torch.uint8),
        truth=truth,
        masks=masks,
        attention=masks * 0.5,
        frame_metrics={
            "image/mbo": [score] * (length - 1) + [math.nan],
            "J": [t / length for t in range(length)],
        },
        metrics={"video/fg_ari": score, "video/mbo": 1 - score},
    )


def report_of(page: Path) -> dict:
    found = re.search(r'id="report">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    page = write_inspect_page(tmp_path / "deep" / "inspect.html", [moving_square("a")], title="run")
    text = page.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|<link|<iframe|@import|url\(|src=\"", text)
    assert [file.name for file in page.parent.iterdir()] == ["inspect.html"]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    clip = replace(moving_square(HOSTILE), metrics={HOSTILE: 0.5})
    page = write_inspect_page(
        tmp_path / "a.html",
        [clip],
        title=HOSTILE,
        summary_rows=[(HOSTILE, {HOSTILE: 0.5})],
        alarms=[HOSTILE],
        config_text=HOSTILE,
    )
    text = page.read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert report_of(page)["clips"][0]["name"] == HOSTILE


def test_a_name_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    page = write_inspect_page(tmp_path / "a.html", [moving_square("a\udcff")], title="b\udcff")
    assert "b?" in page.read_text(encoding="utf-8")


def test_twenty_four_clips_of_eight_frames_stay_below_five_megabytes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def worst(index: int) -> InspectedClip:
        """Noise: nothing compresses worse."""
        coarse = torch.rand(8, 3, 16, 16, generator=generator)
        frames = (torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear") * 255).byte()
        masks = torch.rand(8, 11, 16, 16, generator=generator)
        labels = torch.nn.functional.interpolate(masks, size=(64, 64)).argmax(dim=1).add(1).byte()
        return InspectedClip(f"clip {index}", frames, labels, truth=labels, masks=masks, attention=masks)

    page = write_inspect_page(tmp_path / "a.html", (worst(i) for i in range(24)), title="run")
    assert page.stat().st_size < 5_000_000


def test_large_and_long_clips_are_shown_smaller_and_say_so(tmp_path: Path) -> None:
    clip = moving_square("long", length=30, size=(240, 427))
    page = write_inspect_page(tmp_path / "a.html", [clip], title="run", display_side=128, max_frames=10)
    shown = report_of(page)["clips"][0]
    assert (
        shown["note"] == "30 frames (10 of them shown, evenly spaced) of 427 x 240 pixels, shown at 128 x 72."
    )
    assert shown["frameNumbers"][0] == 0
    assert shown["frameNumbers"][-1] == 29
    assert len(shown["frameMetrics"]["J"]) == len(shown["areas"][0]) == 10


def test_switches_are_flagged_with_both_slots(tmp_path: Path) -> None:
    page = write_inspect_page(tmp_path / "a.html", [moving_square("a", trade_at=3)], title="run")
    shown = report_of(page)["clips"][0]
    assert shown["matched"][1] == [1, 1, 1, 2, 2, 2]
    assert [(item["frame"], item["slot"]) for item in shown["switches"]] == [(3, 1), (3, 2)]
    assert (
        shown["switches"][0]["text"]
        == "frame 3: slot 2 takes object 2 (it held object 1 before; slot 3 held it before)"
    )
    assert shown["frameMetrics"]["image/mbo"][-1] is None


def test_clips_without_truth_or_slots_are_shown_by_their_ids(tmp_path: Path) -> None:
    clip = replace(moving_square("a"), truth=None, masks=None, attention=None, slot_ids=(), metrics={})
    shown = report_of(write_inspect_page(tmp_path / "a.html", [clip], title="run"))["clips"][0]
    assert shown["slotNames"] == ["id 1", "id 2", "id 3"]
    assert shown["truth"] is shown["masks"] is shown["matched"] is None


def test_a_failing_clip_leaves_the_old_page_alone(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("old")

    def failing() -> Iterator[InspectedClip]:
        yield moving_square("a")
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        write_inspect_page(page, failing(), title="run")
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


def test_the_best_value_of_each_column_is_marked(tmp_path: Path) -> None:
    rows = [("model", {"J": 0.8, "F": 0.4}), ("floor", {"J": 0.5, "F": float("nan")}), ("other", {"F": 0.6})]
    text = write_inspect_page(tmp_path / "a.html", [], title="run", summary_rows=rows).read_text()
    best = re.findall(r'<td class="best"><span class="bar" style="--share:[\d.]+%">([\d.]+)', text)
    assert best == ["0.800", "0.600"]
    assert text.count("<td>-</td>") == 2


def test_sizes_that_are_not_positive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        write_inspect_page(tmp_path / "a.html", [], title="run", max_frames=0)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no chromium with chromedriver on the PATH")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    """The browser with a fresh report of four clips, scores 0.1, 0.4, 0.6 and 0.9."""
    clips = [
        moving_square("fair", score=0.4),
        moving_square("best", score=0.9),
        moving_square(HOSTILE, score=0.1, trade_at=3),
        moving_square("good", score=0.6),
    ]
    path = write_inspect_page(
        tmp_path / "inspect.html", clips, title=HOSTILE, alarms=[HOSTILE], config_text=HOSTILE
    )
    browser.open(path)
    browser.wait_for("document.querySelector('article[data-ready]')")
    return browser


def order(page: Browser) -> list[str]:
    names = page.script("return [...document.querySelectorAll('h3')].map((node) => node.textContent)")
    return ["worst" if name == HOSTILE else name for name in names]


def frame_shown(page: Browser) -> str:
    return page.script("return document.querySelector('article output').textContent").split(" of ")[0]


def picture(page: Browser, selector: str) -> str:
    return page.script("return document.querySelector(arguments[0]).toDataURL()", selector)


@pytest.mark.browser
def test_nothing_hostile_runs_and_nothing_is_fetched(page: Browser) -> None:
    assert page.script("return window.broken") is None
    assert page.script("return document.querySelectorAll('img').length") == 0
    assert page.script("return document.querySelector('h1').textContent") == HOSTILE
    fetched = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.console() == []


@pytest.mark.browser
def test_an_injected_script_is_refused_by_the_policy(page: Browser) -> None:
    page.script(
        "const evil = document.createElement('script'); evil.textContent = 'window.broken = 3';"
        "document.body.append(evil)"
    )
    assert page.script("return window.broken") is None
    assert any("Content Security Policy" in message for message in page.console())


@pytest.mark.browser
def test_worst_and_best_clips_come_first_and_sorting_moves_them(page: Browser) -> None:
    assert order(page) == ["worst", "best", "fair", "good"]
    page.click("#order option[value=best]")
    assert order(page) == ["best", "good", "fair", "worst"]
    page.click("#overview-table th:nth-child(3) button")  # video/mbo is the other way round
    assert order(page) == ["best", "good", "fair", "worst"]
    assert page.script("return document.querySelector('th[aria-sort]').textContent") == "video/mbo"
    assert page.script("return document.activeElement.textContent") == "video/mbo"


@pytest.mark.browser
def test_arrow_keys_move_the_slider_and_everything_that_follows_it(page: Browser) -> None:
    before = picture(page, "article canvas"), picture(page, "article .slot:nth-child(2) canvas")
    page.type("article input[type=range]", "Right", "Right", "Right")
    assert frame_shown(page) == "frame 3"
    assert page.script("return document.querySelector('article .cursor').getAttribute('x1')") == "3.5"
    assert page.script(
        "return document.querySelector('article .slot:nth-child(2) .held').textContent"
    ).startswith("object 2")
    assert picture(page, "article canvas") != before[0]
    assert picture(page, "article .slot:nth-child(2) canvas") != before[1]
    legend = page.script("return document.querySelector('article .legend').textContent")
    assert "J 0.50" in legend
    page.type("article input[type=range]", "End")
    assert frame_shown(page) == "frame 5"
    assert "image/mbo -" in page.script("return document.querySelector('article .legend').textContent")


@pytest.mark.browser
def test_arrow_keys_work_on_a_focused_slot_too(page: Browser) -> None:
    page.type("article .slot", "Right", "Right", "Left")
    assert frame_shown(page) == "frame 1"


@pytest.mark.browser
def test_the_mouse_moves_slider_and_timeline(page: Browser) -> None:
    page.press_at("article input[type=range]", x=0.99)
    assert frame_shown(page) == "frame 5"
    page.press_at("article .track svg", x=0.25)
    assert frame_shown(page) == "frame 1"
    page.click("article .events button")
    assert frame_shown(page) == "frame 3"


@pytest.mark.browser
def test_playing_advances_and_stops(page: Browser) -> None:
    page.click("article .player button")
    page.wait_for("document.querySelector('article input[type=range]').value !== '0'")
    page.click("article .player button")
    assert page.script("return document.querySelector('article .player button').textContent") == "Play"
    stopped = frame_shown(page)
    page.script("return new Promise((done) => setTimeout(done, 400))")
    assert frame_shown(page) == stopped


@pytest.mark.browser
def test_attention_tint_and_a_slot_alone_change_the_pictures(page: Browser) -> None:
    model = "article figure:nth-child(3) canvas"
    tinted = picture(page, model)
    page.type("#tint", "Home")
    assert picture(page, model) == picture(page, "article figure:nth-child(1) canvas")
    page.type("#tint", "End")
    assert picture(page, model) == tinted
    page.click("article .slot:nth-child(2)")
    assert picture(page, model) != tinted
    assert page.script("return document.querySelector('article .slot:nth-child(2)').ariaPressed") == "true"
    page.click("#kind option[value=attention]")
    assert "Attention" in page.script("return document.querySelector('article .side h4').textContent")


@pytest.mark.browser
def test_the_page_fits_a_narrow_screen_and_both_themes(page: Browser) -> None:
    page.script("document.body.style.width = '360px'")  # headless windows have a smallest width
    wide = page.script("return [...document.querySelectorAll('article')].every((a) => a.scrollWidth <= 362)")
    assert wide
    color = "return getComputedStyle(document.body).backgroundColor"
    before = page.script(color)
    page.click("#theme")
    assert page.script(color) != before


@pytest.mark.browser
def test_a_report_without_clips_opens(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_inspect_page(tmp_path / "empty.html", [], title="nothing"))
    assert (
        browser.script("return document.querySelector('#clip-list').textContent")
        == "This report has no clips."
    )
    assert browser.console() == []


def test_classes_have_names_and_hold_what_was_predicted(tmp_path: Path) -> None:
    slots = moving_square("a")
    clip = replace(
        slots, attention=None, masks=slots.masks[:, :3], predicted=slots.truth, slot_ids=(0, 1, 2),
        slot_names=("background", "class 1", "class 2"), features=slots.frames[..., ::4, ::4],
    )  # fmt: skip
    page = write_inspect_page(tmp_path / "inspect.html", [clip], title="classes", alarms=None)
    shown = report_of(page)["clips"][0]
    assert shown["slotNames"] == ["background", "class 1", "class 2"]
    assert shown["matched"][1] == [1] * 6 and shown["ious"][2] == pytest.approx([1] * 6)
    assert shown["maskTitle"] == "Probability of each" and shown["features"]["width"] == 12
    assert "Slots alone are watched" in page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="2 names for 3 masks"):
        replace(clip, slot_names=("a", "b"))
    with pytest.raises(ValueError, match="features of clip a"):
        replace(clip, features=slots.frames[:2])
