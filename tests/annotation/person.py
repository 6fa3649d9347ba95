"""A person at the annotation page: a real browser, mouse and keys."""

from __future__ import annotations

import time

from tests.engine.webdriver import Browser


class Person:
    """Somebody in front of the page.

    Args:
        browser: shows it.

    Attributes:
        prompts: clicks, boxes and strokes on the frame so far.
        presses: keys and clicks elsewhere.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.prompts = self.presses = 0

    def visit(self, url: str) -> None:
        """Opens the page and waits until a frame is seen."""
        self.browser.open_url(url)
        self.browser.wait_for("document.body.dataset.shown && !watching")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """From pixels of the frame to CSS pixels of the canvas."""
        left, top, scale = self.browser.script("const {left, top, scale} = fit(); return [left, top, scale]")
        return left + x * scale, top + y * scale

    def click(self, x: float, y: float, *, button: int = 0) -> None:
        """Clicks on a pixel of the frame; button 2 is the right one."""
        self.prompts += 1
        self.browser.drag("#view", self.at(x, y), button=button)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, button: int = 0) -> None:
        """Drags from pixel to pixel of the frame."""
        self.prompts += 1
        self.browser.drag("#view", self.at(*start), self.at(*end), button=button)
        self.settle()

    def press(self, *keys: str) -> None:
        """Presses keys, each when the one before has had its effect."""
        for key in keys:
            self.presses += 1
            self.browser.press(key)
            self.settle()

    def begin(self, key: str) -> None:
        """Presses a key whose work goes on for a while."""
        self.presses += 1
        self.browser.press(key)

    def settle(self, *, patience: float = 1800) -> None:
        """Waits until the server has answered and nothing runs."""
        self.browser.script("return new Promise(done => setTimeout(done, 60))")
        idle = "return !document.body.dataset.busy && !document.body.dataset.running && !watching"
        end = time.monotonic() + patience
        while not self.browser.script(idle):
            assert time.monotonic() < end, self.message
            time.sleep(0.05)

    @property
    def message(self) -> str:
        """What the page says."""
        return str(self.browser.script("return document.getElementById('message').textContent"))

    @property
    def hint(self) -> str:
        """What the page says is to be done next."""
        return str(self.browser.script("return document.getElementById('hint').textContent"))

    @property
    def frame(self) -> int:
        """The frame that is looked at."""
        return int(self.browser.script("return page.frame"))
