"""Stored records → the records that the same draws would have given with the current graders. Draws
nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from glore.config import LabelSettings
from glore.engines.lifetime import Closable
from glore.engines.protocol import FollowUp, Request, Result
from glore.progress import Progress, SilentProgress
from glore.prompts import LINES, PromptLayout, StepFormat, lines_of
from glore.records import PrefixTrials, Problem, Solution
from glore.tasks.protocol import Task
from glore.where import verify_prefixes

__all__ = ["Example", "RegradedTrials", "Tally", "regraded_solutions", "regraded_trials"]

Transition = tuple[str, str]
"""Stored verdict, new verdict."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One verdict that changes."""

    problem_id: str
    gold: str
    stored: str
    now: str
    answer: str | None
    """The new answer; if there is none, the stored one."""


class Tally:
    """Counts of the changes in one stage, with examples and a hash of all of them."""

    def __init__(self, n_examples: int) -> None:
        self.n_verdicts = 0
        self.n_answers = 0
        """Answers that are only spelt differently; the verdict stays."""
        self.transitions: Counter[Transition] = Counter()
        self.examples: dict[Transition, list[Example]] = {}
        self._n_examples = n_examples
        self._digest = hashlib.blake2b(digest_size=10)
        self._seen: set[tuple[Transition, str]] = set()

    @property
    def changes_anything(self) -> bool:
        return bool(self.transitions) or self.n_answers > 0

    @property
    def digest(self) -> str:
        """A short hash of all changes."""
        return self._digest.hexdigest()

    def add(
        self,
        key: Sequence[object],
        problem: Problem,
        stored: Sequence[str | None],
        now: Sequence[str | None],
    ) -> None:
        """Count one record: `stored` and `now` are (verdict, answer), `key` identifies the record.
        Each example is of another question.
        """
        self.n_verdicts += 1
        if stored == now:
            return
        self._digest.update("\x1f".join(map(repr, (*key, *now))).encode())
        (before, old_answer), (after, new_answer) = stored, now
        if before == after:
            self.n_answers += 1
            return
        transition = (str(before), str(after))
        self.transitions[transition] += 1
        examples = self.examples.setdefault(transition, [])
        if len(examples) < self._n_examples and (transition, problem.id) not in self._seen:
            self._seen.add((transition, problem.id))
            examples.append(
                Example(
                    problem.id,
                    problem.answer,
                    *transition,
                    old_answer if new_answer is None else new_answer,
                )
            )


def regraded_solutions(
    task: Task,
    problems: Mapping[str, Problem],
    solutions: Sequence[Solution],
    tally: Tally,
    advance: Callable[[], None],
) -> list[Solution]:
    """The same solutions with the verdicts and answers of the current graders."""
    out = []
    for solution in solutions:
        problem = problems[solution.problem_id]
        grade = task.grade(problem, lines_of(solution.steps))
        tally.add(
            (solution.id,),
            problem,
            (solution.correct, solution.answer),
            (grade.verdict, grade.answer),
        )
        out.append(dataclasses.replace(solution, correct=grade.verdict, answer=grade.answer))
        advance()
    return out


class RegradedTrials(NamedTuple):
    """Verifying rollouts graded by the current graders."""

    stored: list[PrefixTrials]
    """All rollouts that were drawn, with new verdicts."""
    records: list[PrefixTrials]
    """The records of drafts whose scan needs no more rollouts."""
    unfinished: frozenset[str]
    """Ids of the other drafts: their scan has to go on."""
    n_dropped: int
    """Rollouts of the finished drafts that a scan would not have drawn."""


def regraded_trials(
    task: Task,
    problems: Mapping[str, Problem],
    drafts: Sequence[Solution],
    trials: Sequence[PrefixTrials],
    settings: LabelSettings,
    tally: Tally,
    advance: Callable[[], None],
    steps: StepFormat = LINES,
) -> RegradedTrials:
    """What a scan of these drafts records when its rollouts are graded again. The consistency of a
    rollout doesn't depend on its grade, and stays.
    """
    draft_of = {d.id: d for d in drafts}
    stored = []
    for trial in trials:
        draft = draft_of[trial.solution_id]
        problem, kept = problems[draft.problem_id], draft.steps[: trial.n_steps_kept]
        whole = [lines_of((*kept, *steps.split(text))) for text in trial.completions]
        grades = [task.grade(problem, lines) for lines in whole]
        for k, (before, grade) in enumerate(zip(trial.correct, grades, strict=True)):
            # The record holds no answers, so none can differ.
            tally.add(
                (draft.id, trial.n_steps_kept, k),
                problem,
                (before, grade.answer),
                (grade.verdict, grade.answer),
            )
        stored.append(dataclasses.replace(trial, correct=tuple(g.verdict for g in grades)))
        advance()
    engine = _NoEngine()
    progress: Progress = SilentProgress()
    # The seed only matters to drawing, and nothing is drawn.
    records = verify_prefixes(
        engine,
        task,
        problems,
        drafts,
        settings,
        seed=0,
        progress=progress,
        drawn=stored,
        layout=PromptLayout(steps),
    )
    unfinished = frozenset(engine.drafts)
    finished = [t for t in records if t.solution_id not in unfinished]
    n_drawn = sum(len(t.completions) for t in stored if t.solution_id not in unfinished)
    return RegradedTrials(
        stored, finished, unfinished, n_drawn - sum(len(t.completions) for t in finished)
    )


class _NoEngine(Closable):
    """Draws nothing, and remembers the drafts for which rollouts were requested."""

    backend = "none"

    def __init__(self) -> None:
        self.drafts: set[str] = set()

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        self.drafts.update(r.id.rsplit("/", 2)[0] for r in requests)
        return iter(())
