"""Commands and code of README.md and docs/, as a user would take them from the page."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^    (?:glore) [^\n]*(?:\\\n[^\n]*)*", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: its words, what a pipe gives it, and the file for its output."""

    page: str
    line: str
    words: tuple[str, ...]
    stdin: str = ""
    output: str = ""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    text = page.read_text(encoding="utf-8")
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        for indent, found, body in _FENCE.findall(text)
        if found == language
    ]


def commands(page: Path) -> list[Command]:
    """Every command of the shell blocks, and of indented lines that begin with `glore`, in order.

    `A && B` are two commands, `echo … |` is the next one's stdin, a backslash joins lines, the word
    after `>` is the output, and what comes after `#` is left out.
    """
    text = page.read_text(encoding="utf-8")
    shown = [*blocks(page, "sh"), *_INDENTED.findall(_FENCE.sub("", text))]
    lines = [
        line.strip()
        for block in shown
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        for part in _split(words, "&&"):
            *before, last = _split(part, "|")
            stdin = " ".join(before[-1][1:]) if before and before[-1][0] == "echo" else ""
            kept, output = last, ""
            if ">" in last:
                at = last.index(">")
                kept, output = last[:at], last[at + 1]
            found.append(Command(page.name, line, tuple(kept), stdin, output))
    return found


def _split(words: list[str], sign: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == sign:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts
