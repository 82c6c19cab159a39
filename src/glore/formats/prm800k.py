"""PRM800K (Lightman et al. 2023): `question.problem`, `label.steps` with rated completions.

A rating is 1, 0 (neutral) or -1, or null if there is none. A step may have several completions, one
of which was chosen, or was written by a human. A line is read as one solution for each way through
it: the chosen steps if they reach the end, and every completion that was not chosen, after the
chosen steps before it. So labels stop at the first mistake, as the data does. A solution is written
as a line with one completion per step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from glore.errors import shown
from glore.formats.fields import FieldError, Fields, optional_text, others, text
from glore.formats.labelled import NEUTRAL, Label, LabelledSolution
from glore.formats.layout import (
    MISSING_LABELS,
    NEUTRAL_LABELS,
    Layout,
    ReadOptions,
    WriteOptions,
)

__all__ = ["PRM800K"]

RATINGS: dict[object, Label] = {1: True, 0: NEUTRAL, -1: False, None: None}
FOUND_ERROR = "found_error"
GIVEN_UP = ("bad_problem", "give_up")
"""Reasons to finish without any step; such a line has no solution."""


class _Rated(NamedTuple):
    text: str
    label: Label


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    question, label = _object(fields, "question"), _object(fields, "label")
    problem = _named("question", question, "problem")
    answer = optional_text(question, "ground_truth_answer")
    kept = others(fields, "question", "label")
    if rest := others(question, "problem", "ground_truth_answer"):
        kept["question"] = rest
    if rest := {k: v for k, v in others(label, "steps").items() if v is not None}:
        kept["label"] = rest
    for path in _paths(label):
        yield LabelledSolution(
            problem,
            tuple(step.text for step in path),
            tuple(step.label for step in path),
            answer=answer,
            layout=PRM800K.name,
            fields=kept,
        )


def _paths(label: Fields) -> Iterator[list[_Rated]]:
    """Every way through the steps that ends there, or that nobody chose to follow."""
    steps = label.get("steps")
    if not steps and label.get("finish_reason") in GIVEN_UP:
        return
    if not isinstance(steps, list) or not steps:
        raise FieldError("label.steps", f"must be a list of at least one step, got {shown(steps)}")
    before: list[_Rated] = []
    for i, step in enumerate(steps):
        where = f"label.steps[{i}]"
        if not isinstance(step, dict):
            raise FieldError(where, f"must be an object, got {shown(step)}")
        completions = _completions(where, step)
        chosen = step.get("chosen_completion")
        for k, completion in enumerate(completions):
            if k != chosen:
                yield [*before, completion]
        following = _chosen(where, step, completions)
        if following is None:
            if not completions and before:
                yield before
            return
        before = [*before, following]
    yield before


def _completions(where: str, step: Mapping[str, object]) -> list[_Rated]:
    found = step.get("completions")
    if found is None:
        return []
    if not isinstance(found, list):
        raise FieldError(f"{where}.completions", f"must be a list, got {shown(found)}")
    rated = []
    for k, item in enumerate(found):
        at = f"{where}.completions[{k}]"
        if not isinstance(item, dict):
            raise FieldError(at, f"must be an object, got {shown(item)}")
        rating = item.get("rating")
        if isinstance(rating, bool) or not (rating is None or rating in (1, 0, -1)):
            raise FieldError(f"{at}.rating", f"must be -1, 0, 1 or null, got {shown(rating)}")
        rated.append(_Rated(_named(at, item, "text"), RATINGS[rating]))
    return rated


def _chosen(where: str, step: Mapping[str, object], completions: list[_Rated]) -> _Rated | None:
    """The step that the next ones follow; none if there is none."""
    chosen = step.get("chosen_completion")
    if chosen is None:
        human = step.get("human_completion")
        if human is None:
            return None
        if isinstance(human, str):
            return _Rated(human, True)
        if not isinstance(human, dict):
            raise FieldError(f"{where}.human_completion", f"must be an object, got {shown(human)}")
        return _Rated(_named(f"{where}.human_completion", human, "text"), True)
    if isinstance(chosen, bool) or not isinstance(chosen, int):
        raise FieldError(f"{where}.chosen_completion", f"must be an index, got {shown(chosen)}")
    if not 0 <= chosen < len(completions):
        raise FieldError(
            f"{where}.chosen_completion", f"is {chosen}, but there are {len(completions)}"
        )
    return completions[chosen]


def _object(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise FieldError(name, f"must be an object, got {shown(value)}")
    return cast(Fields, value)


def _named(where: str, fields: Fields, name: str) -> str:
    try:
        return text(fields, name)
    except FieldError as fault:
        raise FieldError(f"{where}.{name}", fault.rule) from fault


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    ratings = {label: rating for rating, label in RATINGS.items()}
    kept = solution.fields if solution.layout == PRM800K.name else {}
    question = cast(Fields, kept.get("question", {}))
    label = {"finish_reason": None, **cast(Fields, kept.get("label", {}))}
    labels = solution.labels or ()
    stops = label.get("finish_reason") == FOUND_ERROR and labels[-1] is False
    steps = [
        {
            "completions": [{"text": step, "rating": ratings[labels[i]], "flagged": None}],
            "human_completion": None,
            "chosen_completion": None if stops and i == len(labels) - 1 else 0,
        }
        for i, step in enumerate(solution.steps)
    ]
    return {
        **others(kept, "question", "label"),
        "question": {
            "problem": solution.question,
            "ground_truth_answer": solution.answer,
            **question,
        },
        "label": {"steps": steps, **label},
    }


PRM800K = Layout(
    "prm800k",
    "PRM800K: question.problem, label.steps with rated completions",
    lambda fields: (
        isinstance(fields.get("question"), dict) and isinstance(fields.get("label"), dict)
    ),
    _read,
    _write,
    frozenset({NEUTRAL_LABELS, MISSING_LABELS, "answer"}),
)
