"""The page for people at `/`, and the test set of the run that it shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from glore.report import browser_data
from glore.report.assets import asset, policy

__all__ = ["Browsed", "playground_page"]

SCRIPTS = ("playground_decisions.js", "playground_files.js", "playground.js")


class Browsed:
    """The test set of a run, read when it is first asked for, and then kept as text.

    `read`: gives its data (`glore.report.browser_data`). What it raises is raised at every asking.
    """

    def __init__(self, name: str, read: Callable[[], Mapping[str, object]]) -> None:
        self.name, self._read = name, read
        self._lock = threading.Lock()
        self._text: str | None = None

    @classmethod
    def of(cls, run_dir: Path) -> Browsed:
        """The test set of a finished run."""
        return cls(run_dir.name, lambda: browser_data(run_dir))

    def text(self) -> str:
        """The data as JSON."""
        with self._lock:
            if self._text is None:
                self._text = json.dumps(self._read(), allow_nan=False, separators=(",", ":"))
            return self._text


@cache
def playground_page() -> tuple[str, Mapping[str, str]]:
    """The page, and the headers that go with it. It holds no data: its script asks for it."""
    style = asset("glore.report", "chart.css", "page.css") + asset("glore.serve", "playground.css")
    script = asset("glore.report", "solutions.js") + asset("glore.serve", *SCRIPTS)
    text = asset("glore.serve", "playground.html")
    # One after the other, each once: neither asset is searched for the other's place.
    before, _, rest = text.partition("/* style */")
    between, _, after = rest.partition("/* script */")
    headers = {
        "Content-Security-Policy": policy(
            style, script, "connect-src 'self'", "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return f"{before}{style}{between}{script}{after}", headers
