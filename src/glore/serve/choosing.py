"""Completions of the student → one choice: as drawn, the best by the ORM, or by majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from glore.engines.protocol import Completion
from glore.prompts import StepFormat, lines_of
from glore.serve.drawn_tokens import drawn_tokens
from glore.serve.served import Served
from glore.serve.work import Choice, Draw
from glore.solutions import completion_text
from glore.tasks.grading.grade import find_answer, normalise_gold

__all__ = [
    "Chosen",
    "answer_of",
    "best_of",
    "by_majority",
    "choice_of",
    "chosen",
    "completion_solution",
    "cut",
    "drawn",
    "solution_text",
    "solutions_text",
]


class Chosen(NamedTuple):
    """A completion, read."""

    steps: tuple[str, ...]
    answer: str | None


def chosen(served: Served, completion: Completion) -> Chosen:
    """A completion → its steps and its final answer, in the graders' spelling."""
    steps = completion_text(completion.text, served.refiner.layout.steps).steps
    return Chosen(steps, answer_of(steps))


def answer_of(steps: Sequence[str]) -> str | None:
    """The final answer of a solution, in the graders' spelling."""
    found = find_answer(lines_of(tuple(steps)), boxed=True)
    return None if found is None else normalise_gold(found) or found


def drawn(served: Served, completions: Sequence[Completion], draw: Draw) -> Choice:
    """The student's own text, as it was drawn."""
    (completion,) = completions
    text, is_cut = cut(completion.text, draw.stops)
    tokens = None if draw.n_logprobs is None else drawn_tokens(served.tokenizer, completion, text)
    return Choice(text, "stop" if is_cut else _reason(completion), tokens=tokens)


def best_of(
    served: Served,
    completions: Sequence[Completion],
    scores: Sequence[tuple[float, ...]],
    draw: Draw,
) -> Choice:
    """The solution with the best score; the first on ties. `scores`: the ORM's, of every step."""
    index = served.refiner.options.choose(scores)
    notes = [f"score {served.refiner.options.score(values):.3f}" for values in scores]
    return _choice(served, completions, index, notes, draw)


def by_majority(served: Served, completions: Sequence[Completion], draw: Draw) -> Choice:
    """The first solution with the most frequent answer (ties: the answer that comes first); the
    first of all where none has an answer.
    """
    answers = [chosen(served, completion).answer for completion in completions]
    counts = Counter(answer for answer in answers if answer is not None)
    most = counts.most_common(1)
    index = answers.index(most[0][0]) if most else 0
    notes = ["no answer" if a is None else f"{counts[a]} of {len(answers)}" for a in answers]
    return _choice(served, completions, index, notes, draw)


def solution_text(steps: Sequence[str], how: StepFormat) -> str:
    """A solution's steps → its text, without an end after the last step."""
    return how.end.join(steps)


def completion_solution(served: Served, completion: Completion) -> str:
    """A completion → the text of its solution."""
    return solution_text(chosen(served, completion).steps, served.refiner.layout.steps)


def solutions_text(texts: Sequence[str]) -> str:
    """The solutions to choose from, as text for people."""
    return "\n\n".join(f"Solution {n}\n{text}" for n, text in enumerate(texts, start=1))


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the stops, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def choice_of(solution: str, completion: Completion, work: str, draw: Draw) -> Choice:
    """The text of the chosen solution, its completion, and the work on it → the choice."""
    text, is_cut = cut(solution, draw.stops)
    return Choice(text, "stop" if is_cut else _reason(completion), work)


def _choice(
    served: Served,
    completions: Sequence[Completion],
    index: int,
    notes: Sequence[str],
    draw: Draw,
) -> Choice:
    texts = [completion_solution(served, completion) for completion in completions]
    verdicts = [
        f"\nSolution {n}: {note}{', chosen' if n - 1 == index else ''}"
        for n, note in enumerate(notes, start=1)
    ]
    work = f"{solutions_text(texts)}\n{''.join(verdicts)}"
    return choice_of(texts[index], completions[index], work, draw)


def _reason(completion: Completion) -> str:
    return "length" if completion.stop == "length" else "stop"
