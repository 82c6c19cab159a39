"""The live line: its numbers, plain lines without a terminal, and no markup or terminal escape from
text.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from glore.errors import printable
from glore.progress import TerminalProgress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(tmp_path: Path, clock: Clock) -> tuple[TerminalProgress, io.StringIO]:
    out = io.StringIO()
    return TerminalProgress(Console(file=out, width=80), tmp_path / "log" / "run.log", clock), out


def test_status_gives_rate_tokens_and_time_left(tmp_path: Path) -> None:
    clock = Clock()
    progress, _ = plain(tmp_path, clock)
    progress.begin("rollouts", 100, "prefixes")
    clock.now = 10.0
    progress.advance(20, tokens=25_000)
    assert progress.status() == "20/100 prefixes · 2.0/s · 2.5k tokens/s · 40 s left"


def test_without_a_terminal_a_line_comes_every_ten_seconds(tmp_path: Path) -> None:
    clock = Clock()
    progress, out = plain(tmp_path, clock)
    progress.begin("x", 1000, "rows")
    for _ in range(25):
        clock.now += 1
        progress.advance()
    assert out.getvalue().splitlines() == [
        "x: 10/1000 rows · 1.0/s · 16:30 left",
        "x: 20/1000 rows · 1.0/s · 16:20 left",
    ]


def test_notes_are_printed_and_logged_as_plain_text(tmp_path: Path) -> None:
    progress, out = plain(tmp_path, Clock())
    progress.note("[bold red]model text[/] \x1b[2J\x9b2J and [/nonsense] " + "w" * 90)
    assert out.getvalue() == "[bold red]model text[/]  [2J 2J and [/nonsense] " + "w" * 90 + "\n"
    assert "[bold red]model text[/]  [2J 2J" in (tmp_path / "log" / "run.log").read_text()


def test_a_terminal_shows_the_live_line_and_gives_the_screen_back(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    with TerminalProgress(console) as progress:
        progress.begin("[bad] markup", 3, "rows")
        progress.advance(2)
        progress.begin("next", 0, "tokens")
        progress.advance(5)
    text = out.getvalue()
    assert "[bad] markup" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text


def test_a_log_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    progress, out = plain(tmp_path, Clock())
    progress.note("going on")
    progress.note("still")
    assert out.getvalue() == "going on\nstill\n"


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.4, 60, 3661)] == ["0 s", "59 s", "1:00", "1:01:01"]


def test_printable_cuts_and_flattens() -> None:
    assert printable("a\nb\tc") == "a b c"
    assert printable("x" * 10, limit=4) == "xxxx…"
