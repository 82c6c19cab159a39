"""The student: supervised fine-tuning, then expert iteration (method 1).

Round i samples K solutions per training question from the current student, keeps the distinct right
ones (R_i), and fine-tunes the *pretrained base* again on D_i = R_i ∪ D_{i−1}, where D_0 are the
worked solutions. It stops when greedy accuracy on dev gains too little, and keeps the best student.
Without worked solutions, the first round samples from the base with worked examples in the
prompt.

Duplicates are exact: the same text without surrounding blanks, per question and across rounds,
worked solutions included.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

from glore.engines.protocol import Completion, Engine, Request, SamplingParams
from glore.progress import Progress
from glore.prompts import PLAIN, PromptLayout, Shot, StepFormat
from glore.records import Problem, Solution
from glore.seeds import stable_seed
from glore.solutions import graded_solution, same_text
from glore.tasks.grading.answers import is_answer_line
from glore.tasks.protocol import Task

__all__ = [
    "ONE_SHOT",
    "best_round",
    "capped",
    "first_answer",
    "goes_on",
    "new_right",
    "sample_solutions",
]

Steps = tuple[str, ...]

ONE_SHOT: Shot = (
    "Mia picked 12 apples and Tom picked 9. They put all of them into 3 bags, the same number in "
    "each. How many apples are in one bag?",
    ("Together they picked 12 + 9 = 21 apples.", "One bag holds 21 / 3 = 7 apples.", "#### 7"),
)
"""The worked example of a base that solves without fine-tuning, unless the run has its own."""


def sample_solutions(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    *,
    n: int,
    params: SamplingParams,
    seed: int,
    stage: str,
    source: str,
    progress: Progress,
    layout_of: Callable[[Problem], PromptLayout] = lambda _: PLAIN,
    prompted: bool = False,
) -> list[Solution]:
    """n graded solutions of every problem, in the order of the problems, then of k. Their ids are
    `STAGE/PROBLEM/K`.

    `layout_of`: a problem → the layout of its prompt. `prompted`: the base was not fine-tuned, so
    cut the text after the answer line.
    """
    known = {p.id: p for p in problems}
    layouts = {p.id: layout_of(p) for p in problems}
    requests = [
        Request(
            id=p.id,
            segments=layouts[p.id].solve(p.question),
            seeds=tuple(stable_seed(seed, stage, p.id, k) for k in range(n)),
            params=params,
        )
        for p in problems
    ]
    found: dict[str, list[Solution]] = {}
    for result in engine.run(requests):
        problem = known[result.request.id]
        found[problem.id] = [
            graded_solution(
                task,
                problem,
                first_answer(completion, layouts[problem.id].steps) if prompted else completion,
                solution_id=f"{stage}/{problem.id}/{k}",
                source=source,
                temperature=params.temperature,
                steps=layouts[problem.id].steps,
            )
            for k, completion in enumerate(result.completions)
        ]
        progress.advance(tokens=sum(c.n_tokens for c in result.completions))
    return [solution for p in problems for solution in found[p.id]]


def new_right(samples: Iterable[Solution], known: Iterable[tuple[str, Steps]]) -> list[Solution]:
    """R_i: the right samples with a text that is neither in `known` (problem id, steps) nor in an
    earlier sample. The order stays.
    """
    seen = {(problem_id, same_text(steps)) for problem_id, steps in known}
    out = []
    for sample in samples:
        key = (sample.problem_id, same_text(sample.steps))
        if sample.correct == "right" and key not in seen:
            seen.add(key)
            out.append(sample)
    return out


def capped(
    worked: Sequence[tuple[str, Steps]], right: Sequence[Solution], limit: int, seed: int
) -> list[tuple[str, Steps]]:
    """D_i as (problem id, steps): worked solutions and right samples, at most `limit` per question
    (0: all).

    Worked solutions go first. Samples are chosen by hash, so mostly the same ones stay when a later
    round adds a few.
    """
    everything = [*worked, *((s.problem_id, s.steps) for s in right)]
    if limit == 0:
        return everything
    ranked = sorted(
        range(len(everything)),
        key=lambda i: (
            i >= len(worked),
            stable_seed(seed, "cap", everything[i][0], same_text(everything[i][1])),
            i,
        ),
    )
    room: dict[str, int] = {}
    kept = set()
    for i in ranked:
        problem_id = everything[i][0]
        if room.setdefault(problem_id, limit) > 0:
            room[problem_id] -= 1
            kept.add(i)
    return [item for i, item in enumerate(everything) if i in kept]


def goes_on(dev_accuracy: Sequence[float], min_gain: float) -> bool:
    """True if another round is due. `dev_accuracy`: per round so far, round 0 first. Once a round
    has gained less than `min_gain`, no other follows.
    """
    gains = [after - before for before, after in itertools.pairwise(dev_accuracy)]
    return all(gain >= min_gain - 1e-9 for gain in gains)


def best_round(dev_accuracy: Sequence[float]) -> int:
    """Index of the best student by greedy accuracy on dev; the earliest on ties."""
    return max(range(len(dev_accuracy)), key=lambda i: (dev_accuracy[i], -i))


def first_answer(completion: Completion, steps: StepFormat) -> Completion:
    """The completion up to the end of its first answer line outside of thoughts that are kept
    apart. A base that was not fine-tuned goes on to write the next question.
    """
    said = steps.said(completion.text)
    lines = said.text.partition("\nQuestion:")[0].split("\n")
    end = next((n for n, line in enumerate(lines, start=1) if is_answer_line(line)), len(lines))
    n_chars = len("\n".join(lines[:end]))
    # Without an answer nothing is left out, also no thought behind the last word.
    whole = n_chars == len(said.text)
    kept = completion.text if whole else completion.text[: said.ends[n_chars]]
    return dataclasses.replace(completion, text=kept)
