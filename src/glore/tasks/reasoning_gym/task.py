"""`task.kind: reasoning_gym`: problems that the package reasoning-gym makes from a seed.

The items are made twice, in two processes with different hash seeds, and must agree. Each item's
own answer must be graded right. Train, dev and test are cut by a hash of the question, so no
question is in two of them.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterable, Sequence
from functools import partial

from glore.config import ReasoningGymTaskSettings
from glore.config.plugins import is_installed
from glore.errors import ConfigError, DataError, shown
from glore.prompts import MAX_SOLUTION_CHARS
from glore.records import Problem
from glore.tasks.data.dataset import DatasetTask, splits_of
from glore.tasks.data.row import Row, text_field
from glore.tasks.data.splits import Loaded, Splits, make_splits
from glore.tasks.data.worked_solutions import worked_solution
from glore.tasks.grading.grade import (
    MAX_LATEX_CHARS,
    answer_line,
    find_answer,
    grade_number_answer,
)
from glore.tasks.grading.numbers import canonical, parse_number
from glore.tasks.protocol import Grade
from glore.tasks.reasoning_gym.process import GymProcess

__all__ = ["OwnGrader", "open_reasoning_gym", "regrade_reasoning_gym"]

MAKE_SECONDS = 900.0
"""Most time for making all items."""
SCORE_SECONDS = 5.0
"""Most time for one `score_answer`; an answer that takes longer is `unknown`."""
SHOWN_ITEMS = 5


def open_reasoning_gym(settings: ReasoningGymTaskSettings, seed: int) -> DatasetTask:
    """The problems of one set of reasoning-gym, the same for every seed of the run.

    Raises ConfigError without the package or for a set that can't be used (its items differ between
    calls, its own answers aren't graded right, it evaluates answers as code), DataError if too few
    questions differ.
    """
    return _task(settings, _splits(settings.model_dump_json()))


def regrade_reasoning_gym(
    settings: ReasoningGymTaskSettings, seed: int, problems: Iterable[Problem]
) -> DatasetTask:
    """The task with problems that `open_reasoning_gym` made earlier."""
    return _task(settings, splits_of(problems))


class OwnGrader:
    """Grades by the set's own `score_answer`, in a process that is ended after a limit of time: a
    score of 1 is right, a lower one wrong.
    """

    def __init__(self, settings: ReasoningGymTaskSettings) -> None:
        _check_installed()
        self._request = _request(settings) | {"make": 0}
        self._process: GymProcess | None = None
        self._end: weakref.finalize[[], OwnGrader] | None = None

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """The verdict on the answer after the last `####`."""
        answer = find_answer(steps)
        if answer is None or len(answer) > MAX_LATEX_CHARS:
            return Grade("wrong" if answer is None else "unknown", answer)
        index = json.loads(problem.meta)["index"]
        request = {"index": index, "question": problem.question, "answer": answer}
        reply = self._open().ask(request, SCORE_SECONDS)
        if reply is None:
            self.close()
        score = (reply or {}).get("score")
        if not isinstance(score, int | float):
            return Grade("unknown", answer)
        return Grade("right" if score >= 1 else "wrong", answer)

    def close(self) -> None:
        """End the process. The next question starts another."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _open(self) -> GymProcess:
        if self._process is None:
            process = GymProcess()
            process.ask(self._request, MAKE_SECONDS)
            self._process, self._end = process, weakref.finalize(self, process.close)
        return self._process


class _OwnTask(DatasetTask):
    """A task that asks the set itself."""

    own: OwnGrader

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        return self.own.grade(problem, steps)

    def close(self) -> None:
        self.own.close()


def _task(settings: ReasoningGymTaskSettings, splits: Splits) -> DatasetTask:
    if settings.grader == "numbers":
        return DatasetTask("reasoning_gym", splits, boxed=settings.boxed)
    task = _OwnTask("reasoning_gym", splits)
    task.own = OwnGrader(settings)
    return task


def _request(settings: ReasoningGymTaskSettings) -> dict[str, object]:
    return {
        "name": settings.name,
        "size": settings.size,
        "seed": settings.seed,
        "config": settings.config,
    }


def _check_installed() -> None:
    if not is_installed("reasoning_gym"):
        raise ConfigError(
            "task.kind: reasoning_gym needs the package reasoning-gym; install it with: pip "
            "install 'glore[reasoning-gym]'"
        )


@functools.lru_cache(maxsize=4)
def _splits(dumped: str) -> Splits:
    """The problems of the settings that this JSON holds; made once in a process."""
    settings = ReasoningGymTaskSettings.model_validate_json(dumped)
    items, evaluates = _made(settings)
    if settings.grader == "own" and evaluates:
        raise ConfigError(
            f"task.name: {shown(settings.name)} scores an answer by evaluating its text as code, "
            "which glore does not do to a model's text; set task.grader to numbers, or choose "
            "another set"
        )
    loaded = [_loaded(item, i, settings) for i, item in enumerate(items)]
    _check_own_answers(settings, [item.problem for item in loaded])
    return make_splits(
        {"all": loaded},
        n_dev=settings.n_dev,
        max_train=settings.max_train,
        max_test=settings.max_test,
        overlap="drop",
    )


def _made(settings: ReasoningGymTaskSettings) -> tuple[Sequence[dict[str, object]], bool]:
    """The items, made twice and equal; whether the set evaluates answers."""
    _check_installed()
    processes = [GymProcess(hash_seed) for hash_seed in (0, 1)]
    try:
        for process in processes:
            process.send(_request(settings) | {"make": settings.size})
        replies = [process.reply(MAKE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.close()
    first, second = replies
    if first is None or second is None:
        raise ConfigError(
            f"task.name: {shown(settings.name)} made no {settings.size} items in "
            f"{MAKE_SECONDS:.0f} seconds; lower task.size, or choose another set"
        )
    if "error" in first:
        raise ConfigError(
            f"task.name: reasoning-gym can't make {shown(settings.name)} with task.config "
            f"{shown(settings.config)}: {shown(str(first['error']), 200)}"
        )
    if first != second:
        raise ConfigError(
            f"task.name: the items of {shown(settings.name)} differ between two calls with one "
            "seed, so a run could not be made again; choose another set"
        )
    return first["items"], bool(first["evaluates"])  # type: ignore[return-value]


def _loaded(item: dict[str, object], index: int, settings: ReasoningGymTaskSettings) -> Loaded:
    row = Row(f"item {index} of {settings.name}", item)
    if not isinstance(item["answer"], str):
        raise ConfigError(
            f"task.name: {shown(settings.name)} names no answer of its own (item {index} has "
            f"{shown(item['answer'])}), so nothing can be checked against it; choose another set"
        )
    answer = text_field(row, "answer").strip()
    number = parse_number(answer)
    gold = canonical(number) if number is not None and settings.grader == "numbers" else answer
    name = f"{settings.name}-{index:05d}"
    solution = _worked(row, gold, settings)
    meta = json.dumps({"index": index})
    problem = Problem(name, str(item["question"]), gold, solution, "train", meta)
    return Loaded(problem, row.where)


def _worked(row: Row, gold: str, settings: ReasoningGymTaskSettings) -> tuple[str, ...] | None:
    """The set's worked solution; none if there is none, or it ends in another answer."""
    text = row.fields.get("solution")
    if not isinstance(text, str) or len(text) > MAX_SOLUTION_CHARS:
        return None
    try:
        grade = partial(grade_number_answer, boxed=True)
        return worked_solution(row, text, gold, gold, settings.merge_answer_line, grade)
    except DataError:
        return None


def _check_own_answers(settings: ReasoningGymTaskSettings, problems: Sequence[Problem]) -> None:
    """Raise ConfigError, with the list, unless each item's own answer is graded right."""
    grader = None if settings.grader == "numbers" else OwnGrader(settings)
    failed = []
    for problem in problems:
        steps = (answer_line(problem.answer),)
        grade = (
            grader.grade(problem, steps) if grader else grade_number_answer(problem.answer, steps)
        )
        if grade.verdict != "right" or "\n" in problem.answer:
            failed.append(f"{problem.id} {shown(problem.answer, 40)}")
    if grader is not None:
        grader.close()
    if failed:
        more = f" and {len(failed) - SHOWN_ITEMS} more" if len(failed) > SHOWN_ITEMS else ""
        hint = (
            "its answers are no numbers: try task.grader=own"
            if grader is None
            else "its answers can't be stated in one line, or it scores them below 1"
        )
        raise ConfigError(
            f"task.name: {shown(settings.name)}: {len(failed)} of {len(problems)} items don't have "
            f"their own answer graded right ({', '.join(failed[:SHOWN_ITEMS])}{more}); {hint}, or "
            "choose another set"
        )
