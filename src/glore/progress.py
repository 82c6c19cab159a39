"""Progress of long work: a live line with its name, amount, speed and time left.

Work reports through the `Progress` protocol and never prints. Text from files and models is shown
as plain text: no markup is interpreted, and control characters are replaced.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from glore.errors import printable

__all__ = ["Progress", "SilentProgress", "TerminalProgress", "duration"]

PLAIN_INTERVAL_SECONDS = 10.0


class Progress(Protocol):
    """Receives reports of work."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """Start new work of `total` units (0: unknown). The work before it has ended."""
        ...

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """Count `n` more units as done, with the tokens generated or trained on for them."""
        ...

    def note(self, message: str) -> None:
        """Show one line that stays on the screen and in the log."""
        ...


class SilentProgress:
    """Ignores all reports."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """Ignored."""

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""


class TerminalProgress:
    """Shows a live line on a terminal, and a plain line every ten seconds elsewhere. Notes also go
    to `log_file`. Use it as a context manager, so that the live line is always removed.
    """

    def __init__(
        self,
        console: Console | None = None,
        log_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._log_file = log_file
        self._clock = clock
        self._what, self._total, self._unit = "", 0, ""
        self._done, self._tokens = 0, 0
        self._began = self._said = clock()
        self._live: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the current work and remove the live line."""
        self._finish()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, what: str, total: int, unit: str) -> None:
        """Start new work."""
        self._finish()
        self._what, self._total, self._unit = printable(what), total, printable(unit)
        self._done, self._tokens = 0, 0
        self._began = self._said = self._clock()
        if self.console.is_terminal:
            if self._live is None:
                columns = (
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=10),
                    _Stats(self.status),
                )
                self._live = RichProgress(
                    *columns, console=self.console, transient=True, refresh_per_second=4
                )
                self._live.start()
            self._task = self._live.add_task(self._what, total=total or None)

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """Count `n` units and `tokens` tokens as done."""
        self._done += n
        self._tokens += tokens
        if self._live is not None and self._task is not None:
            self._live.update(self._task, advance=n)
        elif self._clock() - self._said >= PLAIN_INTERVAL_SECONDS:
            self._said = self._clock()
            self._print(f"{self._what}: {self.status()}")

    def note(self, message: str) -> None:
        """Print and log one line."""
        line = printable(message)
        self._print(line)
        self._log(line)

    def status(self) -> str:
        """Done of total, units and tokens per second, time left. Without any count: the time so
        far.
        """
        seconds = max(self._clock() - self._began, 1e-9)
        if not self._total and not self._done:
            return duration(seconds)
        parts = [
            f"{self._done}/{self._total} {self._unit}"
            if self._total
            else f"{self._done} {self._unit}"
        ]
        if self._done:
            parts.append(f"{_short(self._done / seconds)}/s")
        if self._tokens:
            parts.append(f"{_short(self._tokens / seconds)} tokens/s")
        if self._done and self._total > self._done:
            parts.append(f"{duration(seconds * (self._total - self._done) / self._done)} left")
        return " · ".join(parts)

    def _finish(self) -> None:
        if not self._what:
            return
        if self._total or self._done:
            self._log(
                f"{self._what}: {self.status()}, took {duration(self._clock() - self._began)}"
            )
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
        self._what, self._task = "", None

    def _print(self, line: str) -> None:
        # Without a terminal, rich would fold lines at 80 columns, also in logs.
        self.console.print(Text(line), soft_wrap=not self.console.is_terminal)

    def _log(self, line: str) -> None:
        if self._log_file is None:
            return
        stamp = datetime.datetime.now().isoformat(timespec="seconds")
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            with self._log_file.open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {line}\n")
        except OSError:
            # A run must not end for a log line. The stage that needs the space reports a full disk.
            self._log_file = None


class _Stats(ProgressColumn):
    """The numbers beside the bar, computed again at every redraw."""

    def __init__(self, status: Callable[[], str]) -> None:
        super().__init__()
        self._status = status

    def render(self, task: Task) -> Text:
        return Text(self._status())


def duration(seconds: float) -> str:
    """Seconds → `12 s`, `3:05` (minutes) or `1:02:03` (hours)."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(rate: float) -> str:
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if rate >= factor:
            return f"{rate / factor:.1f}{letter}"
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
