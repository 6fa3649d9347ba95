"""The click-and-track window: the only file that opens one. All it does is pass on mouse and keys."""

from __future__ import annotations

import os
import sys
from typing import Any

import cv2

from vosssl.engine.click_session import ClickSession

TITLE = "vosssl: click and track"
IDLE_MS = 25  # how long to wait for a key while nothing moves
_NAMES = {  # what waitKeyEx gives: Linux (Qt, GTK), Windows, macOS
    13: "enter", 10: "enter", 65421: "enter",
    32: "space", 9: "tab", 27: "escape",
    65361: "left", 2424832: "left", 63234: "left", ord(","): "left",
    65363: "right", 2555904: "right", 63235: "right", ord("."): "right",
    65360: "home", 2359296: "home", 63273: "home",
    65367: "end", 2293760: "end", 63275: "end",
}  # fmt: skip


def run_window(session: ClickSession, *, title: str = TITLE) -> None:
    """Shows a session until the person quits or closes the window.

    Args:
        session: what is shown and told.
        title: of the window.

    Raises:
        ValueError: there is no screen to open a window on.
    """
    _open(title)
    changed = [True]
    cv2.setMouseCallback(title, _mouse, (session, changed))
    try:
        while not session.done:
            if changed[0] or session.tick():
                changed[0] = False
                picture = session.picture()
                cv2.imshow(title, picture.flip(0).permute(1, 2, 0).contiguous().numpy())
            code = cv2.waitKeyEx(1 if session.playing else IDLE_MS)
            if code != -1:
                session.key(key_name(code))
                changed[0] = True
            if cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
                session.key("q")
    finally:
        cv2.destroyAllWindows()
        cv2.waitKey(1)  # lets the window go


def key_name(code: int) -> str:
    """The name by which `ClickSession.key` knows a key; empty for one that it does not know."""
    if code in _NAMES:
        return _NAMES[code]
    if code >> 8 == 0xFF:  # X11's keys without a character
        return ""
    code &= 0xFF  # some backends add what else is pressed
    return _NAMES.get(code, chr(code).lower() if 32 < code < 127 else "")


def _mouse(event: int, x: int, y: int, flags: int, parameter: Any) -> None:
    session, changed = parameter
    if event == cv2.EVENT_LBUTTONDOWN:
        session.press(x, y)
    elif event == cv2.EVENT_RBUTTONDOWN:
        session.press(x, y, left=False)
    elif event == cv2.EVENT_LBUTTONUP:
        session.release(x, y)
    elif event == cv2.EVENT_MOUSEMOVE and session.is_dragging:
        session.move(x, y)
    else:
        return
    changed[0] = True


def _open(title: str) -> None:
    """Opens the window; Qt would end the whole program where there is no screen."""
    advice = "the same without a window is vosssl.ClickAndTrack, or mode=predict prompt=…"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise ValueError(f"there is no screen (DISPLAY is not set): use ssh -X, or a desktop; {advice}")
    try:
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    except cv2.error as error:
        raise ValueError(
            f"this OpenCV opens no windows (opencv-python-headless?): install opencv-python; {advice}"
        ) from error
