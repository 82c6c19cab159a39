"""Records → the data of the solution browser: for each question, the draft with scores and truth,
the refinements, and the choice.

Numbers of questions, steps and characters are limited, and the page says what is left out.
Everything is data for `textContent`; nothing here is read as HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from glore.decisions import MARKED_BY
from glore.evaluation.inputs import (
    ORM,
    REFINERS,
    SORM,
    EvaluationInputs,
    EvaluationOptions,
    Index,
)
from glore.evaluation.refinement import candidates_of, chosen_by_orm
from glore.records import Problem, Solution, StepLabels

__all__ = ["MAX_PROBLEMS", "Json", "embedded", "solution_data"]

MAX_PROBLEMS = 400
MAX_STEPS = 60
MAX_CHARS = 600
MAX_QUESTION_CHARS = 3000

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def solution_data(
    inputs: EvaluationInputs, options: EvaluationOptions, digits: int | None = 3
) -> dict[str, Json]:
    """The data that the page's script shows, for the first `MAX_PROBLEMS` drafts. `digits` of
    probabilities and scores; none: all, for a page that decides by them.
    """
    index = Index(inputs, options)
    problem_of = {p.id: p for p in inputs.problems}
    labels = {r.solution_id: r for r in inputs.draft_labels}
    truth = {r.solution_id: r for r in inputs.draft_truth}
    items: list[Json] = [
        _item(index, problem_of[d.problem_id], d, labels, truth, digits)
        for d in index.drafts[:MAX_PROBLEMS]
    ]
    return {"items": items, "total": len(index.drafts), "threshold": options.threshold}


def embedded(data: dict[str, Json]) -> str:
    """Data → JSON for the inside of a `<script>` element: no character in it can end the element or
    start another.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _item(
    index: Index,
    problem: Problem,
    draft: Solution,
    labels: Mapping[str, StepLabels],
    truth: Mapping[str, StepLabels],
    digits: int | None,
) -> Json:
    candidates = candidates_of(index, draft)
    shown = [
        draft,
        *(s for r in REFINERS if (s := index.refinement_of.get((draft.id, r))) is not None),
    ]
    picked = chosen_by_orm(index, candidates)
    return {
        "id": problem.id,
        "question": _cut(problem.question, MAX_QUESTION_CHARS),
        "answer": _cut(problem.answer, MAX_CHARS),
        "kind": _kind(index, draft, picked, candidates),
        "mark": {
            refiner: _mark(index, draft, model)
            for refiner, model in MARKED_BY.items()
            if model is not None
        },
        "solutions": [
            _solution(
                index,
                s,
                s.id == picked.id,
                any(s.id == c.id for c in candidates),
                labels,
                truth,
                digits,
            )
            for s in shown
        ],
    }


def _kind(index: Index, draft: Solution, picked: Solution, candidates: list[Solution]) -> str:
    """What came of a draft. `needless`: it was right, and yet the ORM called it wrong or a
    refinement was chosen, which is right too. `missed`: a right candidate was not chosen.
    """
    before, after = draft.correct == "right", picked.correct == "right"
    if before:
        if not after:
            return "broken"
        orm = index.step_scores(ORM, draft)
        doubted = orm is not None and index.options.needs_work(orm)
        return "needless" if doubted or picked.id != draft.id else "kept"
    if after:
        return "fixed"
    return "missed" if any(c.correct == "right" for c in candidates) else "unsolved"


def _mark(index: Index, draft: Solution, model: str) -> int | None:
    p = index.step_scores(model, draft)
    return index.options.first_bad_step(p) if p is not None else None


def _solution(
    index: Index,
    solution: Solution,
    chosen: bool,
    candidate: bool,
    labels: Mapping[str, StepLabels],
    truth: Mapping[str, StepLabels],
    digits: int | None,
) -> Json:
    orm, sorm = (index.step_scores(m, solution) or () for m in (ORM, SORM))
    label, true = (
        (r.labels if (r := found.get(solution.id)) is not None else None) or ()
        for found in (labels, truth)
    )
    steps: list[Json] = [
        {
            "text": _cut(step, MAX_CHARS),
            "orm": _at(orm, i, digits),
            "sorm": _at(sorm, i, digits),
            "label": _at(label, i),
            "truth": _at(true, i),
        }
        for i, step in enumerate(solution.steps[:MAX_STEPS])
    ]
    score = index.score(ORM, solution)
    return {
        "source": solution.source if solution.draft_id else "draft",
        "verdict": solution.correct,
        "answer": None if solution.answer is None else _cut(solution.answer, 80),
        "score": None if score is None else _rounded(score, digits),
        "last": _at(orm, len(orm) - 1, digits) if orm else None,
        "chosen": chosen,
        "candidate": candidate,
        "more": max(0, len(solution.steps) - MAX_STEPS),
        "steps": steps,
    }


def _at(
    values: tuple[float, ...] | tuple[bool, ...], i: int, digits: int | None = None
) -> float | bool | None:
    if i >= len(values):
        return None
    value = values[i]
    return value if isinstance(value, bool) else _rounded(value, digits)


def _rounded(value: float, digits: int | None) -> float:
    return value if digits is None else round(value, digits)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
