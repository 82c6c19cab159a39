"""Questions for `glore refine`, from an argument, stdin, or a file of JSON lines."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from glore.errors import DataError, shown
from glore.files import read_bounded, read_given, split_lines
from glore.prompts import MAX_QUESTION_CHARS
from glore.tasks.data.row import Row, optional_text, text_field

__all__ = ["Question", "read_questions"]

MAX_INPUT_BYTES = 2**28


class Question(NamedTuple):
    """A question and its place in the input."""

    id: str
    text: str
    where: str
    """The place, for messages, such as `q.jsonl, line 7`."""


def read_questions(question: str | None, file: Path | None) -> list[Question]:
    """The questions in the argument, in a JSONL file, or in stdin (JSONL if it begins like JSON,
    else one question). Raises DataError.
    """
    if question is not None and file is not None:
        raise DataError("give either a question or --file, not both")
    where = str(file) if file else "stdin" if question is None else "the question"
    try:
        data = _bytes_of(question, file)
    except OSError as error:
        raise DataError(
            f"can't read {where}: {error.strerror or error}; give a UTF-8 JSONL file"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        raise DataError(
            f"{where}, line {before.count(10) + 1}: text must be UTF-8, got byte "
            f"{error.object[error.start]:#x}; write it again as UTF-8"
        ) from error
    if file is not None or (question is None and re.match(r'\s*(\{|\[\s*[\[{"\]])', text)):
        return _json_questions(text, where)
    if not text.strip():
        raise DataError(f"{where} is empty; give the text of a problem")
    return [Question("q0", _short(text.strip(), where), where)]


def _bytes_of(question: str | None, file: Path | None) -> bytes:
    if file is not None:
        return read_given(file, MAX_INPUT_BYTES)
    if question is not None:
        # Bytes of an argument that are not UTF-8 arrive as surrogates.
        return question.encode(errors="surrogateescape")
    if sys.stdin is None or sys.stdin.isatty():
        why = "stdin is closed" if sys.stdin is None else "none was given"
        raise DataError(
            f'no question: {why}; give one, as in glore refine RUN "How many …?", or pipe it in, '
            "or use --file"
        )
    return read_bounded(sys.stdin.buffer, MAX_INPUT_BYTES)


def _short(text: str, place: str) -> str:
    """The text of a question. Raises DataError if it is too long for inference, before a model is
    loaded.
    """
    if len(text) > MAX_QUESTION_CHARS:
        raise DataError(
            f"{place}: a question has at most {MAX_QUESTION_CHARS:,} characters, got {len(text):,} "
            f"({shown(text, 40)}); shorten it"
        )
    return text


def _json_questions(text: str, where: str) -> list[Question]:
    """JSON lines → questions. Ids are given, or `q0`, `q1`, … over the whole input."""
    found: dict[str, Question] = {}
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{place}: not JSON ({shown(line.strip(), 40)}); write one object per line"
            ) from error
        if not isinstance(fields, dict):
            raise DataError(
                f"{place}: not an object ({shown(line.strip(), 40)}); write one object per line, "
                'like {"question": "…"}'
            )
        row = Row(place, fields)
        name = optional_text(row, "id") or f"q{len(found)}"
        if name in found:
            raise DataError(
                f"{place}: the id {shown(name)} is already used by {found[name].where}; give every "
                "question its own id"
            )
        found[name] = Question(name, _short(text_field(row, "question").strip(), place), place)
    if not found:
        raise DataError(
            f'{where} holds no question; write one object per line, like {{"question": "…"}}'
        )
    return list(found.values())
