"""RLHFlow's conversations (Xiong et al. 2024): turns in which the user gives a step and the
assistant says `+` or `-`. The first turn is the question, a space and the first step.
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.errors import shown
from glore.formats.fields import FieldError, Fields, objects, others, text
from glore.formats.joined import QUESTION, SIGNS, join_question, split_question
from glore.formats.labelled import LabelledSolution
from glore.formats.layout import Layout, ReadOptions, WriteOptions

__all__ = ["RLHFLOW"]

TURNS = "conversations"


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    turns = objects(fields, TURNS)
    if len(turns) % 2:
        raise FieldError(TURNS, f"has {len(turns)} turns; each step needs an answer + or -")
    steps = tuple(_content(turn, i * 2, "user") for i, turn in enumerate(turns[::2]))
    answers = tuple(_content(turn, i * 2 + 1, "assistant") for i, turn in enumerate(turns[1::2]))
    for i, answer in enumerate(answers):
        if answer not in SIGNS.values():
            raise FieldError(f"{TURNS}[{2 * i + 1}]", f"must say + or -, got {shown(answer)}")
    question, first, separator = split_question(steps[0], fields)
    yield LabelledSolution(
        question,
        (first, *steps[1:]),
        tuple(answer == SIGNS[True] for answer in answers),
        layout=RLHFLOW.name,
        fields={**others(fields, TURNS, QUESTION), **separator},
    )


def _content(turn: Fields, number: int, role: str) -> str:
    if turn.get("role") != role:
        found = shown(turn.get("role"))
        raise FieldError(f"{TURNS}[{number}].role", f"must be {role!r} here, got {found}")
    try:
        return text(turn, "content")
    except FieldError as fault:
        raise FieldError(f"{TURNS}[{number}].content", fault.rule) from fault


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    first = join_question(solution, solution.steps[0], RLHFLOW.name)
    turns: list[dict[str, str]] = []
    steps = (first, *solution.steps[1:])
    for step, label in zip(steps, solution.labels or (), strict=True):
        turns.append({"content": step, "role": "user"})
        turns.append({"content": SIGNS[bool(label)], "role": "assistant"})
    same = solution.layout == RLHFLOW.name
    kept = others(solution.fields, "separator") if same else {}
    return {TURNS: turns, QUESTION: solution.question, **kept}


RLHFLOW = Layout(
    "rlhflow",
    "RLHFlow: conversations of steps and + or -",
    lambda fields: isinstance(fields.get(TURNS), list),
    _read,
    _write,
)
