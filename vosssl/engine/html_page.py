"""One HTML file that needs nothing else: no server, no network, no other file.

A page NAME is made of `NAME.html` (what the body holds), `.css` and `.js` beside this file, in the frame
`html_page.html` and after the `.css` and `.js` of all pages. A content security policy forbids it every
request and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from vosssl.data.files import atomic_write


def write_html_page(path: str | Path, name: str, *, parts: Mapping[str, str], report: Any) -> Path:
    """Writes a page.

    Args:
        path: the HTML file, replaced at once when the page is complete. Its folder is made.
        name: which page, such as `inspect_page`.
        parts: HTML (text already escaped) for the `{{...}}` of the template.
        report: what the script shows, JSON without NaN.

    Returns:
        The path.
    """
    script = _asset("html_page.js") + _asset(f"{name}.js")
    fingerprint = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    filled = {
        **parts,
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{fingerprint}'; base-uri 'none'; form-action 'none'",
        "style": _asset("html_page.css") + _asset(f"{name}.css"),
        "script": script,
        "report": embedded_json(report),
    }
    filled["page"] = _filled(f"{name}.html", filled)
    page = _filled("html_page.html", filled)
    with atomic_write(path) as temporary:
        # errors: names of files may hold bytes that are no characters
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return Path(path)


def embedded_json(value: Any) -> str:
    """JSON that is safe inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float) -> float | None:
    """A value for JSON, which knows no NaN; four digits, a screen shows no more."""
    return round(float(value), 4) if math.isfinite(value) else None


def css_color(color: Tensor) -> str:
    """(3,) uint8 RGB as a style sheet writes it."""
    red, green, blue = color.tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with its `{{...}}` replaced once: what a part holds is never read as a template."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset(template))


def _asset(name: str) -> str:
    return resources.files("vosssl.engine").joinpath(name).read_text(encoding="utf-8")
