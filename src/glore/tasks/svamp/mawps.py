"""The MAWPS/ASDiv-A file that SVAMP's authors trained on: 3,138 worded problems with slots
`number0 …`, their numbers, and equations in prefix form.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from glore.config import Worked
from glore.errors import DataError, shown
from glore.records import Problem
from glore.tasks.data.splits import Splits, question_key
from glore.tasks.grading.numbers import canonical, parse_number
from glore.tasks.svamp.equations import parse_prefix, value_of
from glore.tasks.svamp.templates import SLOT, Template, closed_wordings, filled, solved, wording

__all__ = ["COLUMNS", "MawpsRow", "read_mawps", "with_mawps"]

COLUMNS = ("Question", "Numbers", "Equation", "Answer")
_MAX_FILE_BYTES = 2**26


class MawpsRow(NamedTuple):
    """A line of the file."""

    template: Template
    answer: str


def read_mawps(path: Path, setting: str) -> list[MawpsRow]:
    """All lines of the file at `path`, which `setting` of the recipe names. Raises DataError (file,
    line, column, fix).
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DataError(
                f"{setting} {path} is larger than {_MAX_FILE_BYTES // 2**20} MiB; is it the "
                "MAWPS/ASDiv-A file?"
            )
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise DataError(
                    f"{path}, line 1: the column {', '.join(missing)} is missing; it needs "
                    f"{', '.join(COLUMNS)}"
                )
            return [_row(row, f"{path}, line {reader.line_num}") for row in reader]
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check {setting}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({shown(str(error))}); check {setting}"
        ) from error


def with_mawps(splits: Splits, rows: Iterable[MawpsRow], worked: Worked) -> Splits:
    """The splits with the file's problems added to *train*, solved as `task.worked` says.

    Left out and counted: problems whose wording, numbers masked, is that of a dev or test question;
    questions that are there already; and problems whose equation does not give the answer exactly
    (`1050 / 65 = 16.153…`).
    """
    closed = closed_wordings(splits)
    seen = {question_key(problem.question) for problem in splits.problems["train"]}
    added: list[Problem] = []
    n_overlaps = n_duplicates = 0
    for number, (template, answer) in enumerate(rows, start=1):
        question, gold = filled(template, template.slots), parse_number(answer)
        if wording(template.text) in closed:
            n_overlaps += 1
        elif (key := question_key(question)) in seen:
            n_duplicates += 1
        elif gold is not None and _value(template) == gold.value:
            seen.add(key)
            steps = solved(template, worked)
            added.append(Problem(f"mawps-{number:05d}", question, canonical(gold), steps, "train"))
    return Splits(
        {**splits.problems, "train": (*splits.problems["train"], *added)},
        splits.n_duplicates + n_duplicates,
        splits.n_overlaps + n_overlaps,
    )


def _value(template: Template) -> Fraction | None:
    try:
        return value_of(template.tree, template.slots)
    except DataError:
        return None


def _row(row: Mapping[str, str | None], where: str) -> MawpsRow:
    question, numbers, equation, answer = (row[name] for name in COLUMNS)
    if not question or not numbers or not equation:
        raise DataError(
            f"{where}: Question, Numbers and Equation must not be empty; complete the line or "
            "remove it"
        )
    slots = {}
    for i, text in enumerate(numbers.split()):
        number = parse_number(text)
        if number is None:
            raise DataError(
                f"{where}: the column 'Numbers' has {shown(text)}, which is not a number; correct "
                "it"
            )
        slots[f"number{i}"] = number.value
    try:
        tree = parse_prefix(equation)
        unknown = set(SLOT.findall(f"{question} {equation}")) - slots.keys()
    except DataError as error:
        raise DataError(
            f"{where}: the column 'Equation': {error}; correct it or remove the line"
        ) from error
    if unknown:
        raise DataError(
            f"{where}: there is no number for {', '.join(sorted(unknown))}; complete the column "
            "'Numbers'"
        )
    return MawpsRow(Template(_untokenised(question), tree, slots), answer or "")


def _untokenised(text: str) -> str:
    """`Jo 's pens . how many ?` → `Jo's pens. How many?`, as in SVAMP."""
    text = re.sub(
        r"\s+([.,?!;:)%]|'s\b|n't\b|'(?=\s))", r"\1", " ".join(text.replace("’", "'").split())
    )
    return re.sub(
        r"(^|[.?!] )(?!number[0-9])([a-z])", lambda match: match[1] + match[2].upper(), text
    )
