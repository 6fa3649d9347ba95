"""A headless Chromium driven through chromedriver's HTTP interface (W3C WebDriver), by urllib."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard gives to references to elements
KEYS = {
    "Left": "\ue012",
    "Right": "\ue014",
    "Home": "\ue011",
    "End": "\ue010",
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Escape": "\ue00c",
}


def chromium() -> str | None:
    """The browser's path, or None when it or its driver is missing."""
    return (
        (shutil.which("chromium") or shutil.which("chromium-browser"))
        if shutil.which("chromedriver")
        else None
    )


class Browser:
    """One browser window; close it with `close`.

    Args:
        profile: an empty folder for the browser's files.
        size: (width, height) of the window.
    """

    def __init__(self, profile: Path, *, size: tuple[int, int] = (1200, 900)) -> None:
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never by a proxy
        self._url = f"http://127.0.0.1:{self._port()}/session"
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        wanted = {
            "goog:chromeOptions": {"binary": chromium(), "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        try:
            answer = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.terminate()
            raise
        self._url += f"/{answer['sessionId']}"

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                return int(found[1])
        raise RuntimeError("chromedriver did not start")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, content, {"Content-Type": "application/json"}, method=method
        )
        try:
            with self._open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error

    def open(self, page: Path) -> None:
        """Loads a file and waits until it has loaded."""
        self.open_url(page.resolve().as_uri())

    def open_url(self, url: str) -> None:
        """Loads an address and waits until it has loaded."""
        self._call("POST", "/url", {"url": url})

    def script(self, text: str, *arguments: Any) -> Any:
        """What the body of a function gives back; its arguments are `arguments`."""
        return self._call("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def wait_for(self, condition: str) -> None:
        """Waits until an expression is true."""
        body = "const done = arguments[0], ask = () => ({}) ? done(true) : setTimeout(ask, 30); ask();"
        self._call("POST", "/execute/async", {"script": body.replace("({})", f"({condition})"), "args": []})

    def find(self, selector: str) -> str:
        """A reference to the first element that fits a CSS selector."""
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def _center(self, selector: str) -> None:
        """Scrolls at once; the page would scroll smoothly, and the mouse miss."""
        where = "{block: 'center', behavior: 'instant'}"
        self.script(f"document.querySelector(arguments[0]).scrollIntoView({where})", selector)

    def click(self, selector: str) -> None:
        if "option" not in selector:
            self._center(selector)
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, *keys: str) -> None:
        """Presses keys with an element focused: names in KEYS, else characters."""
        text = "".join(KEYS.get(key, key) for key in keys)
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press_at(self, selector: str, *, x: float) -> None:
        """Presses and releases the mouse at a share x of an element's width, from its left, half way down."""
        self._center(selector)
        width = self.script(
            "return document.querySelector(arguments[0]).getBoundingClientRect().width", selector
        )
        at = {"origin": {ELEMENT: self.find(selector)}, "x": round((x - 0.5) * width), "y": 0}
        actions = [
            {"type": "pointerMove", "duration": 0, **at},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._call("POST", "/actions", {"actions": [mouse]})

    def drag(
        self,
        selector: str,
        start: tuple[float, float],
        end: tuple[float, float] | None = None,
        *,
        button: int = 0,
    ) -> None:
        """Moves the mouse to a place in an element, presses a button, moves on, and lets go.

        Args:
            selector: of the element.
            start: CSS pixels from its upper left corner.
            end: likewise; None: a click.
            button: 0 left, 2 right.
        """
        left, top = self.script(
            "const {x, y} = document.querySelector(arguments[0]).getBoundingClientRect(); return [x, y]",
            selector,
        )
        places = [
            {"type": "pointerMove", "duration": 0, "x": round(left + x), "y": round(top + y)}
            for x, y in (start, end or start)
        ]
        pressed = [{"type": kind, "button": button} for kind in ("pointerDown", "pointerUp")]
        actions = [places[0], pressed[0], places[1], pressed[1]]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._call("POST", "/actions", {"actions": [mouse]})

    def press(self, *keys: str) -> None:
        """Presses keys one after another, wherever the focus is: names in KEYS, else characters."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def console(self) -> list[str]:
        """Messages since the last call, errors and refusals of the security policy among them."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
        return path

    def close(self) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=20)
