"""Question and first step in one text, as Math-Shepherd, OpenRLHF and RLHFlow write them.

The text is the question, a space and the step. It ends the question before the words `Step 1:`.
Where they are missing, or there more than once, nobody can tell the two apart: the question is then
left empty and its text stays in the first step, so that nothing is lost. glore writes the column
`question` too, which other tools ignore; with it, every text comes back as it was.
"""

from __future__ import annotations

import re

from glore.errors import DataError, shown
from glore.formats.fields import FieldError, Fields, text
from glore.formats.labelled import LabelledSolution

__all__ = ["JOINED", "QUESTION", "SIGNS", "join_question", "refuse_token", "split_question"]

JOINED = ("math_shepherd", "openrlhf", "rlhflow")
"""Layouts with question and first step in one text."""
QUESTION = "question"
SIGNS = {True: "+", False: "-"}
FIRST_STEP = re.compile(r"\bstep 1:", re.IGNORECASE)
SEPARATOR = "separator"
"""Field in which what stands between the two is kept, if it is no space."""


def join_question(solution: LabelledSolution, first: str, layout: str) -> str:
    """The question and the first step as one text."""
    if not solution.question:
        return first
    separator = solution.fields.get(SEPARATOR, " ") if solution.layout == layout else " "
    return f"{solution.question}{separator}{first}"


def split_question(joined: str, fields: Fields) -> tuple[str, str, dict[str, object]]:
    """A text of both → question, first step, and the separator as a field if it is no space.

    Raises FieldError if the text does not begin with the column `question`.
    """
    if QUESTION in fields:
        question = text(fields, QUESTION)
        rest = joined[len(question) :]
        if not joined.startswith(question) or (question and not rest[:1].isspace()):
            raise FieldError(QUESTION, "the solution's text doesn't begin with it and a space")
        cut = 1 if question else 0
        return question, rest[cut:], _kept(rest[:cut])
    found = list(FIRST_STEP.finditer(joined))
    if len(found) != 1 or not joined[: found[0].start()].strip():
        return "", joined, {}
    at = found[0].start()
    if not joined[at - 1].isspace():
        return "", joined, {}
    return joined[: at - 1], joined[at:], _kept(joined[at - 1])


def refuse_token(token: str, solution: LabelledSolution, layout: str) -> None:
    """Raise DataError if the layout would read a text of the solution as its control token."""
    for name, value in (("question", solution.question), *(("a step", s) for s in solution.steps)):
        if token in value:
            raise DataError(
                f"{name} holds {shown(token)}, which ends a step in the layout {layout}: "
                f"{shown(value)}; choose a layout with lists, such as trl or jsonl, or another "
                "--placeholder where the layout has one"
            )


def _kept(separator: str) -> dict[str, object]:
    return {} if separator in ("", " ") else {SEPARATOR: separator}
