"""What `glore refine` is asked: an argument, stdin, or a file of JSON lines."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from glore.errors import DataError, shown
from glore.files import split_lines
from glore.tasks.source import Row, optional_text, text_field

__all__ = ["Question", "read_questions"]


class Question(NamedTuple):
    """A question and where it stands."""

    id: str
    text: str
    where: str
    """Its place, for messages, such as `q.jsonl, line 7`."""


def read_questions(question: str | None, file: Path | None) -> list[Question]:
    """From the argument, a JSONL file, or stdin (JSONL if it begins as JSON does, else one question)."""
    if question is not None and file is not None:
        raise DataError("give either a question or --file, not both")
    if question is None and file is None and sys.stdin.isatty():
        raise DataError('no question: give one, as in glore refine RUN "How many …?", or pipe it in, or use --file')
    where = str(file) if file else "stdin" if question is None else "the question"
    try:
        # An argument that is no UTF-8 comes as surrogates that stand for its bytes.
        data = file.read_bytes() if file else sys.stdin.buffer.read() if question is None else question.encode(errors="surrogateescape")
    except OSError as error:
        raise DataError(f"can't read {where}: {error.strerror or error}; give a UTF-8 JSONL file") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        raise DataError(
            f"{where}, line {before.count(10) + 1}: text must be UTF-8, got byte {error.object[error.start]:#x}; write it again as UTF-8"
        ) from error
    if file is not None or (question is None and re.match(r'\s*(\{|\[\s*[\[{"\]])', text)):
        return _json_questions(text, where)
    if not text.strip():
        raise DataError(f"{where} is empty; give the text of a problem")
    return [Question("q0", text.strip(), where)]


def _json_questions(text: str, where: str) -> list[Question]:
    """One per line. Ids are the user's, or `q0`, `q1`, … over the whole input."""
    found: dict[str, Question] = {}
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({shown(line.strip(), 40)}); write one object per line") from error
        if not isinstance(fields, dict):
            raise DataError(f'{place}: not an object ({shown(line.strip(), 40)}); write one object per line, like {{"question": "…"}}')
        row = Row(place, fields)
        name = optional_text(row, "id") or f"q{len(found)}"
        if name in found:
            raise DataError(f"{place}: the id {shown(name)} is taken by {found[name].where}; give every question an id of its own")
        found[name] = Question(name, text_field(row, "question").strip(), place)
    if not found:
        raise DataError(f'{where} holds no question; write one object per line, like {{"question": "…"}}')
    return list(found.values())
