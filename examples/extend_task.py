"""A task of your own: settings, problems, and what counts as right.

    python examples/extend_task.py

prints a problem and two grades. To train on it, put this file into a package and install that. Its
`pyproject.toml` names the task, whose kind a recipe then gives:

    [project.entry-points."glore.tasks"]
    clock = "extend_task:ClockSettings"

    glore run recipe.yaml task.kind=clock task.hours=24 base.model=Qwen/Qwen2.5-0.5B
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from glore import Problem
from glore.config import TaskSettings
from glore.seeds import stable_seed
from glore.tasks import Grade, open_task
from glore.tasks.grading.grade import answer_line, grade_number_answer

SIZES = {"train": 1000, "dev": 100, "test": 200}


class ClockSettings(TaskSettings):
    """What a recipe may set below `task`."""

    kind: Literal["clock"] = "clock"
    hours: int = Field(12, ge=2)
    """Hours on the clock."""

    opener: ClassVar[str] = "extend_task:Clock"


class Clock:
    """Sums of hours on a clock, with worked solutions. The seed draws the problems."""

    name = "clock"

    def __init__(self, settings: ClockSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def problems(self, split: str) -> list[Problem]:
        """All problems of `train`, `dev` or `test`, always in the same order."""
        return [self._problem(split, number) for number in range(SIZES[split])]

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """Compare the number after the last `####` with the answer."""
        return grade_number_answer(problem.answer, steps)

    def _problem(self, split: str, number: int) -> Problem:
        rng = random.Random(stable_seed(self.seed, "clock", split, number))
        n_hours = self.settings.hours
        now, wait = rng.randrange(n_hours), rng.randrange(10, 1000)
        answer = (now + wait) % n_hours
        question = f"A clock of {n_hours} hours shows {now}. What does it show {wait} hours later?"
        total = now + wait
        steps = (f"{now} + {wait} = {total}", f"{total} mod {n_hours} = {answer}")
        worked = (*steps, answer_line(str(answer)))
        return Problem(f"clock-{split}-{number}", question, str(answer), worked, split)


if __name__ == "__main__":
    task = open_task(ClockSettings(hours=24), seed=0)
    problem = task.problems("train")[0]
    print(problem.question)
    for solution in (problem.solution or (), ("It shows noon.",)):
        print(task.grade(problem, solution).verdict, *solution, sep=" | ")
